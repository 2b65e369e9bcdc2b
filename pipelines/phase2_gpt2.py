"""Phase 2: one layer, a usual sparse autoencoder against one begun from RkCNN directions.

    python pipelines/phase2_gpt2.py --config configs/phase2_gpt2.yaml
    python pipelines/phase2_gpt2.py --dry-run    # a minute, without a network

The arms of a seed differ in nothing but how they begin. ``datapoint`` stands between the two: what
RkCNN's initialisation does besides choosing directions. Run again after an interruption, the
same command goes on where it stopped.
"""

import itertools
from pathlib import Path
from typing import Any

import click
from arms import (
    ArmSettings,
    arms_of,
    differences,
    directory,
    identity,
    noise,
    run_arms,
    spread,
    the_store,
    typed,
)
from published import PHASE2, PHASE2_FAULTS, SOURCE
from results import Row, Runs, start, table, write_together
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.errors import BadInput
from rkstore.evaluation.report.figures import draw_curve, logarithmic, look, png, whole
from rkstore.harvest.text.open import PYTHON_CORPUS
from rkstore.settings import option, replace

NAME = "phase2_gpt2"


class Phase2Settings(ArmSettings):
    """One layer of one model."""

    layer: int = option(8, "Transformer block.", least=0)
    steps: int = option(10_000, "Batches to train on.", least=1)
    out: str = directory(f"results/{NAME}")


# A small model, few rows and few steps.
DRY: Row = {
    "store": None,
    "model": "demo",
    "dataset": PYTHON_CORPUS,
    "dataset_config": None,
    "text": (),
    "tokens": 2048,
    "d_sae": 256,
    "steps": 100,
    "warmup": 5,
    "seeds": 1,
}


def dry(settings: Phase2Settings) -> Phase2Settings:
    """The same in a minute: does everything work?

    Raises:
        BadInput: one of ``DRY`` is on the command line.
    """
    if unused := typed(DRY):
        raise BadInput(f"--dry-run has its own {unused[0]}: leave one of them out")
    return replace(settings, **DRY, out=str(Path(settings.out) / "dry_run"))


def study(settings: Phase2Settings) -> tuple[Runs, Row]:
    """Make the runs that are not recorded yet; return all, and what they come to."""
    store = the_store(settings, str(settings.layer))
    runs = Runs(Path(settings.out) / f"{NAME}.json", identity(settings, store))
    for seed in tqdm(settings.all_seeds, desc="phase 2", unit="seed", disable=None):
        if not runs.find(seed=seed):
            runs.add(run_arms(arms_of(settings, store, settings.layer, seed), store, settings.keep))
    summary = summarise(runs.rows, settings.arms)
    runs.write(
        summary=summary, published={"source": SOURCE, "arms": PHASE2, "faults": PHASE2_FAULTS}
    )
    return runs, summary


def summarise(rows: list[Row], arms: tuple[str, ...]) -> Row:
    """Each arm against those before it, pair by pair, and what another seed changes."""
    by_seed = {(row["seed"], row["init"]): row for row in rows}
    seeds = dict.fromkeys(row["seed"] for row in rows)
    compared = [
        {
            "arm": arm,
            "against": other,
            "dead": differences(rows, arm, other, "dead"),
            "explained": differences(rows, arm, other, "explained_variance"),
            "criteria": [criteria(by_seed[seed, other], by_seed[seed, arm]) for seed in seeds],
        }
        for other, arm in itertools.combinations(arms, 2)
    ]
    keys = ("dead", "explained_variance")
    noises = {key: noise(rows, arms[0], key) for key in keys}
    return {"compared": compared, "baseline": arms[0], "noise": noises}


def criteria(baseline: Row, arm: Row) -> dict[str, bool]:
    """The published conditions on one pair, with errors that compare a row with itself."""
    return {
        "fewer dead, or baseline below 5 %": arm["dead"] < baseline["dead"]
        or baseline["dead_share"] < 0.05,
        "dead below 20 %": arm["dead_share"] < 0.2,
        "L0 at most 1.1 times": arm["l0"] <= 1.1 * baseline["l0"],
        "MSE at most 1.1 times": arm["mse"] <= 1.1 * baseline["mse"],
    }


def page(runs: Runs, summary: Row) -> str:
    """The runs, what they come to, and what was published."""
    head = ["run", "seed", "dead", "of latents", "of mined", "of others", "L0", "explained", "MSE"]
    rows = [_cells(row) for row in runs.rows]
    for init, row in PHASE2.items():
        dead = f"{row['dead']:.0f} ({row['dead'] / row['d_sae']:.2%})"
        numbers = [f"{row['l0']:.1f}", f"{row['explained']:.4f}", f"{row['mse']:.4g}"]
        rows.append([f"published {init}", "42", dead, f"{row['d_sae']:.0f}", "-", "-", *numbers])
    held_out = f"{runs.rows[0]['rows']:,}"
    lines = [table(head, rows), "", f"Dead: fired on none of {held_out} held-out tokens.", ""]
    lines += [_compared(found) for found in summary["compared"]]
    sd = summary["noise"]["dead"]
    lines.append(
        "One seed only: nothing is known of what another would change (--seeds)."
        if sd is None
        else f"Between seeds, {summary['baseline']} varies by {sd:.1f} dead latents (SD)."
    )
    return "\n".join([*lines, "", f"Published: {SOURCE}.", *(f"- {f}" for f in PHASE2_FAULTS)])


def _cells(row: Row) -> list[str]:
    mined = f"{row['dead_mined']} of {row['mined']}" if row["mined"] else "-"
    others = f"{row['dead_others']} of {row['d_sae'] - row['mined']}"
    return [
        row["init"],
        str(row["seed"]),
        f"{row['dead']} ({row['dead_share']:.2%})",
        str(row["d_sae"]),
        mined,
        others,
        f"{row['l0']:.1f}",
        f"{row['explained_variance']:.4f}",
        f"{row['mse']:.4g}",
    ]


def _compared(found: Row) -> str:
    held = [all(pair.values()) for pair in found["criteria"]]
    broken = sorted({name for pair in found["criteria"] for name, ok in pair.items() if not ok})
    told = f" (not: {'; '.join(broken)})" if broken else ""
    return (
        f"{found['arm']} less {found['against']}: dead {spread(found['dead'], '+.1f')}, explained "
        f"{spread(found['explained'], '+.4f')}; the published conditions hold in {sum(held)} of "
        f"{len(held)} pairs{told}."
    )


def figure(runs: Runs, settings: Phase2Settings) -> Any:
    """How the arms trained, and what they score on held-out rows, each seed a point."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 4), layout="constrained")
    axes: Any = drawn.subplots(1, 3)
    for i, arm in enumerate(settings.arms):
        rows = runs.find(init=arm)
        for row in rows:
            told = {"label": arm, "linewidth": 1} if row is rows[0] else {"linewidth": 1}
            draw_curve(axes[0], row["history"]["step"], row["history"]["fvu"], **told, **look(i))
        color = look(i)["color"]
        axes[1].plot([100 * row["dead_share"] for row in rows], [i] * len(rows), "o", color=color)
        axes[2].plot([row["explained_variance"] for row in rows], [i] * len(rows), "o", color=color)
    axes[0].set(title="Training", xlabel="step", ylabel="FVU of the batch")
    axes[0].set_xlim(left=0)
    whole(axes[0])
    logarithmic(axes[0])
    most = max(100 * row["dead_share"] for row in runs.rows) or 1
    axes[1].set_xlim(-0.05 * most, 1.05 * most)
    axes[1].set_title("Dead latents, held out, %")
    axes[1].set_yticks(range(len(settings.arms)), settings.arms)
    axes[2].set_title("Explained variance, held out")
    axes[2].set_yticks(range(len(settings.arms)), [""] * len(settings.arms))
    for axis in axes[1:]:
        axis.set_ylim(len(settings.arms) - 0.5, -0.5)
        axis.locator_params(axis="x", nbins=4)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    drawn.suptitle(runs.rows[0]["hook_name"])
    return drawn


@click.command(NAME, cls=Command)
@click.option("--dry-run", is_flag=True, help="Try everything on the demo model, in a minute.")
@options_of(Phase2Settings)
def main(settings: Phase2Settings, dry_run: bool) -> None:
    """Compare initialisations on one layer: harvest, train in pairs, measure."""
    settings = dry(settings) if dry_run else settings
    runs, summary = study(settings)
    path = Path(settings.out) / f"{NAME}.png"
    write_together({path: png(figure(runs, settings))})
    click.echo(page(runs, summary))
    click.echo(f"\n{runs.path}\n{path}")


if __name__ == "__main__":
    start(main)
