"""Figures: common code, and the comparison of evaluated dictionaries."""

import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.evaluation.measure import DENSITY_EDGES, Evaluation
from rkstore.evaluation.report.results import dead, sites_of, window
from rkstore.evaluation.report.runs import Training, labels, training_of
from rkstore.evaluation.report.tables import number_or_large as number
from rkstore.store.files import write_together

# Okabe & Ito's colours, distinguishable for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")

# A step, and the FVU of its batch where that is defined.
Point = tuple[int, float | None]

# Characters in a line of a dictionary's name beside its bars.
NAME_WIDTH = 44
# With fewer latents, a bin of the density is a whole decade: quarters would be almost empty.
FEW_LATENTS = 256


def look(i: int) -> dict[str, Any]:
    """Colour and line style of the ``i``-th of several, for Matplotlib.

    28 of them differ, because 7 colours and 4 lines have no common factor. Neighbours differ in
    both, so that two curves that coincide are both visible.
    """
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}


def comparison(results: list[Evaluation], checkpoints: list[Path], path: Path) -> None:
    """Write :func:`comparison_figure` as a PNG file: the same results give the same bytes."""
    write_together({path: png(comparison_figure(results, checkpoints))})


def panels(
    width: float, height: float, columns: int = 1, rows: int = 1, **shared: bool
) -> tuple[Any, Any]:
    """An empty figure of that many inches, and its axes, ``(columns,)`` or ``(rows, columns)``.

    Args:
        shared: ``sharex`` and ``sharey``, as Matplotlib takes them.
    """
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.flat:
        bare(axis)
    return figure, axes if rows > 1 else axes[0]


def bare(axis: Any) -> None:
    """Remove the top and right spines."""
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Any, axis: Any, columns: int, **how: Any) -> None:
    """The legend of an axis, below all of the figure."""
    known = axis.get_legend_handles_labels()
    figure.legend(*known, loc="outside lower center", ncols=columns, **how)


def png(figure: Any) -> bytes:
    """A figure as the content of a file, without a date inside."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def comparison_figure(results: list[Evaluation], checkpoints: list[Path]) -> Any:
    """Training curves, metrics, firing frequencies, and FVU by site and by prefix.

    Each name appears once, beside its bars and a sample of its line; the figure grows with the
    number of dictionaries, and with their sites.

    Args:
        checkpoints: the checkpoint of each result. One without a record of its training, such as
            that of another program, has no curve.

    Returns:
        A Matplotlib figure.
    """
    from matplotlib.figure import Figure

    names = [textwrap.fill(label, NAME_WIDTH) for label in labels(results, checkpoints)]
    lines = max(1 + name.count("\n") for name in names)
    row = max(0.14 + 0.15 * lines, min(0.6, 2.4 / len(names)))
    curves = [_curve(training_of(path)) for path in checkpoints]
    heights = [3 if any(curve is not None for curve in curves) else 0.5, 0.9 + row * len(names)]
    details = _details(results)
    if details:
        heights.append(max(2.8, 0.9 + 0.22 * len(_written(results))))
    figure: Any = Figure(figsize=(11, sum(heights)), layout="constrained")
    figure.suptitle(_site(results), parse_math=False)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights)
    trained = parts[0].subplots()
    _draw_training(trained, curves)
    _draw_metrics(parts[1].subplots(1, 3, sharey=True), names, results)
    bare(trained)
    if details:
        axes = parts[2].subplots(1, len(details), squeeze=False)[0]
        for axis, draw in zip(axes, details, strict=True):
            draw(axis, results)
            bare(axis)
    return figure


def _draw_metrics(axes: Any, names: Sequence[str], results: Sequence[Evaluation]) -> None:
    """Explained variance, dead latents and firing frequencies, a line of each dictionary."""
    explained, unused, fired = axes
    values = [result.explained_variance for result in results]
    lowest = min([0.0, *filter(math.isfinite, values)])
    _draw_bars(explained, values, [number(value, ".3f") for value in values])
    explained.set_title("Explained variance, held out", fontsize=10)
    explained.set_xlim(1.05 * lowest, 1)
    _draw_names(explained, names)
    shares = [100 * result.dead_share for result in results]
    _draw_bars(unused, shares, [dead(result) for result in results])
    unused.set_title(f"Dead on {window(results)}, %", fontsize=10)
    unused.set_xlim(0, 1.05 * max(shares) or 1)
    _draw_density(fired, results)
    for axis in axes:
        bare(axis)


def _details(results: Sequence[Evaluation]) -> list[Callable[[Any, Sequence[Evaluation]], None]]:
    """How to draw what only some dictionaries have."""
    by_site = [_draw_sites] if _written(results) else []
    by_prefix = [_draw_prefixes] if any(result.of_prefix for result in results) else []
    return [*by_site, *by_prefix]


def _written(results: Sequence[Evaluation]) -> list[str]:
    """Sites of the dictionaries that write several, once."""
    return list(dict.fromkeys(itertools.chain(*(result.sites for result in results))))


def _draw_sites(axis: Any, results: Sequence[Evaluation]) -> None:
    """A point for each written site, the first on top."""
    places = {hook_name: place for place, hook_name in enumerate(_written(results))}
    for i, result in enumerate(results):
        fvus = [site.fvu for site in result.sites.values()]
        there = [places[hook_name] for hook_name in result.sites]
        axis.plot(fvus, there, marker="o", markersize=4, **look(i))
    axis.set_yticks(range(len(places)), list(places), parse_math=False, fontsize=9)
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.set_xlim(0, 1.05 * axis.get_xlim()[1])
    axis.locator_params(axis="x", nbins=5)
    axis.set_title("FVU by site, held out", fontsize=10)


def _draw_prefixes(axis: Any, results: Sequence[Evaluation]) -> None:
    """A curve for each nested dictionary."""
    for i, result in enumerate(results):
        shares = [prefix.share for prefix in result.of_prefix]
        axis.plot(shares, [p.fvu for p in result.of_prefix], marker="o", markersize=4, **look(i))
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("share of the latents")
    axis.set_title("FVU by prefix, held out", fontsize=10)


def draw_curve(
    axis: Any, steps: Sequence[float], values: Sequence[float | None], **how: Any
) -> None:
    """A line over training, or a dot for a run so short that it was measured once."""
    axis.plot(steps, values, marker="o" if len(steps) == 1 else None, markersize=4, **how)


def logarithmic(axis: Any, which: str = "y") -> None:
    """Make an axis logarithmic after drawing, with few ticks, at least two within a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set(**{f"{which}scale": "log"})
    low, high = getattr(axis, f"get_{which}lim")()
    ticks = getattr(axis, f"{which}axis")
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ticks.set_minor_locator(NullLocator())


def whole(axis: Any, most: int | None = None) -> None:
    """Put the ticks of the x axis at whole numbers: ``most``, or as many as fit."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(most or "auto", integer=True, steps=[1, 2, 5, 10]))


def _curve(training: Training | None) -> list[Point] | None:
    """Step and FVU of a training, if it is recorded."""
    return training if training is None else [(h["step"], h["fvu"]) for h in training.history]


def _draw_training(axis: Any, curves: Sequence[list[Point] | None]) -> None:
    # A checkpoint before the first report has none, and a logarithm has no zero.
    recorded = [(i, c) for i, c in enumerate(curves) if c and any(fvu for _, fvu in c)]
    if not recorded:
        axis.set_axis_off()
        axis.set_title("Training: not recorded", color="grey", fontsize=10)
        return
    for i, curve in recorded:
        draw_curve(axis, [step for step, _ in curve], [fvu for _, fvu in curve], **look(i))
    some = "" if len(recorded) == len(curves) else f" ({len(recorded)} of {len(curves)} recorded)"
    axis.set_title(f"Training{some}", fontsize=10)
    axis.set(xlabel="step", ylabel="FVU of the batch")
    axis.set_xlim(left=0)
    whole(axis)
    logarithmic(axis)


def _draw_density(axis: Any, results: Sequence[Evaluation]) -> None:
    """For each dictionary, a histogram of how often its living latents fire, on one scale.

    The axis starts at the rarest fraction that this many rows can show.
    """
    rarest = max(DENSITY_EDGES[0], math.floor(-math.log10(max(result.rows for result in results))))
    bins = 4 if min(result.d_sae for result in results) < FEW_LATENTS else 1
    shares = [
        np.reshape(result.density[1:], (-1, bins)).sum(axis=1) / result.d_sae for result in results
    ]
    highest = max(share.max() for share in shares) or 1
    for i, share in enumerate(shares):
        ground = i + 0.4
        axis.stairs(
            ground - 0.8 * share / highest,
            DENSITY_EDGES[::bins],
            baseline=ground,
            fill=True,
            color=look(i)["color"],
        )
        axis.axhline(ground, color="0.8", linewidth=0.5)
    ticks = range(int(rarest), 1)
    axis.set_xticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
    axis.set(xlabel="fraction of tokens", xlim=(rarest, 0))
    axis.set_title("How often latents fire", fontsize=10)
    axis.tick_params(axis="y", length=0)


def _draw_bars(axis: Any, values: Sequence[float], texts: Sequence[str]) -> None:
    """A bar for each value, the first on top, with its label in a column on the right."""
    places = range(len(values))
    axis.barh(places, values, color=[look(i)["color"] for i in places], height=0.6)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(axis="y", length=0)
    for place, text in zip(places, texts, strict=True):
        across = axis.get_yaxis_transform()
        axis.text(1.03, place, text, transform=across, va="center", fontsize=9)


def _draw_names(axis: Any, names: Sequence[str]) -> None:
    """The name of each bar, and beside it the line of its curve."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    axis.set_yticks(range(len(names)), names, parse_math=False, fontsize=9)
    axis.tick_params(axis="y", pad=34)
    inches = axis.figure.dpi_scale_trans + ScaledTranslation(0, 0, axis.transAxes)
    across = blended_transform_factory(inches, axis.transData)
    for place in range(len(names)):
        axis.plot([-0.42, -0.06], [place] * 2, transform=across, clip_on=False, **look(place))


def _site(results: Sequence[Evaluation]) -> str:
    sites = {sites_of(result) for result in results}
    what = "sets of sites" if _written(results) else "sites"
    return sites.pop() if len(sites) == 1 else f"{len(sites)} {what}"
