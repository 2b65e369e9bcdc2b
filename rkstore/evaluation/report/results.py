"""Evaluated dictionaries as Markdown tables."""

from collections.abc import Iterator, Sequence

from rkstore.evaluation.measure import Evaluation
from rkstore.evaluation.report import tables
from rkstore.store.sites import briefly


def table(results: Sequence[Evaluation]) -> str:
    """The metrics side by side, and below them those of each site and of each prefix."""
    head = ["dictionary", "L0", "dead", "of latents", "FVU", "explained", "MSE", "cosine", "dense"]
    rows = [
        [
            result.name,
            number(result.l0, ".1f"),
            dead(result),
            str(result.d_sae),
            *_scores(result.fvu, result.mse, result.cosine),
            str(result.dense),
        ]
        for result in results
    ]
    note = f"Held-out rows only; a latent is dead if it fires on none of the {window(results)}."
    lines = [tables.table(head, rows), "", note, *_left_out(results)]
    if any(result.sites for result in results):
        lines.append(
            "What is written to several sites counts as one vector: FVU is Σ errors / Σ variations."
        )
    for more in _in_detail(results):
        lines += ["", more]
    return "\n".join(lines)


def _in_detail(results: Sequence[Evaluation]) -> Iterator[str]:
    """A table of the sites and one of the prefixes, for each dictionary that has several."""
    for result in results:
        if result.sites:
            head = [f"site of {result.name}", "FVU", "explained", "MSE", "cosine", "norm ratio"]
            yield tables.table(
                head,
                [
                    [
                        hook_name,
                        *_scores(site.fvu, site.mse, site.cosine),
                        number(site.norm_ratio, ".4f"),
                    ]
                    for hook_name, site in result.sites.items()
                ],
            )
        if result.of_prefix:
            yield tables.table(
                [f"prefix of {result.name}", "L0", "FVU", "explained"],
                [
                    [f"{prefix.share:g}", number(prefix.l0, ".1f"), *_fvu(prefix.fvu)]
                    for prefix in result.of_prefix
                ],
            )


def _scores(fvu: float, mse: float, cosine: float) -> list[str]:
    return [*_fvu(fvu), number(mse, ".4g"), number(cosine, ".4f")]


def _fvu(fvu: float) -> list[str]:
    """It, and what it leaves explained."""
    return [number(fvu, ".4f"), number(1 - fvu, ".4f")]


def _left_out(results: Sequence[Evaluation]) -> list[str]:
    """How many rows were not measured, site by site where that differs."""
    counts = dict.fromkeys((sites_of(result), result.left_out) for result in results)
    if not any(count for _, count in counts):
        return []
    if len({count for _, count in counts}) == 1:
        [(_, count), *_] = counts
        return [f"{count:,} rows of special tokens or of too large a norm are left out."]
    by_site = ", ".join(f"{count:,} of {sites}" for sites, count in counts)
    return [f"Rows of special tokens or of too large a norm are left out: {by_site}."]


def sites_of(result: Evaluation) -> str:
    """What a dictionary reads, and an arrow to what it writes if that is something else."""
    both = filter(None, (result.hook_name, result.hook_name_out))
    return " → ".join(briefly(names.split(",")) for names in both)


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none; large ones in three digits."""
    large = value is not None and abs(value) >= 10_000
    return tables.number(value, ".3g" if large else form)


def dead(result: Evaluation) -> str:
    """Its dead latents, and their share."""
    return f"{result.dead} ({result.dead_share:.1%})"


def window(results: Sequence[Evaluation]) -> str:
    """The number of tokens in which a latent must fire to count as alive."""
    return " or ".join(f"{rows:,}" for rows in sorted({r.rows for r in results})) + " tokens"
