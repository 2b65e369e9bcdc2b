"""The runs of rkcnn_study: what is compared, the tables of the page, and its first picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rkcnn_study import ARMS as STUDY_ARMS

from rkstore.errors import BadInput
from rkstore.evaluation.paired import Arms, Paired, compare, holm, interval
from rkstore.evaluation.record import Row
from rkstore.evaluation.report.figures import legend_below, panels, whole
from rkstore.evaluation.report.tables import table

BASELINE, BEST = "random", "rkcnn"
# The arms of the page, in the order of the tables.
ARMS = [name for name, arm in STUDY_ARMS.items() if arm.what]

# The arms that are compared, and what differs between them.
PAIRS = (
    ("random, another seed", "random", "nothing but the seed"),
    ("rkcnn-decoder", "random", "mined directions in the decoder"),
    ("tied", "random", "encoder the decoder's transpose, b_dec the mean"),
    ("rkcnn, no rows", "tied", "mined directions, both sides"),
    ("datapoint", "tied", "rows of the data"),
    ("rkcnn", "rkcnn, no rows", "rows of the data"),
    ("rkcnn", "random", "all of it"),
    ("rkcnn", "tied", "rows and mined directions"),
    ("rkcnn", "subspace", ""),
    ("rkcnn", "datapoint", ""),
    ("rkcnn", "datapoint, half random", "mined directions in place of random ones"),
    ("rkcnn", "rkcnn-unscored", "the score"),
    ("rkcnn-unscored", "sparse-random", "principal directions of the subsets"),
)


class Results(Arms):
    """The runs of a study, by arm and layer; ``key`` is ``fvu``, ``l0``, or a window of tokens."""

    def __init__(self, document: Row) -> None:
        rows = [run | run["dead"] for run in document["runs"]]
        super().__init__(sorted(rows, key=lambda row: row["seed"]), "arm")
        self.settings: Row = document["settings"]
        self.arms = [
            arm for arm in ARMS if all(self.values(arm, layer, "fvu") for layer in self.layers)
        ]
        lacking = [arm for arm in (BASELINE, BEST) if arm not in self.arms]
        if lacking:
            raise BadInput(f"the study has no {lacking[0]} in some layer: let it go on first")
        self.windows = [int(window) for window in self.settings["windows"]]
        self.seeds = len({seed for arm, _, seed in self.runs if arm == BEST})

    def mean(self, arm: str, layer: int, key: str) -> float:
        """Mean over seeds."""
        return float(np.mean(self.values(arm, layer, key)))

    def compared(self, arm: str, against: str, key: str) -> list[Paired]:
        """The paired difference of each layer."""
        return [compare(self.differences(arm, against, key, layer)) for layer in self.layers]

    def known_pairs(self) -> list[tuple[str, str, str]]:
        """Those of ``PAIRS`` whose arms were both run in every layer."""
        return [pair for pair in PAIRS if set(pair[:2]) <= set(self.arms)]

    def overall(self, arm: str, against: str, key: str, form: str) -> str:
        """Mean over layers of a paired difference, with its interval."""
        return over([self.differences(arm, against, key, at) for at in self.layers], form)


def over(groups: Sequence[Sequence[float]], form: str) -> str:
    """Mean of the means of some groups, with its interval."""
    arrays = [np.array(group) for group in groups]
    mean = float(np.mean([group.mean() for group in arrays]))
    return _interval(mean, *interval(arrays), form)


def _interval(mean: float, low: float, high: float, form: str) -> str:
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def difference(pair: Paired, form: str) -> str:
    return _interval(pair.mean, pair.low, pair.high, form)


def side(pair: Paired) -> int:
    """By the interval, whether the first arm has less, -1, or more, 1, or neither is known, 0."""
    return (pair.low > 0) - (pair.high < 0)


def tally(pairs: Sequence[Paired]) -> tuple[int, int, int]:
    """In how many layers the first arm has less, in how many nothing is known, in how many more."""
    sides = [side(pair) for pair in pairs]
    return sides.count(-1), sides.count(0), sides.count(1)


def means_table(found: Results, key: str, form: str) -> str:
    """Mean over seeds of each arm in each layer, and over layers."""
    rows = []
    for arm in found.arms:
        means = [found.mean(arm, layer, key) for layer in found.layers]
        seeds = len(found.values(arm, found.layers[0], key))
        rows.append([arm, str(seeds), *(f"{mean:{form}}" for mean in [*means, np.mean(means)])])
    return table(["arm", "seeds", *map(str, found.layers), "mean"], rows)


def windows_table(found: Results) -> str:
    """Dead latents within windows of several lengths, mean over layers."""
    rows = []
    for arm in found.arms:
        groups = (
            [found.values(arm, layer, str(window)) for layer in found.layers]
            for window in found.windows
        )
        rows.append([arm, *(over(group, ".1f") for group in groups)])
    return table(["arm", *(f"{window:,} tokens" for window in found.windows)], rows)


def layers_table(found: Results, key: str) -> str:
    """The best arm against the baseline, layer by layer."""
    dead, fvu = (found.compared(BEST, BASELINE, k) for k in (key, "fvu"))
    adjusted = holm([pair.p for pair in dead])
    rows = []
    for i, layer in enumerate(found.layers):
        share = np.sum(found.values(BEST, layer, key)) / np.sum(found.values(BASELINE, layer, key))
        cells = [difference(dead[i], "+.0f"), f"{share:.0%}", f"{dead[i].p:.4f}"]
        rows.append([str(layer), *cells, f"{adjusted[i]:.3f}", difference(fvu[i], "+.3f")])
    return table(["layer", "dead", "left of them", "p", "p (Holm)", "FVU"], rows)


def pairs_table(found: Results, key: str) -> str:
    """Pairs of arms that differ in one thing, over all layers."""
    rows = []
    for arm, against, what in found.known_pairs():
        seeds = len(found.differences(arm, against, key, found.layers[0]))
        cells = [what or "all of it", str(seeds)]
        for measured, form in ((key, "+.1f"), ("fvu", "+.4f")):
            cells.append(found.overall(arm, against, measured, form))
            cells.append("/".join(map(str, tally(found.compared(arm, against, measured)))))
        rows.append([f"{arm} − {against}", *cells])
    return table(["arms", "what differs", "seeds", "dead", "layers", "FVU", "layers"], rows)


def layers_figure(document: Row) -> Any:
    """Dead latents and FVU by layer."""
    found = Results(document)
    longest, d_sae = str(max(found.windows)), found.settings["d_sae"]
    drawn, axes = panels(11, 4.5, 2)
    for axis, key, title in (
        (axes[0], longest, f"Dead of {d_sae:,} in {int(longest):,} tokens"),
        (axes[1], "fvu", "FVU, held out"),
    ):
        for arm in found.arms:
            groups = [np.array(found.values(arm, layer, key)) for layer in found.layers]
            ends = np.array([interval([group]) for group in groups])
            axis.plot(found.layers, [g.mean() for g in groups], label=arm, **look(arm))
            axis.fill_between(found.layers, *ends.T, color=look(arm)["color"], alpha=0.15, lw=0)
        axis.set(title=title, xlabel="layer")
        whole(axis, 12)
    axes[0].set_yscale("symlog", linthresh=1)
    axes[0].set_ylim(0, 1.3 * d_sae)
    ticks = [0, *(10**i for i in range(len(str(d_sae))))]
    axes[0].set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    legend_below(drawn, axes[0], 4)
    return drawn


def look(arm: str) -> dict[str, Any]:
    """Baselines are grey, tied ones blue, rows green, RkCNN's directions orange and red."""
    colours = ("#999999", "#cccccc", "#1f77b4", "#17becf", "#2ca02c", "#98df8a", "#8c564b",
               "#d62728", "#9467bd", "#ff7f0e", "#bcbd22")  # fmt: skip
    width = 2.2 if arm in (BASELINE, BEST) else 1.2
    return {"color": colours[ARMS.index(arm)], "lw": width, "marker": "o", "ms": 3}
