"""What a codec costs, in words, tables and pictures.

    python pipelines/codec_page.py

writes docs/codecs.md and its pictures, together, from docs/codec_values.json and docs/codecs.json.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from codec_likeness import NAMES, Study, figure, probes_table
from codec_study import SEEDS
from codec_values import EXTREMES
from results import start

from rkstore.cli.options import Command
from rkstore.evaluation.record import Row, grouped
from rkstore.evaluation.report import pages
from rkstore.evaluation.report.figures import COLOURS, legend_below, logarithmic, panels, png
from rkstore.evaluation.report.tables import listed, table
from rkstore.store.files import write_together

# The text of the page; the measurements fill its braces.
TEMPLATE = Path(__file__).with_suffix(".md")

DEQUANTISED = {"smollm2": "SmolLM2-135M-Instruct", "gemma3": "Gemma 3 270M"}
KINDS = ("residual", "mlp.hook_post")

# Codecs whose error is the same share of the variance in every dimension.
EVEN = ("int8", "int6", "int4")

LARGEST_FVU = 1.4e-4

# The FVU of a step of 0.04 standard deviations, if values are anywhere in a step.
EVEN_ERROR = 0.04**2 / 12

# Rounding to float16's 11 digits, squared, at worst.
FLOAT16_ERROR = 2.0**-22


@dataclass(frozen=True)
class Goal:
    """What int8 should reach at the sites of one kind."""

    demo: bool
    """Of the demo model, or of the others."""
    kind: str
    bits: float

    def sites(self, values: Sequence[Row]) -> list[Row]:
        return [
            row
            for row in values
            if row["codec"] == "int8"
            and (row["model"] == "demo") == self.demo
            and kind(row) == self.kind
        ]

    def missed(self, row: Row) -> bool:
        return bool(row["bits"] > self.bits or row["fvu"] > LARGEST_FVU)


GOALS = (
    Goal(False, "residual", 7.0),
    Goal(False, "mlp.hook_post", 6.7),
    Goal(True, "residual", 7.0),
    Goal(True, "mlp.hook_post", 5.6),
)


def kind(row: Row) -> str:
    """The kind of a site."""
    return "residual" if "resid" in row["site"] else "mlp.hook_post"


def label(row: Row) -> str:
    """A site with its model."""
    return f"{NAMES.get(row['model'], row['model'])} `{row['site']}`"


def page(values: Row, document: Row) -> str:
    """docs/codecs.md."""
    rows, study = values["values"], Study(document)
    epochs = document["steps"] * document["batch_size"] / (0.9 * document["tokens"])
    present = [name for name, found in values["models"].items() if "left_out" not in found]
    models = [
        "the demo model" if name == "demo" else DEQUANTISED.get(name, name) for name in present
    ]
    probed = sorted({f"`{row['site']}`" for row in document["probes"]}, key=_natural)
    return pages.page(
        TEMPLATE,
        **{name: f"{document[name]:,}" for name in ("d_sae", "k", "steps", "batch_size", "seeds")},
        summary=_summary(rows, study),
        models=listed(models),
        dequantised=_dequantised([DEQUANTISED[name] for name in present if name in DEQUANTISED]),
        left_out=_left_out(values) + _left_out(document, "dictionaries"),
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
        study_tokens=f"{document['tokens']:,}",
        pairs=document["seeds"] * (document["seeds"] - 1) // 2,
        dictionaries=study.table(),
        verdict=study.verdict(),
        probed=listed(probed),
        probes=probes_table(document["probes"]),
    )


def _dequantised(names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f"The weights of {listed(names)} are dequantised Q4: 4-bit weights, as they are packed "
        "for small machines, multiplied out. They are real language models, but not the "
        "published ones to the last digit; hence Q4 in their names below. Activations are float32."
    )


def _left_out(document: Row, what: str = "values") -> str:
    reasons = [
        f" {NAMES.get(name, name)} is left out of the {what}: {found['left_out']}."
        for name, found in document["models"].items()
        if "left_out" in found
    ]
    return "".join(reasons)


def _natural(text: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in text.split(".")]


def _held(rows: Iterable[Row], key: str) -> list[float]:
    """The numbers of the sites that a codec can hold."""
    return [row[key] for row in rows if row.get(key) is not None]


def _summary(rows: Sequence[Row], study: Study) -> str:
    kept = [row for row in rows if row["codec"] == "int8"]
    bits = listed(
        [
            f"{np.mean(_held(found, 'bits')):.1f} on {NAMES.get(model, model)}"
            for model, found in grouped(kept, "model").items()
        ]
    )
    return (
        f"In short: int8, the default, takes on average these bits a value: {bits}. It loses "
        f"{max(_held(kept, 'fvu')):.1e} of the variance of ordinary rows at the worst of "
        f"{len(kept)} sites. A dictionary trained from it has an FVU that differs by "
        f"{study.mean('int8', 'change'):.2%} from that of one trained from float32, where another "
        f"seed makes {study.mean(SEEDS, 'change'):.2%}; its latents have a correlation of "
        f"{study.mean('int8', 'correlation'):.2f} with those from float32, those from bfloat16 of "
        f"{study.mean('bfloat16', 'correlation'):.2f}, and those of another seed of "
        f"{study.mean(SEEDS, 'correlation'):.2f}."
    )


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


def _values_table(rows: Sequence[Row]) -> str:
    lines = []
    for model, of_model in grouped(rows, "model").items():
        by_kind = grouped(of_model, kind)
        for which in (which for which in KINDS if which in by_kind):
            for codec, found in grouped(by_kind[which], "codec").items():
                lines.append([NAMES.get(model, model), which, codec, *_cells(codec, found)])
    return table(HEAD, lines)


HEAD = ("model", "sites", "codec", "bits/value", "bound", "FVU", "worst FVU", "massive rows")


def _cells(codec: str, found: Sequence[Row]) -> list[str]:
    refused = sum("refused" in row for row in found)
    bits, fvu, massive = (_held(found, key) for key in ("bits", "fvu", "massive_error"))
    if not bits:
        return ["cannot hold them", "-", "-", "-", "-"]
    return [
        f"{np.mean(bits):.2f} ({min(bits):.2f}-{max(bits):.2f})"
        + (f", {refused} of {len(found)} not held" if refused else ""),
        f"{np.mean(_held(found, 'least_bits')):.2f}" if codec in EVEN else "-",
        f"{np.mean(fvu):.1e}",
        f"{max(fvu):.1e}",
        f"{max(massive):.1e}" if massive else "-",
    ]


def _below(rows: Sequence[Row]) -> str:
    """Where a store takes less than the bound, which does not know of rows that are repeated."""
    below = [row for row in rows if row["codec"] in EVEN and row["bits"] < row["least_bits"]]
    if not below:
        return ""
    codecs = listed(sorted({row["codec"] for row in below}))
    return (
        f" Zstandard does find repeated rows, such as those of one token in a first block: "
        f"{codecs} takes fewer bits than the bound at {listed(list(map(label, below)))}."
    )


def _goals_table(rows: Sequence[Row]) -> str:
    lines = []
    for goal in GOALS:
        if sites := goal.sites(rows):
            held = sum(not goal.missed(row) for row in sites)
            who = "demo" if goal.demo else "SmolLM2 Q4, Gemma Q4"
            asked = f"FVU ≤ {LARGEST_FVU:.1e} at ≤ {goal.bits} bits"
            lines.append([f"{who}, {goal.kind}", asked, f"{held} of {len(sites)} sites"])
    massive = [row for row in rows if row["codec"] == "int8" and row["massive"]]
    kept = sum(not _massive_missed(row, rows) for row in massive)
    lines.append(["massive rows", "as float16 or better", f"{kept} of {len(massive)} sites"])
    return table(("sites", "goal", "reached"), lines)


def _massive_missed(row: Row, rows: Sequence[Row]) -> bool:
    """Whether massive rows have a larger error than in float16, or than float16 would give them."""
    place = (row["model"], row["site"], "float16")
    [half] = [one for one in rows if (one["model"], one["site"], one["codec"]) == place]
    return bool(row["massive_error"] > 1.01 * (half.get("massive_error") or FLOAT16_ERROR))


def _misses(rows: Sequence[Row], tokens: int) -> str:
    lines = [
        f"- {label(row)}: {row['bits']:.2f} bits, FVU {row['fvu']:.2e}. {_cause(row, goal, tokens)}"
        for goal in GOALS
        for row in goal.sites(rows)
        if goal.missed(row)
    ]
    lines += [
        f"- {label(row)}: error of massive rows {row['massive_error']:.1e}. {row['massive']} rows "
        f"have ten times the median norm, but {row['whole']} are at ten times the usual distance "
        "from the mean."
        for row in rows
        if row["codec"] == "int8" and row["massive"] and _massive_missed(row, rows)
    ]
    return (
        "\n".join(["Sites that miss a goal:", "", *lines]) if lines else "Every site reaches them."
    )


def _cause(row: Row, goal: Goal, tokens: int) -> str:
    codes = row["bits"] - row["bits_apart"]
    if row["fvu"] > LARGEST_FVU:
        return (
            "The spread of its first 1,024 rows, which set the step, is larger than that of all "
            f"by {np.sqrt(row['fvu'] / EVEN_ERROR) - 1:.0%}."
        )
    if row["whole"] and codes <= goal.bits:
        return (
            f"{row['whole']} of {tokens:,} rows are massive, and kept as float16: what is kept "
            f"apart takes {row['bits_apart']:.2f} bits a value, and everything else {codes:.2f}."
        )
    least = f"{row['least_bits']:.2f}"
    if row["least_bits"] > goal.bits:
        return f"The bound itself is {least}."
    return f"The bound is {least}; {row['bits_apart']:.2f} are of what is kept apart."


def values_figure(values: Row) -> Any:
    """Error of ordinary rows against bits: a dot for each site, a panel for each model."""
    models = grouped(values["values"], "model")
    drawn, axes = panels(4 * len(models), 4, len(models), sharex=True, sharey=True)
    for axis, (model, rows) in zip(axes, models.items(), strict=True):
        for i, (codec, found) in enumerate(grouped(rows, "codec").items()):
            mark = {"marker": "ox"[i // len(COLOURS)], "color": COLOURS[i % len(COLOURS)]}
            places = _held(found, "bits"), _held(found, "fvu")
            axis.plot(*places, ls="", ms=3, alpha=0.6, label=codec, **mark)
        axis.set(title=NAMES.get(model, model), xlabel="bits a value")
        logarithmic(axis)
    axes[0].set_ylabel("FVU of ordinary rows")
    legend_below(drawn, axes[0], 1 + len(models), frameon=False)
    return drawn


def documents(values: Row, study: Row, out: Path) -> dict[Path, bytes]:
    """What is written, by path: the page and its pictures."""
    return {
        out / "codecs.md": page(values, study).encode(),
        out / "images" / "codecs_values.png": png(values_figure(values)),
        out / "images" / "codecs.png": png(figure(Study(study))),
    }


@click.command("codec_page", cls=Command)
@click.option("--out", default="docs", show_default=True, help="Directory of all files.")
def main(out: str) -> None:
    """Write codecs.md and its pictures, from codec_values.json and codecs.json."""
    where = Path(out).expanduser()
    values, study = (
        json.loads((where / name).read_text("utf-8"))
        for name in ("codec_values.json", "codecs.json")
    )
    write_together(documents(values, study, where))
    click.echo(where / "codecs.md")


if __name__ == "__main__":
    start(main)
