"""The sweep: subsets drawn × share of them kept × score × L1, against the noise between seeds.

    python pipelines/sweep.py --config configs/sweep.yaml

Every run is recorded when it is done: a sweep that was stopped continues with the missing runs, and
one with more values adds to those on record. A pair is a run and the baseline of its L1 and seed;
baselines of further seeds show how much the seed alone changes.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeVar

import click
from arms import RecipeSettings, as_in, directory, identity, recipe, run_arms, the_store
from published import SWEEP, SWEEP_FAULTS, notes, record
from results import show, start
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.errors import BadInput
from rkstore.evaluation.paired import described, deviation, improvement
from rkstore.evaluation.record import Row, Runs, grouped
from rkstore.evaluation.report.figures import legend_below, look, panels
from rkstore.evaluation.report.tables import number, table, with_sd
from rkstore.settings import flag_of, option
from rkstore.store.store import Store
from rkstore.training.settings import TrainSettings

NAME = "sweep"
AXES = ("h", "fraction", "score", "l1")
# What a pair says, and how it is printed.
GAINS = {"points": "+.2f", "percent": "+.2f", "explained": "+.4f"}

T = TypeVar("T")


class SweepSettings(RecipeSettings):
    """The grid, and what all its runs have in common."""

    layer: int = option(6, "Transformer block.", least=0)
    baseline: str = option(
        "random",
        "Initialisation that the others are compared with; datapoint is what rkcnn does besides "
        "choosing directions.",
        choices=("random", "tied", "datapoint"),
    )
    init: str = option(
        "rkcnn",
        "Initialisation that is swept. rkcnn keeps --fraction of the subsets; rkcnn-decoder is as "
        "published: directions in the decoder alone, and --fraction is one of the latents, so that "
        "all subsets are kept where there are fewer.",
        choices=("rkcnn", "rkcnn-decoder"),
    )
    h: str = option("300,600", "Subsets drawn.")
    fraction: str = option("0.25,0.5,0.75", "Shares to keep.")
    score: str = option("kurtosis,knn,variance_ratio", "Scores of a subset; knn without labels.")
    l1: str = option(
        "0.0005,0.001,0.005",
        "Weights of the L1 penalty as published: of its mean over latents, against the mean of the "
        "squared error over dimensions.",
    )
    seeds: int = option(3, "Seeds of the baseline: --seed and those that follow it.", least=1)
    dictionary: str = as_in(TrainSettings, "dictionary", default="relu")
    norm: str = as_in(TrainSettings, "norm", default="none")
    tokens: int = option(50_000, "Rows to store, rounded down to whole blocks.", least=1)
    steps: int = option(3000, "Batches to train on.", least=1)
    keep: bool = option(False, "Keep the dictionaries once they are measured.")
    out: str = directory(f"results/{NAME}")

    def grid(self) -> list[Row]:
        """Every point, as its values by axis.

        Raises:
            BadInput: a list cannot be read; L1 is varied where it has no effect.
        """
        kinds: dict[str, Callable[[str], Any]] = {
            "h": int,
            "fraction": float,
            "score": str,
            "l1": float,
        }
        values = {axis: values_of(axis, getattr(self, axis), kind) for axis, kind in kinds.items()}
        if self.dictionary != "relu" and len(values["l1"]) > 1:
            raise BadInput(f"--l1 has no effect with a {self.dictionary} code: give one value")
        return [
            dict(zip(AXES, point, strict=True)) for point in itertools.product(*values.values())
        ]


def values_of(axis: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The values of a list such as ``300,600``, each once.

    Raises:
        BadInput: one is not of that kind.
    """
    try:
        return list(dict.fromkeys(kind(part.strip()) for part in text.split(",")))
    except ValueError:
        raise BadInput(f"{flag_of(axis)} is '{text}': give a list such as 0.25,0.5") from None


def training(
    settings: SweepSettings, store: Store, point: Row, init: str, seed: int
) -> TrainSettings:
    """The settings of one run; ``point`` needs no more than L1 for the baseline.

    Published is ``mean_d (x̂ - x)² + l1 · mean_F f``. Times ``d_in`` that is the squared error of
    a token and ``l1 · d_in / d_sae`` a latent, the weight that ``rkstore train`` takes.
    """
    d_in = store.manifest.width(store.site(settings.layer, settings.hook))
    d_sae = settings.d_sae or int(d_in * settings.expansion)
    given = {"init": init, "seed": seed, "l1": point["l1"] * d_in / d_sae}
    if init != settings.baseline:
        given |= {"rkcnn_score": point["score"], **mining(init, point, d_sae)}
    return recipe(settings, store, **given)


def mining(init: str, point: Row, d_sae: int) -> Row:
    """Of ``h`` subsets a share is kept, or, as published, as many as a share of the latents."""
    if init == "rkcnn-decoder":
        return {"rkcnn_h": point["h"], "rkcnn_fraction": point["fraction"]}
    kept = round(point["h"] * point["fraction"])
    if not 1 <= kept <= min(point["h"], d_sae):
        raise BadInput(
            f"--fraction {point['fraction']} of --h {point['h']} is {kept}: it must be from 1 to "
            f"as many as are drawn, and as the {d_sae} latents"
        )
    return {"rkcnn_fraction": kept / d_sae, "rkcnn_oversample": point["h"] / kept}


def study(settings: SweepSettings) -> tuple[Runs, Row]:
    """All runs, those that are missing made now, and their summary."""
    grid = settings.grid()
    store = the_store(settings, str(settings.layer))
    runs = Runs(Path(settings.out) / f"{NAME}.json", identity(settings, store, besides=AXES))
    seeds = range(settings.seed, settings.seed + settings.seeds)
    penalties = dict.fromkeys(point["l1"] for point in grid)
    wanted = [
        ({"l1": l1}, settings.baseline, seed) for l1, seed in itertools.product(penalties, seeds)
    ] + [(point, settings.init, settings.seed) for point in grid]
    # All settings are made first, so that a mistake in the last is found before the first run.
    planned = [
        (point, training(settings, store, point, init, seed)) for point, init, seed in wanted
    ]
    for point, one in tqdm(planned, desc="sweep", unit="run", disable=None):
        if not runs.find(**point, init=one.init, seed=one.seed):
            [row] = run_arms([one], store, settings.keep)
            runs.add([point | row])
    summary = summarise(runs.rows, settings)
    runs.write(summary=summary, published=record(SWEEP_FAULTS, **SWEEP))
    return runs, summary


def summarise(rows: list[Row], settings: SweepSettings) -> Row:
    """Every pair, their gains, and what seeds alone do."""
    baselines = {(r["l1"], r["seed"]): r for r in rows if r["init"] == settings.baseline}
    pairs = [
        {axis: row[axis] for axis in AXES} | pair_of(baselines[row["l1"], row["seed"]], row)
        for row in rows
        if row["init"] == settings.init
    ]
    by_axis = {
        axis: {str(value): gains(found) for value, found in grouped(pairs, axis).items()}
        for axis in AXES
    }
    return {
        "pairs": pairs,
        "gains": gains(pairs),
        "by_axis": by_axis,
        "baseline_dead": described([row["dead"] for row in baselines.values()]),
        "init_dead": described([pair["dead"][1] for pair in pairs]),
        "noise": noise(list(baselines.values()), len(pairs)),
    }


def pair_of(baseline: Row, row: Row) -> Row:
    """How many fewer latents of a run are dead: ``points`` are per cent of all latents,
    ``percent``, as published, of the baseline's dead, and None if it has none. ``explained``
    is how much more variance the run explains."""
    both = {key: [baseline[key], row[key]] for key in ("dead", "l0", "explained_variance")}
    return both | {
        "points": 100 * (baseline["dead_share"] - row["dead_share"]),
        "percent": improvement(baseline, row),
        "explained": row["explained_variance"] - baseline["explained_variance"],
    }


def gains(pairs: list[Row]) -> Row:
    """Each measure of some pairs."""
    return {key: described([pair[key] for pair in pairs if pair[key] is not None]) for key in GAINS}


def noise(baselines: list[Row], pairs: int) -> Row:
    """How the baseline varies between seeds at one L1, and what that alone would make of pairs.

    Two runs that vary so differ by √2 times as much, and the best of many pairs lies at an
    outer quantile of that.
    """
    groups = grouped(baselines, "l1").values()
    sds = (deviation([row["dead"] for row in group]) for group in groups)
    found = [sd for sd in sds if sd is not None]
    if not found:
        return {"sd": None, "points": None, "best": None}
    sd = sum(found) / len(found)
    points = 100 * 2**0.5 * sd / baselines[0]["d_sae"]
    return {"sd": sd, "points": points, "best": points * NormalDist().inv_cdf(pairs / (pairs + 1))}


def page(runs: Runs, summary: Row, settings: SweepSettings) -> str:
    """The summary of the sweep beside what was published."""
    old, d_sae = SWEEP["improvement"], SWEEP["d_sae"]
    base, mined = _mean_sd(summary["baseline_dead"], ".0f"), _mean_sd(summary["init_dead"], ".0f")
    old_base, old_mined = (_mean_sd(SWEEP[k], ".0f") for k in ("baseline_dead", "rkcnn_dead"))
    rows = [
        [f"dead, {settings.baseline}", base, "", "", old_base],
        [f"dead, {settings.init}", mined, "", "", old_mined],
        _gain_cells(f"mean of {len(summary['pairs'])}", summary["gains"], _mean_sd(old, "+.2f")),
    ]
    for end in ("best", "worst"):
        here = [number(summary["gains"][key][end], form) for key, form in GAINS.items()]
        rows.append([f"{end} of {len(summary['pairs'])}", *here, f"{old[end]:+.1f}"])
    for axis in AXES:
        for value, found in summary["by_axis"][axis].items():
            known = SWEEP["by_score"].get(value) if axis == "score" else None
            rows.append(_gain_cells(f"{axis} {value}", found, number(known, "+.2f")))
    l0 = [row["l0"] for row in runs.rows]
    one = runs.rows[0]
    return "\n".join(
        [
            table(["", "points", "%", "explained", "published %"], rows),
            "",
            _noise_line(summary, settings),
            f"Dead of {one['d_sae']:,} latents on {one['rows']:,} held-out tokens, published "
            f"{SWEEP['pairs']} pairs of {d_sae:,}; points are per cent of all latents, % of the "
            f"baseline's dead; mean ± SD. L0 is {min(l0):.0f} to {max(l0):.0f}.",
            *notes(SWEEP_FAULTS),
        ]
    )


def _gain_cells(name: str, found: Row, published: str) -> list[str]:
    return [name, *(_mean_sd(found[key], form) for key, form in GAINS.items()), published]


def _noise_line(summary: Row, settings: SweepSettings) -> str:
    found = summary["noise"]
    if found["sd"] is None:
        return "How much the baseline varies between seeds is not known: give more --seeds."
    return (
        f"Between seeds, {settings.baseline} varies by {found['sd']:.1f} dead latents (SD), two of "
        f"them by {found['points']:.2f} points; the best of {len(summary['pairs'])} pairs of such "
        f"noise would be about {found['best']:+.2f} points."
    )


def _mean_sd(found: Row, form: str) -> str:
    return with_sd(found["mean"], found["sd"], form)


def figure(summary: Row) -> Any:
    """Every pair by L1, score by score, on the noise between seeds."""
    drawn, [axis] = panels(9, 4.5)
    pairs = summary["pairs"]
    penalties = list(dict.fromkeys(pair["l1"] for pair in pairs))
    scores = grouped(pairs, "score")
    if wide := summary["noise"]["points"]:
        axis.axhspan(-wide, wide, color="0.9", label="two seeds (±1 SD)")
    for i, (score, mine) in enumerate(scores.items()):
        xs = [penalties.index(pair["l1"]) + 0.2 * (i - (len(scores) - 1) / 2) for pair in mine]
        ys = [pair["points"] for pair in mine]
        axis.plot(xs, ys, "o", color=look(i)["color"], label=score, alpha=0.8)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_xticks(range(len(penalties)), [f"{value:g}" for value in penalties])
    axis.set(title="Every pair of the sweep", xlabel="L1", ylabel="fewer dead, % of all latents")
    legend_below(drawn, axis, 4)
    return drawn


@click.command(NAME, cls=Command)
@options_of(SweepSettings)
def main(settings: SweepSettings) -> None:
    """Sweep how RkCNN mines directions, and compare every effect with noise."""
    runs, summary = study(settings)
    show(page(runs, summary, settings), runs.path, figure(summary))


if __name__ == "__main__":
    start(main)
