"""What a codec costs, in words, tables and pictures.

    python pipelines/codec_page.py

writes docs/codecs.md and its pictures of docs/codec_values.json and docs/codecs.json, together.
"""

import json
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import numpy as np
from codec_study import SEEDS
from codec_values import EXTREMES
from results import Row, start, table, write_together

from rkstore.cli.options import Command
from rkstore.evaluation.report.figures import COLOURS, logarithmic, png

# The page as it is written; what is in braces comes of the measurements.
TEMPLATE = Path(__file__).with_suffix(".md")

# Those of models that are not quite the published ones say so beside every figure.
NAMES = {"demo": "demo", "smollm2": "SmolLM2 Q4", "gemma3": "Gemma Q4"}
DEQUANTISED = {"smollm2": "SmolLM2-135M-Instruct", "gemma3": "Gemma 3 270M"}
KINDS = ("residual", "mlp.hook_post")

# Codecs whose error is the same share of the variance in every dimension.
EVEN = ("int8", "int6", "int4")

LARGEST_FVU = 1.4e-4

# What a step of 0.04 standard deviations makes, if values lie anywhere in a step.
EVEN_ERROR = 0.04**2 / 12


@dataclass(frozen=True)
class Goal:
    """What int8 was made to reach at the sites of a kind."""

    models: str
    kind: str
    bits: float

    def sites(self, values: Sequence[Row]) -> list[Row]:
        wanted = {"all": NAMES, "demo": ["demo"], "others": [n for n in NAMES if n != "demo"]}
        return [
            row
            for row in values
            if row["codec"] == "int8"
            and row["model"] in wanted[self.models]
            and kind(row) == self.kind
        ]

    def missed(self, row: Row) -> bool:
        return bool(row["bits"] > self.bits or row["fvu"] > LARGEST_FVU)


GOALS = (
    Goal("others", "residual", 7.0),
    Goal("others", "mlp.hook_post", 6.7),
    Goal("demo", "residual", 7.0),
    Goal("demo", "mlp.hook_post", 5.6),
)


def kind(row: Row) -> str:
    """Of which kind a site is."""
    return "residual" if "resid" in row["site"] else "mlp.hook_post"


def page(values: Row, study: Row) -> str:
    """docs/codecs.md."""
    rows = values["values"]
    epochs = study["steps"] * study["batch_size"] / (0.9 * study["tokens"])
    probed = sorted({f"`{row['site']}`" for row in study["probes"]}, key=_natural)
    text = TEMPLATE.read_text("utf-8").format(
        **{name: f"{study[name]:,}" for name in ("d_sae", "k", "steps", "batch_size", "seeds")},
        summary=_summary(rows, study),
        models=_listed(
            [f"the {NAMES[name]} model" if name == "demo" else name for name in _full(values)]
        ),
        dequantised=_dequantised(values),
        left_out=_left_out(values) + _left_out(study, "dictionaries"),
        given=" ".join(
            f"--model {name}" + ("" if name == "demo" else "=DIR") for name in values["models"]
        ),
        extremes=_extremes(rows),
        tokens=f"{values['tokens']:,}",
        context=values["context"],
        below=_below(rows),
        values=_values_table(rows),
        goals=_goals_table(rows),
        misses=_misses(rows, values["tokens"]),
        epochs=f"{epochs:.1f}",
        study_tokens=f"{study['tokens']:,}",
        pairs=study["seeds"] * (study["seeds"] - 1) // 2,
        dictionaries=_dictionaries_table(study),
        verdict=_verdict(study),
        probed=_listed(probed),
        probes=_probes_table(study),
    )
    return "\n\n".join(_filled(block) for block in text.split("\n\n"))


def _filled(block: str) -> str:
    """A paragraph in lines of a hundred characters; anything else as it is."""
    if block.startswith(("#", "|", "!", "- ", " ")):
        return block
    end = "\n" if block.endswith("\n") else ""
    return textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False) + end


def _present(document: Row) -> list[str]:
    return [name for name, found in document["models"].items() if "left_out" not in found]


def _full(document: Row) -> list[str]:
    return [DEQUANTISED.get(name, name) for name in _present(document)]


def _dequantised(document: Row) -> str:
    names = [DEQUANTISED[name] for name in _present(document) if name in DEQUANTISED]
    if not names:
        return ""
    return (
        f"The weights of {_listed(names)} are dequantised Q4: 4-bit weights, as they are packed "
        "for small machines, multiplied out again. They are real language models, but not the "
        "published ones to the last digit; hence Q4 in their names below. Activations are float32."
    )


def _left_out(document: Row, what: str = "values") -> str:
    reasons = [
        f" {NAMES.get(name, name)} is left out of the {what}: {found['left_out']}."
        for name, found in document["models"].items()
        if "left_out" in found
    ]
    return "".join(reasons)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _natural(text: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in text.split(".")]


def _worst(rows: Iterable[Row], key: str) -> float | None:
    return max((row[key] for row in rows if row.get(key) is not None), default=None)


def _held(rows: Sequence[Row], key: str) -> list[float]:
    """The numbers of the sites that a codec can hold."""
    return [row[key] for row in rows if row.get(key) is not None]


# --- values


def _values_table(rows: Sequence[Row]) -> str:
    lines = []
    for model, of_model in _by(rows, lambda row: row["model"]):
        for which in KINDS:
            sites = [row for row in of_model if kind(row) == which]
            for codec, found in _by(sites, lambda row: row["codec"]):
                lines.append([NAMES.get(model, model), which, codec, *_cells(codec, found)])
    return table(HEAD, lines)


HEAD = ("model", "sites", "codec", "bits/value", "bound", "FVU", "worst FVU", "massive rows")


def _cells(codec: str, found: Sequence[Row]) -> list[str]:
    refused = sum("refused" in row for row in found)
    bits, fvu = _held(found, "bits"), _held(found, "fvu")
    if not bits:
        return ["cannot hold them", "-", "-", "-", "-"]
    massive = _worst(found, "massive_error")
    return [
        f"{np.mean(bits):.2f} ({min(bits):.2f}-{max(bits):.2f})"
        + (f", {refused} of {len(found)} not held" if refused else ""),
        f"{np.mean(_held(found, 'least_bits')):.2f}" if codec in EVEN else "-",
        f"{np.mean(fvu):.1e}",
        f"{max(fvu):.1e}",
        "-" if massive is None else f"{massive:.1e}",
    ]


def _by(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Groups in the order in which they are first met."""
    order = {name: i for i, name in enumerate(dict.fromkeys(map(key, rows)))}
    together = sorted(rows, key=lambda row: order[key(row)])
    return [(name, list(found)) for name, found in groupby(together, key)]


def _below(rows: Sequence[Row]) -> str:
    """How often a store takes less than the bound, which knows of no row that comes again."""
    even = [row for row in rows if row["codec"] in EVEN]
    below = [row for row in even if row["bits"] < row["least_bits"]]
    if not below:
        return ""
    codecs = _listed(sorted({row["codec"] for row in below}))
    sites = _listed([f"{NAMES[row['model']]} `{row['site']}`" for row in below])
    return (
        f" Zstandard does find rows that come again, as those of one token in a first block: "
        f"{codecs} takes fewer bits than the bound at {sites}."
    )


def _goals_table(rows: Sequence[Row]) -> str:
    lines = []
    for goal in GOALS:
        if sites := goal.sites(rows):
            held = sum(not goal.missed(row) for row in sites)
            who = "demo" if goal.models == "demo" else "SmolLM2 Q4, Gemma Q4"
            asked = f"FVU ≤ {LARGEST_FVU:.1e} at ≤ {goal.bits} bits"
            lines.append([f"{who}, {goal.kind}", asked, f"{held} of {len(sites)} sites"])
    massive = [row for row in rows if row["codec"] == "int8" and row["massive"]]
    kept = sum(not _massive_missed(row, rows) for row in massive)
    lines.append(["massive rows", "as float16 or better", f"{kept} of {len(massive)} sites"])
    return table(("sites", "goal", "reached"), lines)


def _massive_missed(row: Row, rows: Sequence[Row]) -> bool:
    """Whether massive rows are worse than in float16, or than nothing where it cannot hold them."""
    [half] = [
        other
        for other in rows
        if (other["model"], other["site"], other["codec"]) == (row["model"], row["site"], "float16")
    ]
    return bool(row["massive_error"] > 1.01 * (half.get("massive_error") or FLOAT16_ERROR))


# What rounding to float16's 11 digits does to a value at the worst, squared.
FLOAT16_ERROR = 2.0**-22


def _misses(rows: Sequence[Row], tokens: int) -> str:
    told = [
        f"- {NAMES[row['model']]} `{row['site']}`: {row['bits']:.2f} bits, FVU {row['fvu']:.2e}. "
        + _cause(row, goal, tokens)
        for goal in GOALS
        for row in goal.sites(rows)
        if goal.missed(row)
    ]
    told += [
        f"- {NAMES[row['model']]} `{row['site']}`: error of massive rows "
        f"{row['massive_error']:.1e}. {row['massive']} rows have ten times the median norm, but "
        f"{row['whole']} lie at ten times the usual distance from the mean."
        for row in rows
        if row["codec"] == "int8" and row["massive"] and _massive_missed(row, rows)
    ]
    return "\n".join(["Sites that miss a goal:", "", *told]) if told else "Every site reaches them."


def _cause(row: Row, goal: Goal, tokens: int) -> str:
    if row["fvu"] > LARGEST_FVU:
        return (
            "The spread of its first 1,024 rows, which set the step, is larger than that of all "
            f"by {np.sqrt(row['fvu'] / EVEN_ERROR) - 1:.0%}."
        )
    if row["whole"] and _codes(row) <= goal.bits:
        return (
            f"{row['whole']} of {tokens:,} rows are massive, and kept as float16: what is kept "
            f"apart takes {row['bits_apart']:.2f} bits a value, and all else {_codes(row):.2f}."
        )
    least = f"{row['least_bits']:.2f}"
    if row["least_bits"] > goal.bits:
        return f"The bound itself is {least}."
    return f"The bound is {least}; {row['bits_apart']:.2f} are of what is kept apart."


def _codes(row: Row) -> float:
    """Bits a value that the codes themselves take."""
    return float(row["bits"] - row["bits_apart"])


def _extremes(rows: Sequence[Row]) -> str:
    """What was lost of the ordinary rows of the language models, site by site."""
    found = [
        row["fvu"]
        for row in rows
        if row["codec"] == EXTREMES and row["model"] != "demo" and kind(row) == "residual"
    ]
    if not found:
        return ""
    return (
        f"Of {len(found)} residual sites of the two language models, {sum(f > 0.1 for f in found)} "
        f"lost more than 10 % of the variance of their ordinary rows, "
        f"{sum(f > 0.01 for f in found)} more than 1 %."
    )


# --- dictionaries


def _sites(study: Row) -> list[tuple[str, list[Row], list[Row]]]:
    """Each site's label, its dictionaries and its pairs."""

    def own(key: str, at: tuple[str, str]) -> list[Row]:
        return [row for row in study[key] if (row["model"], row["site"]) == at]

    places = dict.fromkeys((row["model"], row["site"]) for row in study["dictionaries"])
    return [
        (
            f"{NAMES.get(at[0], at[0])} {at[1].removeprefix('blocks.')}",
            own("dictionaries", at),
            own("pairs", at),
        )
        for at in places
    ]


def by_codec(dictionaries: Sequence[Row], codec: str) -> float:
    """How much the FVU of a dictionary changes with the codec alone, as a share of it."""
    fvu = {row["codec"]: row["fvu"] for row in dictionaries if row["seed"] == 0}
    return float(fvu[codec] / fvu["float32"] - 1)


def by_seed(dictionaries: Sequence[Row]) -> list[float]:
    """How much it changes with the seed alone: all ordered pairs of seeds."""
    fvu = [row["fvu"] for row in dictionaries if row["codec"] == "float32"]
    return [
        float(other / one - 1) for i, one in enumerate(fvu) for j, other in enumerate(fvu) if i != j
    ]


@dataclass(frozen=True)
class Likeness:
    """How far the dictionaries of a codec, or of other seeds, are those from float32."""

    changes: list[float]
    """Of FVU as a share of it: one of a codec, all ordered pairs of seeds."""
    cosine: float
    """Of the latents of the same number; of other seeds, of those that are most alike."""
    correlation: float
    matched_cosine: float
    matched_correlation: float

    @property
    def change(self) -> float:
        """Mean size of the changes."""
        return float(np.mean(np.abs(self.changes)))


def likenesses(dictionaries: Sequence[Row], pairs: Sequence[Row]) -> dict[str, Likeness]:
    """Of one site: that of each codec it can be stored in, and that of other seeds."""
    found = {}
    for between, rows in _by(pairs, lambda row: row["between"]):
        seeds = between == SEEDS
        changes = by_seed(dictionaries) if seeds else [by_codec(dictionaries, between)]
        keys = ("cosine", "correlation", "matched_cosine", "matched_correlation")
        numbers = {key: float(np.mean([row[key] for row in rows])) for key in keys}
        if seeds:
            numbers |= {key: numbers[f"matched_{key}"] for key in keys[:2]}
        found[between] = Likeness(changes, **numbers)
    return found


def _dictionaries_table(study: Row) -> str:
    lines = []
    for label, dictionaries, pairs in _sites(study):
        first = [row for row in dictionaries if row["seed"] == 0]
        others = [row for row in dictionaries if row["seed"]]
        [base] = [row for row in first if row["codec"] == "float32"]
        lines.append([label, "float32", f"{base['fvu']:.4f}", "-", "-", str(base["dead"])])
        for between, like in likenesses(dictionaries, pairs).items():
            if between == SEEDS:
                cells = [
                    f"{like.change:.2%}, at most {max(map(abs, like.changes)):.2%}",
                    f"- ({like.matched_cosine:.4f})",
                    f"- ({like.matched_correlation:.4f})",
                    ", ".join(str(row["dead"]) for row in others),
                ]
            else:
                cells = [
                    f"{like.changes[0]:+.2%}",
                    f"{like.cosine:.4f} ({like.matched_cosine:.4f})",
                    f"{like.correlation:.4f} ({like.matched_correlation:.4f})",
                    *(str(row["dead"]) for row in first if row["codec"] == between),
                ]
            lines.append(["", between, *cells])
    return table(("site", "trained from", "FVU", "cosine", "correlation", "dead"), lines)


def _everywhere(study: Row, between: str) -> list[Likeness]:
    """Of every site that a codec can hold."""
    found = [likenesses(made, pairs) for _, made, pairs in _sites(study)]
    return [of_site[between] for of_site in found if between in of_site]


def _change(study: Row, between: str) -> float:
    """Mean size of the change of FVU, over the sites."""
    return float(np.mean([like.change for like in _everywhere(study, between)]))


def _correlation(study: Row, between: str) -> float:
    return float(np.mean([like.correlation for like in _everywhere(study, between)]))


def _verdict(study: Row) -> str:
    lines = []
    for between in [*study["codecs"], SEEDS]:
        if found := _everywhere(study, between):
            cosine = np.mean([like.cosine for like in found])
            numbers = [f"{cosine:.4f}", f"{_correlation(study, between):.4f}"]
            lines.append([between, str(len(found)), f"{_change(study, between):.2%}", *numbers])
    head = ("mean over the sites", "sites", "size of the change of FVU", "cosine", "correlation")
    refused = [
        f"{NAMES.get(row['model'], row['model'])} has no {row['codec']}: {row['refused']}."
        for row in study["refused"]
    ]
    return "\n\n".join([table(head, lines), *refused])


def _summary(rows: Sequence[Row], study: Row) -> str:
    kept = [row for row in rows if row["codec"] == "int8"]
    bits = _listed(
        [
            f"{np.mean(_held(found, 'bits')):.1f} on {NAMES.get(model, model)}"
            for model, found in _by(kept, lambda row: row["model"])
        ]
    )
    return (
        f"In short: int8, the default, takes so many bits a value on average: {bits}. Of the "
        f"variance of ordinary rows it loses {max(_held(kept, 'fvu')):.1e} at the worst of "
        f"{len(kept)} sites. A dictionary trained from it has an FVU that differs by "
        f"{_change(study, 'int8'):.2%} from that of one trained from float32, where another seed "
        f"makes {_change(study, SEEDS):.2%}; its latents have a correlation of "
        f"{_correlation(study, 'int8'):.2f} with those from float32, those from bfloat16 of "
        f"{_correlation(study, 'bfloat16'):.2f}, and those of another seed of "
        f"{_correlation(study, SEEDS):.2f}."
    )


# --- probes


def _probes_table(study: Row) -> str:
    lines = []
    for codec, found in _by(study["probes"], lambda row: row["codec"]):
        overlap, cosine = ([row[key] for row in found] for key in ("overlap", "cosine"))
        least = min(row["least_cosine"] for row in found)
        lines.append([codec, f"{np.mean(overlap):.1%}", f"{np.mean(cosine):.6f}", f"{least:.4f}"])
    return table(("codec", "top subsets kept", "mean cosine of directions", "least"), lines)


# --- pictures


def values_figure(values: Row) -> Any:
    """Error of ordinary rows against bits, a dot for each site, a panel for each model."""
    from matplotlib.figure import Figure

    models = _by(values["values"], lambda row: row["model"])
    drawn = Figure(figsize=(4 * len(models), 4), layout="constrained")
    axes: Any = drawn.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (model, rows) in zip(axes, models, strict=True):
        for i, (codec, found) in enumerate(_by(rows, lambda row: row["codec"])):
            mark = {"marker": "ox"[i // len(COLOURS)], "color": COLOURS[i % len(COLOURS)]}
            places = _held(found, "bits"), _held(found, "fvu")
            axis.plot(*places, ls="", ms=3, alpha=0.6, label=codec, **mark)
        axis.set(title=NAMES.get(model, model), xlabel="bits a value")
        logarithmic(axis)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("FVU of ordinary rows")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=1 + len(models), frameon=False)
    return drawn


def figure(study: Row) -> Any:
    """What a codec changes of a dictionary, and what a seed does: FVU, and how alike latents are.

    A group for each codec, in it a dot for each site. Latents are those of the same number, of
    another seed those that are most alike.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12, 4), layout="constrained")
    axes: Any = drawn.subplots(1, 3)
    groups = [*study["codecs"], SEEDS]
    titles = ("change of FVU, %", "cosine of decoder rows", "correlation of activations")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title)
        axis.set_xticks(range(len(groups)), [group.replace(" ", "\n") for group in groups])
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axhline(0, color="grey", linewidth=0.8)
    sites = _sites(study)
    for i, (label, made, pairs) in enumerate(sites):
        aside = 0.6 * ((i + 0.5) / len(sites) - 0.5)
        found = likenesses(made, pairs)
        for place, between in enumerate(groups):
            if between not in found:
                continue
            like = found[between]
            percent = [100 * change for change in like.changes]
            drawings = (percent, [like.cosine], [like.correlation])
            for axis, heights in zip(axes, drawings, strict=True):
                places = [place + aside] * len(heights)
                told = label if between == SEEDS else None
                axis.plot(places, heights, "o", ms=4, color=COLOURS[i % len(COLOURS)], label=told)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return drawn


def documents(values: Row, study: Row, out: Path) -> dict[Path, bytes]:
    """What is written, by path: the page and its pictures."""
    return {
        out / "codecs.md": page(values, study).encode(),
        out / "images" / "codecs_values.png": png(values_figure(values)),
        out / "images" / "codecs.png": png(figure(study)),
    }


@click.command("codec_page", cls=Command)
@click.option("--out", default="docs", show_default=True, help="Directory of all files.")
def main(out: str) -> None:
    """Write codecs.md and its pictures, from codec_values.json and codecs.json beside it."""
    where = Path(out).expanduser()
    values, study = (
        json.loads((where / name).read_text("utf-8"))
        for name in ("codec_values.json", "codecs.json")
    )
    write_together(documents(values, study, where))
    click.echo(where / "codecs.md")


if __name__ == "__main__":
    start(main)
