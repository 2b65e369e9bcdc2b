"""Figures for papers: PNG, SVG and the numbers beside them, drawn of what the pages show."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rkstore.evaluation.report.figures import (
    draw_curve,
    legend_below,
    logarithmic,
    look,
    panels,
    png,
    whole,
)

Row = dict[str, Any]
Drawn = tuple[Any, list[Row]]
"""A Matplotlib figure, and what it shows, a row each."""

# Names in a row of the legend below a figure.
COLUMNS = 3


def figures(meta: Mapping[str, Any], probe: Mapping[str, Any] | None = None) -> dict[str, Drawn]:
    """The figures that can be drawn, by name.

    Args:
        meta: what the overview of a report says.
        probe: the scores of its probe.
    """
    runs = [run for run in meta["runs"] if not run["control"]]
    drawn: dict[str, Drawn] = {}
    if any(run["curve"] for run in runs):
        drawn["training"] = _training(runs)
    drawn["density"] = _density(runs, meta["edges"])
    if len({run["layer"] for run in runs} - {None}) > 1:
        drawn["layers"] = _layers(runs)
    if probe is not None:
        drawn["probe"] = _probe(probe)
    return drawn


def files(drawn: Mapping[str, Drawn]) -> Iterator[tuple[str, bytes]]:
    """The files of figures, by name: the same figures give the same bytes."""
    for name, (figure, rows) in drawn.items():
        yield f"{name}.png", png(figure)
        yield f"{name}.svg", svg(figure)
        yield f"{name}.csv", as_csv(rows)


def svg(figure: Any) -> bytes:
    """A figure as SVG, without a date inside, its text as text."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "rkstore", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def as_csv(rows: Sequence[Row]) -> bytes:
    """Rows of the same keys as a CSV file."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is put in quotes."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@" else value


def _training(runs: Sequence[Row]) -> Drawn:
    """FVU and dead latents by step."""
    figure, (fvu, dead) = panels(9, 3.6, columns=2)
    rows = []
    for i, run in enumerate(runs):
        if not run["curve"]:
            continue
        steps, values, counts = zip(*run["curve"], strict=True)
        shares = [count / run["d_sae"] for count in counts]
        draw_curve(fvu, steps, values, label=run["label"], **look(i))
        draw_curve(dead, steps, [100 * share for share in shares], **look(i))
        rows += [
            {"run": run["name"], "step": step, "fvu": value, "dead": count}
            for step, value, count in zip(steps, values, counts, strict=True)
        ]
    fvu.set(xlabel="step", ylabel="FVU of the batch")
    dead.set(xlabel="step", ylabel="dead latents, %")
    dead.set_ylim(bottom=0)
    if any(row["fvu"] for row in rows):
        logarithmic(fvu)
    for axis in (fvu, dead):
        axis.set_xlim(left=0)
        whole(axis)
    _named(figure, fvu)
    return figure, rows


def _density(runs: Sequence[Row], edges: Sequence[float]) -> Drawn:
    """How often latents fire."""
    figure, (axis,) = panels(5.5, 3.6)
    rows = []
    for i, run in enumerate(runs):
        shares = [100 * count / run["d_sae"] for count in run["density"]]
        axis.stairs(shares, edges, label=run["label"], **look(i))
        bins = zip(edges, edges[1:], run["density"], strict=False)
        rows += [
            {"run": run["name"], "log10_from": low, "log10_to": high, "latents": count}
            for low, high, count in bins
        ]
    axis.set(xlabel="log₁₀ of the fraction of tokens", ylabel="latents, %")
    axis.set_ylim(bottom=0)
    _named(figure, axis)
    return figure, rows


def _layers(runs: Sequence[Row]) -> Drawn:
    """FVU and dead latents of runs of several layers."""
    figure, (fvu, dead) = panels(9, 3.6, columns=2)
    rows = []
    for i, run in enumerate(runs):
        if run["layer"] is None:
            continue
        share = 100 * run["dead"] / run["d_sae"]
        style = {"color": look(i)["color"], "marker": "o", "linestyle": "none"}
        fvu.plot([run["layer"]], [run["fvu"]], label=run["label"], **style)
        dead.plot([run["layer"]], [share], **style)
        rows.append({key: run[key] for key in ("name", "layer", "fvu", "dead", "d_sae")})
    fvu.set(xlabel="layer", ylabel="FVU, held out")
    dead.set(xlabel="layer", ylabel="dead latents, %")
    for axis in (fvu, dead):
        axis.set_ylim(bottom=0)
        whole(axis)
    _named(figure, fvu)
    return figure, rows


def _probe(scores: Mapping[str, Any]) -> Drawn:
    """Scores of random subsets, and of chance, each by its own tallest bin."""
    figure, (axis,) = panels(5.5, 3.6)
    edges, kinds = scores["edges"], {"subsets": scores["drawn"], "chance": scores["chance"]}
    rows = []
    for i, (name, counts) in enumerate(kinds.items()):
        if counts is None:
            continue
        axis.stairs([100 * c / max(1, *counts) for c in counts], edges, label=name, **look(i))
        rows += [
            {"of": name, "from": low, "to": high, "subsets": count}
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]
    axis.axvline(scores["lowest_kept"], color="grey", linewidth=0.8, label="kept from here")
    axis.set(xlabel="score", ylabel="subsets, % of the tallest bin")
    _named(figure, axis)
    return figure, rows


def _named(figure: Any, axis: Any) -> None:
    """The legend below; a name is not a formula, whatever signs are in it."""
    handles, _ = axis.get_legend_handles_labels()
    for handle in handles:
        handle.set_label(str(handle.get_label()).replace("$", r"\$"))
    legend_below(figure, axis, COLUMNS, fontsize=8, frameon=False)
