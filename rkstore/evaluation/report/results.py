"""Evaluated dictionaries as Markdown tables."""

from collections.abc import Sequence

from rkstore.evaluation.chance import NAME
from rkstore.evaluation.measure import Evaluation
from rkstore.evaluation.metrics.documents import LEAST_DOCUMENTS, IntervalNumbers
from rkstore.evaluation.report import tables
from rkstore.evaluation.report.details import details
from rkstore.evaluation.report.tables import number_or_large as number
from rkstore.store.sites import briefly


def table(results: Sequence[Evaluation]) -> str:
    """The metrics side by side, those of random dictionaries, and below what only some have."""
    head = ["dictionary", "L0", "dead", "of latents", "FVU", "floor", "explained", "MSE", "cosine"]
    named = with_chance(results)
    rows = [
        [
            name,
            number(result.l0, ".1f"),
            dead(result),
            str(result.d_sae),
            _with_interval(result),
            number(result.codec_fvu, ".1e"),
            number(1 - result.fvu, ".4f"),
            number(result.mse, ".4g"),
            number(result.cosine, ".4f"),
            str(result.dense),
        ]
        for name, result in named
    ]
    note = f"Held-out rows only; a latent is dead if it fires on none of the {window(results)}."
    lines = [tables.table([*head, "dense"], rows), "", note, *_left_out(results)]
    lines += _about_intervals(results)
    if any(result.sites for result in results):
        lines.append(
            "What is written to several sites counts as one vector: FVU is Σ errors / Σ variations."
        )
    for more in details(named):
        lines += ["", more]
    return "\n".join(lines)


def with_chance(results: Sequence[Evaluation]) -> list[tuple[str, Evaluation]]:
    """The results by name, and after them each random dictionary once."""
    likes: list[tuple[Evaluation, list[str]]] = []
    for result in results:
        if result.chance is None:
            continue
        same = [names for chance, names in likes if chance == result.chance]
        if same:
            same[0].append(result.name)
        else:
            likes.append((result.chance, [result.name]))
    named = [(result.name, result) for result in results]
    if len(likes) == 1:
        return [*named, (NAME, likes[0][0])]
    for chance, names in likes:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        named.append((f"{NAME}, like {names[0]}{more}", chance))
    return named


def _with_interval(result: Evaluation) -> str:
    """Its FVU, and half of the interval."""
    intervals = result.metrics.get("intervals")
    ends = intervals.fvu if isinstance(intervals, IntervalNumbers) else None
    return tables.with_sd(result.fvu, ends and (ends[1] - ends[0]) / 2, ".4f")


def _about_intervals(results: Sequence[Evaluation]) -> list[str]:
    """What stands behind ±, or why there is none."""
    found = {
        intervals.documents: intervals.fvu
        for result in results
        if isinstance(intervals := result.metrics.get("intervals"), IntervalNumbers)
    }
    if not found:
        return []
    clusters = " or ".join(f"{count:,}" for count in sorted(found))
    if None not in found.values():
        return [f"± is half of a 95 % interval, with {clusters} documents as clusters."]
    several = "document" if clusters == "1" else "documents"
    return [f"No intervals: the rows are of {clusters} {several}, {LEAST_DOCUMENTS} are needed."]


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


def dead(result: Evaluation) -> str:
    """Its dead latents, and their share."""
    return f"{result.dead} ({result.dead_share:.1%})"


def window(results: Sequence[Evaluation]) -> str:
    """The number of tokens in which a latent must fire to count as alive."""
    return " or ".join(f"{rows:,}" for rows in sorted({r.rows for r in results})) + " tokens"
