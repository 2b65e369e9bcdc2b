"""The study of inits in words, tables and pictures.

    python pipelines/rkcnn_page.py docs/rkcnn.json docs/rkcnn_front.json \\
        --again docs/rkcnn_again.json

writes docs/rkcnn.md, its pictures, and beside it the runs that every number comes from, together:
nothing, if one of them cannot be made. In place of the runs beside it, it takes what the study has
just left: a file for each weight of the penalty, and one each with and without special tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from paired import Paired, compare, coverage, holm, interval
from results import Row, deviation, start, table, write_together

from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.report.figures import logarithmic, png, whole

# The page as it is written; what is in braces comes of the runs.
TEMPLATE = Path(__file__).with_suffix(".md")

BASELINE, BEST = "random", "rkcnn"
FRONT_WINDOW = "100000"

# When a layer was run: for the study, and again.
WHEN = ("0.1", "now")

# What each arm is, in the order of the tables.
ARMS = {
    "random": "RkCNN-SAE's baseline: a Xavier encoder that knows nothing of the decoder",
    "random, another seed": "the same with other random numbers: what no change at all does",
    "tied": "random unit decoder rows, the encoder their transpose, `b_dec` the mean of the rows, "
    "as in all arms below but `rkcnn-decoder`",
    "subspace": "`tied`, projected into the subspace of 99 % of the variance (arXiv 2508.16929)",
    "datapoint": "`tied`, each latent 0.8 of a row and 0.2 random (Anthropic, October 2025)",
    "datapoint, half random": "the same, half and half",
    "rkcnn-decoder": "as published: mined directions in `random`'s decoder alone",
    "rkcnn": "half of the latents half way between a row and a mined direction, the other half "
    "between a row and a random one; encoder tied",
    "rkcnn, no rows": "half of the latents mined directions, the other half random; encoder tied",
    "rkcnn-unscored": "`rkcnn` with random subsets in place of the best",
    "sparse-random": "`rkcnn` with random directions inside random subsets",
}

# What is compared with what, and what the difference between the two arms is.
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


class Results:
    """The runs of a study, by arm and layer."""

    def __init__(self, document: Row) -> None:
        self.settings: Row = document["settings"]
        self._runs = {(run["arm"], run["layer"], run["seed"]): run for run in document["runs"]}
        self.layers = sorted({layer for _, layer, _ in self._runs})
        self.arms = [arm for arm in ARMS if self._everywhere(arm)]
        lacking = [arm for arm in (BASELINE, BEST) if arm not in self.arms]
        if lacking:
            raise BadInput(f"the study has no {lacking[0]} in some layer: let it go on first")
        self.windows = [int(window) for window in self.settings["windows"]]
        self.seeds = len({seed for arm, _, seed in self._runs if arm == BEST})

    def _everywhere(self, arm: str) -> bool:
        """Whether an arm has a run in every layer."""
        return {at for known, at, _ in self._runs if known == arm} == set(self.layers)

    def values(self, arm: str, layer: int, key: str) -> list[float]:
        """A number of every seed: ``fvu``, ``l0``, or the window of dead latents."""
        chosen = [run for (a, at, _), run in sorted(self._runs.items()) if (a, at) == (arm, layer)]
        return [_value(run, key) for run in chosen]

    def differences(self, arm: str, against: str, layer: int, key: str) -> list[float]:
        """``arm`` less ``against`` for every seed that has both."""
        return [
            _value(run, key) - _value(self._runs[against, layer, seed], key)
            for (a, at, seed), run in sorted(self._runs.items())
            if (a, at) == (arm, layer) and (against, layer, seed) in self._runs
        ]

    def compared(self, arm: str, against: str, key: str) -> list[Paired]:
        """Every layer's paired difference."""
        return [compare(self.differences(arm, against, layer, key)) for layer in self.layers]

    def pairs(self) -> list[tuple[str, str, str]]:
        """Those of ``PAIRS`` whose arms were both run in every layer."""
        return [pair for pair in PAIRS if set(pair[:2]) <= set(self.arms)]


def _value(run: Row, key: str) -> float:
    return float(run["dead"][key] if key in run["dead"] else run[key])


def page(document: Row, front: Row, again: Row) -> str:
    """docs/rkcnn.md."""
    found = Results(document)
    settings = found.settings
    longest = str(max(found.windows))
    train, held_out = (settings[f"{part}_rows"] for part in ("store", "held_out"))
    chosen = ("d_in", "d_sae", "k", "steps", "batch_size", "lr", "warmup")
    return TEMPLATE.read_text("utf-8").format(
        **{key: settings[key] for key in chosen},
        layers=len(found.layers),
        seeds=found.seeds,
        patterns=2**found.seeds,
        smallest=f"{2 / 2**found.seeds:.4f}",
        adjusted=f"{min(1.0, 2 / 2**found.seeds * len(found.layers)):.2f}",
        train_rows=f"{train[1] - train[0]:,}",
        held_out_rows=f"{held_out[1] - held_out[0]:,}",
        coverage=", ".join(f"{coverage(n):.0%} with {n}" for n in (found.seeds, 4, 2)),
        seen=f"{settings['steps'] * settings['batch_size']:,}",
        fvu_rows=f"{settings['fvu_rows']:,}",
        longest=f"{int(longest):,}",
        arms="\n".join(f"| {arm} | {what} |" for arm, what in ARMS.items()),
        dead=_means_table(found, longest, "{:.0f}"),
        fvu=_means_table(found, "fvu", "{:.3f}"),
        windows=_windows_table(found),
        best=_layers_table(found, longest),
        pairs=_pairs_table(found, longest),
        front=_front_table(front),
        front_seeds=len({run["seed"] for run in front["runs"]}),
        front_window=f"{int(FRONT_WINDOW):,}",
        **_told(found, longest),
        **_again(document, again, longest),
    )


def side_by_side(document: Row, again: Row, *, special_tokens: bool) -> dict[str, Results]:
    """The layer that was run again, then and now: the arms and seeds that both have.

    Args:
        special_tokens: which of the runs again, with the rows of special tokens or without.

    Raises:
        BadInput: there are none, or of more than one layer.
    """
    chosen = [run for run in again["runs"] if run["special_tokens"] == special_tokens]
    both = [
        {(run["arm"], run["layer"], run["seed"]): run for run in runs}
        for runs in (document["runs"], chosen)
    ]
    shared = sorted(set.intersection(*map(set, both)))
    if len({layer for _, layer, _ in shared}) != 1:
        raise BadInput(
            "--again takes runs of one layer of the study, with special tokens and without: "
            "give the files of both"
        )
    return {
        when: Results(document | {"runs": [runs[place] for place in shared]})
        for when, runs in zip(WHEN, both, strict=True)
    }


def _again(document: Row, again: Row, key: str) -> dict[str, str]:
    """What the section on the layer that was run again is made of."""
    all_rows, kept = (
        side_by_side(document, again, special_tokens=special) for special in (True, False)
    )
    now = kept[WHEN[1]]
    first, stop = again["settings"]["held_out_rows"]
    [left_out] = {run["left_out"] for run in again["runs"] if not run["special_tokens"]}
    codec, changes = (_changes(both, "fvu") for both in (all_rows, kept))
    seeds = [deviation(now.values(arm, now.layers[0], "fvu")) for arm in now.arms]
    told = [
        [found.compared(arm, against, "fvu")[0] for found in kept.values()]
        for arm, against, _ in now.pairs()
    ]
    return {
        "again_layer": str(now.layers[0]),
        "again_seeds": str(now.seeds),
        "again_arms": str(len(now.arms)),
        "codec": document["settings"]["codec"],
        "again_codec": again["settings"]["codec"],
        "again_out": f"{left_out / (stop - first):.1%}",
        "again_means": _again_means(kept, key),
        "again_pairs": _again_pairs(kept, key),
        "codec_seeds": str(all_rows[WHEN[1]].seeds),
        "codec_changes": _range(codec),
        "codec_moved": str(sum(_side(change) != 0 for change in codec)),
        "again_changes": _range(changes),
        "again_moved": str(sum(_side(change) != 0 for change in changes)),
        "again_sd": f"{np.mean([sd for sd in seeds if sd is not None]):.4f}",
        "again_same": str(sum(_side(before) == _side(after) for before, after in told)),
        "again_told": str(len(told)),
    }


def _changes(both: dict[str, Results], key: str) -> list[Paired]:
    """How much more each arm has now than it had, seed by seed."""
    before, now = both.values()
    [layer] = now.layers
    values = ((now.values(arm, layer, key), before.values(arm, layer, key)) for arm in now.arms)
    return [compare(np.subtract(*pair).tolist()) for pair in values]


def _range(changes: Sequence[Paired]) -> str:
    """The smallest and the largest of the means."""
    means = [change.mean for change in changes]
    return f"{min(means):+.4f} to {max(means):+.4f}"


def _side(pair: Paired) -> int:
    """Whether the first arm has less, -1, or more, 1, or nothing can be told, by the interval."""
    return (pair.low > 0) - (pair.high < 0)


def _told(found: Results, key: str) -> dict[str, str]:
    """Numbers of the text that are in no table."""
    best, base = (
        np.array([np.sum(found.values(arm, layer, key)) for layer in found.layers])
        for arm in (BEST, BASELINE)
    )
    shares = best / base
    dead, fvu = (found.compared(BEST, BASELINE, k) for k in (key, "fvu"))
    not_worse = {
        f"{name}_{other}": str(sum(tally(found.compared(BEST, other, k))[:2]))
        for other in ("tied", "subspace", "datapoint")
        for name, k in (("dead", key), ("fvu", "fvu"))
    }
    return {
        "share": f"{best.sum() / base.sum():.1%}",
        "fewer": str(sum(pair.high < 0 for pair in dead)),
        "tenth": str(sum(share <= 0.1 for share in shares)),
        "above": ", ".join(
            f"{layer} ({share:.0%})"
            for layer, share in zip(found.layers, shares, strict=True)
            if share > 0.1
        ),
        "less_explained": str(sum(pair.low > 0 for pair in fvu)),
        "explained": str(sum(pair.high < 0 for pair in fvu)),
    } | not_worse


def _means_table(found: Results, key: str, form: str) -> str:
    """Mean over seeds of each arm in each layer, and over layers."""
    rows = []
    for arm in found.arms:
        means = [float(np.mean(found.values(arm, layer, key))) for layer in found.layers]
        seeds = len(found.values(arm, found.layers[0], key))
        numbers = [form.format(value) for value in [*means, float(np.mean(means))]]
        rows.append([arm, str(seeds), *numbers])
    return table(["arm", "seeds", *map(str, found.layers), "mean"], rows)


def _windows_table(found: Results) -> str:
    """Dead latents, mean over layers, within tokens of several numbers."""
    rows = []
    for arm in found.arms:
        cells = []
        for window in map(str, found.windows):
            groups = [np.array(found.values(arm, layer, window)) for layer in found.layers]
            low, high = interval(groups)
            mean = float(np.mean([group.mean() for group in groups]))
            cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f})")
        rows.append([arm, *cells])
    return table(["arm", *(f"{window:,} tokens" for window in found.windows)], rows)


def _layers_table(found: Results, key: str) -> str:
    """The best arm against the baseline, layer by layer."""
    dead, fvu = (found.compared(BEST, BASELINE, k) for k in (key, "fvu"))
    adjusted = holm([pair.p for pair in dead])
    rows = []
    for i, layer in enumerate(found.layers):
        share = np.sum(found.values(BEST, layer, key)) / np.sum(found.values(BASELINE, layer, key))
        cells = [f"{dead[i].mean:+.0f} ({dead[i].low:+.0f} to {dead[i].high:+.0f})", f"{share:.0%}"]
        cells += [f"{dead[i].p:.4f}", f"{adjusted[i]:.3f}"]
        cells += [f"{fvu[i].mean:+.3f} ({fvu[i].low:+.3f} to {fvu[i].high:+.3f})"]
        rows.append([str(layer), *cells])
    return table(["layer", "dead", "left of them", "p", "p (Holm)", "FVU"], rows)


def _pairs_table(found: Results, key: str) -> str:
    """Pairs of arms that differ in one thing, over all layers."""
    rows = []
    for arm, against, what in found.pairs():
        seeds = len(found.differences(arm, against, found.layers[0], key))
        cells = [what or "all of it", str(seeds)]
        for measured, form in ((key, "+.1f"), ("fvu", "+.4f")):
            cells.append(_overall(found, arm, against, measured, form))
            cells.append("/".join(map(str, tally(found.compared(arm, against, measured)))))
        rows.append([f"{arm} − {against}", *cells])
    return table(["arms", "what differs", "seeds", "dead", "layers", "FVU", "layers"], rows)


def _overall(found: Results, arm: str, against: str, key: str, form: str) -> str:
    """Mean over layers of a paired difference, with its interval."""
    groups = [np.array(found.differences(arm, against, at, key)) for at in found.layers]
    low, high = interval(groups)
    mean = float(np.mean([group.mean() for group in groups]))
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def tally(pairs: Sequence[Paired]) -> tuple[int, int, int]:
    """Layers in which the first arm has less, in which nothing can be told, and has more."""
    less, more = sum(pair.high < 0 for pair in pairs), sum(pair.low > 0 for pair in pairs)
    return less, len(pairs) - less - more, more


def _again_means(both: dict[str, Results], key: str) -> str:
    """Dead latents and FVU of each arm, mean over seeds, then and now."""
    now = both[WHEN[1]]
    [layer], shortest = now.layers, str(min(now.windows))
    rows = [[arm, str(len(now.values(arm, layer, key)))] for arm in now.arms]
    for which, form in ((shortest, ".0f"), (key, ".1f"), ("fvu", ".3f")):
        for row, arm, change in zip(rows, now.arms, _changes(both, which), strict=True):
            means = [np.mean(found.values(arm, layer, which)) for found in both.values()]
            row += [f"{mean:{form}}" for mean in means]
            row.append(f"{change.mean:+{form}} ({change.low:+{form}} to {change.high:+{form}})")
    heads = [f"dead in {int(window):,}" for window in (shortest, key)]
    return table(["arm", "seeds", *_heads([*heads, "FVU"], "change")], rows)


def _again_pairs(both: dict[str, Results], key: str) -> str:
    """Paired differences of two arms, then and now."""
    rows = []
    for arm, against, _ in both[WHEN[1]].pairs():
        cells = [
            _overall(found, arm, against, which, form)
            for which, form in ((key, "+.1f"), ("fvu", "+.4f"))
            for found in both.values()
        ]
        rows.append([f"{arm} − {against}", *cells])
    return table(["arms", *_heads(["dead", "FVU"])], rows)


def _heads(measured: Sequence[str], *more: str) -> list[str]:
    """Of columns side by side, the first says what they are of."""
    then, now = WHEN
    return [head for what in measured for head in (f"{what}, {then}", now, *more)]


def _front_table(front: Row) -> str:
    """Arms of the ReLU code at every weight of its penalty, mean over seeds."""
    rows = []
    for arm, layer, l1 in _front_points(front):
        runs = [r for r in front["runs"] if (r["arm"], r["layer"], r["l1"]) == (arm, layer, l1)]
        means = [np.mean([_value(run, key) for run in runs]) for key in ("l0", "fvu", FRONT_WINDOW)]
        cells = [f"{means[0]:.1f}", f"{means[1]:.3f}", f"{means[2]:.0f}"]
        rows.append([arm, str(layer), f"{l1:g}", *cells])
    return table(["arm", "layer", "l1", "L0", "FVU", "dead"], rows)


def _front_points(front: Row) -> list[tuple[str, int, float]]:
    points = {(run["layer"], run["arm"], run["l1"]) for run in front["runs"]}
    order = sorted(points, key=lambda point: (point[0], list(ARMS).index(point[1]), point[2]))
    return [(arm, layer, l1) for layer, arm, l1 in order]


def layers_figure(document: Row) -> Any:
    """Dead latents and FVU by layer."""
    from matplotlib.figure import Figure

    found = Results(document)
    longest = str(max(found.windows))
    drawn = Figure(figsize=(11, 4.5), layout="constrained")
    axes = drawn.subplots(1, 2)
    for axis, key, title in (
        (axes[0], longest, f"Dead of {found.settings['d_sae']:,} in {int(longest):,} tokens"),
        (axes[1], "fvu", "FVU, held out"),
    ):
        for arm in found.arms:
            groups = [np.array(found.values(arm, layer, key)) for layer in found.layers]
            ends = np.array([interval([group]) for group in groups])
            axis.plot(found.layers, [g.mean() for g in groups], label=arm, **_look(arm))
            axis.fill_between(found.layers, *ends.T, color=_look(arm)["color"], alpha=0.15, lw=0)
        axis.set(title=title, xlabel="layer")
        whole(axis, 12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yscale("symlog", linthresh=1)
    axes[0].set_ylim(0, 1.3 * found.settings["d_sae"])
    ticks = [0, *(10**i for i in range(len(str(found.settings["d_sae"]))))]
    axes[0].set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawn


def front_figure(front: Row) -> Any:
    """FVU against L0 of the ReLU code."""
    from matplotlib.figure import Figure

    layers = sorted({run["layer"] for run in front["runs"]})
    drawn = Figure(figsize=(11, 4), layout="constrained")
    for axis, layer in zip(np.atleast_1d(drawn.subplots(1, len(layers))), layers, strict=True):
        for arm in dict.fromkeys(arm for arm, at, _ in _front_points(front) if at == layer):
            runs = [run for run in front["runs"] if (run["layer"], run["arm"]) == (layer, arm)]
            weights = sorted({run["l1"] for run in runs})
            mean = [
                [np.mean([run[key] for run in runs if run["l1"] == l1]) for l1 in weights]
                for key in ("l0", "fvu")
            ]
            axis.plot(*mean, label=arm, **_look(arm))
            axis.scatter(*([run[key] for run in runs] for key in ("l0", "fvu")), s=6, alpha=0.5,
                         color=_look(arm)["color"])  # fmt: skip
        axis.set(title=f"ReLU, layer {layer}", xlabel="L0", ylabel="FVU")
        logarithmic(axis, "x")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    return drawn


def _look(arm: str) -> dict[str, Any]:
    """Baselines are grey, tied ones blue, rows green, what RkCNN finds orange and red."""
    colours = ("#999999", "#cccccc", "#1f77b4", "#17becf", "#2ca02c", "#98df8a", "#8c564b",
               "#d62728", "#9467bd", "#ff7f0e", "#bcbd22")  # fmt: skip
    width = 2.2 if arm in (BASELINE, BEST) else 1.2
    return {"color": colours[list(ARMS).index(arm)], "lw": width, "marker": "o", "ms": 3}


@click.command("rkcnn_page", cls=Command)
@click.argument("study", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("fronts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--again",
    multiple=True,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Runs of one layer, with or without special tokens; repeat it for the others.",
)
@click.option("--out", default="docs", show_default=True, help="Directory of what it writes.")
def main(study: Path, fronts: tuple[Path, ...], again: tuple[Path, ...], out: str) -> None:
    """Write rkcnn.md, its pictures and its runs, from what the study left.

    STUDY has the runs with TopK, FRONTS those with ReLU, a file for each weight of the penalty
    or one of all.
    """
    where = Path(out).expanduser()
    front = joined([read(path) for path in fronts], "l1")
    repeated = joined([read(path) for path in again], "special_tokens")
    write_together(documents(read(study), front, repeated, where))
    click.echo(where / "rkcnn.md")


def documents(document: Row, front: Row, again: Row, out: Path) -> dict[Path, bytes]:
    """What is written, by path."""
    return {
        out / "rkcnn.json": compact(document).encode(),
        out / "rkcnn_front.json": compact(front).encode(),
        out / "rkcnn_again.json": compact(again).encode(),
        out / "rkcnn.md": page(document, front, again).encode(),
        out / "images" / "rkcnn.png": png(layers_figure(document)),
        out / "images" / "rkcnn_front.png": png(front_figure(front)),
    }


def read(path: Path) -> Row:
    """What rkcnn_study left in a file.

    Raises:
        BadInput: it is something else, or has no runs.
    """
    try:
        document: Row = json.loads(path.read_text("utf-8"))
        if (
            not all("dead" in run for run in document["runs"])
            or not document["settings"]["windows"]
        ):
            raise KeyError("windows")
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            f"{path} is not what rkcnn_study writes: give the file of its --out"
        ) from None
    if not document["runs"]:
        raise BadInput(f"{path} has no runs yet: let rkcnn_study go on first")
    return document


def joined(studies: Sequence[Row], key: str) -> Row:
    """The runs of studies that differ in one setting, which each run then has.

    One that was joined before stays as it is.

    Raises:
        BadInput: they differ in more, or two do not differ.
    """
    if len(studies) == 1 and all(key in run for run in studies[0]["runs"]):
        return studies[0]
    values = [study["settings"].get(key) for study in studies]
    settings = [{k: v for k, v in study["settings"].items() if k != key} for study in studies]
    if any(other != settings[0] for other in settings):
        raise BadInput(f"the files differ in more than {key}: make them with one config")
    if None in values:
        raise BadInput(f"one of the files says no one {key}: make it with rkcnn_study")
    if len(set(values)) < len(values):
        raise BadInput(f"two of the files have one {key} (of {values}): give each once")
    runs = [
        run | {key: v} for study, v in zip(studies, values, strict=True) for run in study["runs"]
    ]
    return {"settings": settings[0], "runs": runs}


def compact(document: Row) -> str:
    """JSON with a line for each run."""
    runs = ",\n".join(json.dumps(run, allow_nan=False) for run in document["runs"])
    settings = json.dumps(document["settings"], allow_nan=False)
    return f'{{"settings": {settings},\n"runs": [\n{runs}\n]}}\n'


if __name__ == "__main__":
    start(main)
