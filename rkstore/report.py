"""Results → tables and pictures."""

import json
from pathlib import Path
from typing import Any

from rkstore.evaluate import DENSITY_EDGES, Evaluation
from rkstore.train import TRAINING

# Okabe & Ito's colours, told apart by colour-blind readers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def table(results: list[Evaluation]) -> str:
    """The numbers side by side, as a Markdown table."""
    head = ["dictionary", "L0", "dead", "of latents", "FVU", "explained", "MSE", "cosine", "dense"]
    rows = [
        [
            result.name,
            f"{result.l0:.1f}",
            f"{result.dead} ({result.dead_share:.1%})",
            str(result.d_sae),
            f"{result.fvu:.4f}",
            f"{result.explained_variance:.4f}",
            f"{result.mse:.4g}",
            f"{result.cosine:.4f}",
            str(result.dense),
        ]
        for result in results
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
        return "| " + " | ".join([first, *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    window = ", ".join(f"{rows:,}" for rows in sorted({result.rows for result in results}))
    note = f"Held-out rows only; a latent is dead if it fires on none of the {window} tokens."
    return "\n".join([line(head), rule + "|", *map(line, rows), "", note])


def comparison(results: list[Evaluation], checkpoints: list[Path], path: Path) -> None:
    """One picture: how the dictionaries trained, what they score, how often latents fire."""
    from matplotlib.figure import Figure

    labels = _labels(results, checkpoints)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes: Any = figure.subplots(2, 2)
    for i, (result, label, checkpoint) in enumerate(zip(results, labels, checkpoints, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        _curves(axes[0, 0], checkpoint, label, colour)
        _density(axes[0, 1], result, label, colour)
    _bars(axes[1, 0], [r.explained_variance for r in results], labels, "{:.3f}")
    _bars(axes[1, 1], [100 * r.dead_share for r in results], labels, "{:.1f} %")
    axes[0, 0].set(title="Training", xlabel="step", ylabel="FVU of the batch", yscale="log")
    axes[0, 1].set(
        title="How often latents fire",
        xlabel="log₁₀ of the share of tokens (†: never)",
        ylabel="latents",
    )
    axes[1, 0].set(title="Explained variance, held out (higher is better)", xlim=(0, 1.15))
    window = max(result.rows for result in results)
    axes[1, 1].set(title=f"Dead latents on {window:,} held-out tokens (lower is better)")
    axes[1, 1].margins(x=0.15)
    for axis in axes[0]:
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(", ".join(sorted({result.hook_name for result in results})))
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date inside: the same results give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _curves(axis: Any, checkpoint: Path, label: str, colour: str) -> None:
    file = checkpoint / TRAINING
    if not file.is_file():
        return
    history = json.loads(file.read_text("utf-8"))["history"]
    axis.plot([h["step"] for h in history], [h["fvu"] for h in history], label=label, color=colour)


def _density(axis: Any, result: Evaluation, label: str, colour: str) -> None:
    edges = [DENSITY_EDGES[0] - 0.75, DENSITY_EDGES[0] - 0.5]
    axis.stairs(result.density[1:], DENSITY_EDGES, label=label, color=colour, linewidth=1.5)
    axis.stairs(result.density[:1], edges, color=colour, linewidth=1.5)
    ticks = list(range(int(DENSITY_EDGES[0]), 1))
    axis.set_xticks([edges[0] + 0.125, *ticks], ["†", *map(str, ticks)])


def _bars(axis: Any, values: list[float], labels: list[str], form: str) -> None:
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(values))]
    bars = axis.barh(labels, values, color=colours, height=0.6)
    axis.bar_label(bars, [form.format(value) for value in values], padding=4)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)


def _labels(results: list[Evaluation], checkpoints: list[Path]) -> list[str]:
    """What tells the dictionaries apart: the settings they differ in, or else their names."""
    names = [result.name for result in results]
    files = [checkpoint / TRAINING for checkpoint in checkpoints]
    if len(names) < 2 or not all(file.is_file() for file in files):
        return names
    identities = [json.loads(file.read_text("utf-8"))["identity"] for file in files]
    differing = [key for key in identities[0] if len({str(i.get(key)) for i in identities}) > 1]

    def told(key: str, value: Any) -> str:
        return str(value) if isinstance(value, str) else f"{key} {value}"

    labels = [", ".join(told(key, i.get(key)) for key in differing) for i in identities]
    return labels if len(set(labels)) == len(labels) else names
