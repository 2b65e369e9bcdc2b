"""Phase 2: one layer, a sparse autoencoder initialised as usual against RkCNN directions.

    python pipelines/phase2_gpt2.py --config configs/phase2_gpt2.yaml
    python pipelines/phase2_gpt2.py --dry-run    # a minute, without a network

The arms of a seed differ only in their initialisation. ``datapoint`` is between the two: all that
RkCNN's initialisation does except choosing directions. After an interruption, the same command
continues where it stopped.
"""

from pathlib import Path
from typing import Any

import click
from arms import (
    ArmSettings,
    directory,
    noise_line,
    run_missing,
    spread,
    summarise,
    the_store,
    typed,
)
from published import PHASE2, PHASE2_FAULTS, notes, record
from results import show, start

from rkstore.cli.options import Command, options_of
from rkstore.errors import BadInput
from rkstore.evaluation.record import Row, Runs
from rkstore.evaluation.report.figures import (
    draw_curve,
    legend_below,
    logarithmic,
    look,
    panels,
    whole,
)
from rkstore.evaluation.report.tables import table
from rkstore.harvest.text.python import PYTHON_CORPUS
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
    """All runs, those that are missing made now, and their summary."""
    store = the_store(settings, str(settings.layer))
    runs = run_missing(settings, NAME, store, [settings.layer])
    summary = summarise(
        runs.rows, settings.arms, lambda pairs: {"criteria": [criteria(*pair) for pair in pairs]}
    )
    runs.write(summary=summary, published=record(PHASE2_FAULTS, arms=PHASE2))
    return runs, summary


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
    """The runs, their summary, and what was published."""
    head = ["run", "seed", "dead", "of latents", "of mined", "of others", "L0", "explained", "MSE"]
    rows = [_cells(row) for row in runs.rows]
    for init, row in PHASE2.items():
        dead = f"{row['dead']:.0f} ({row['dead'] / row['d_sae']:.2%})"
        numbers = [f"{row['l0']:.1f}", f"{row['explained']:.4f}", f"{row['mse']:.4g}"]
        rows.append([f"published {init}", "42", dead, f"{row['d_sae']:.0f}", "-", "-", *numbers])
    window = f"Dead: fired on none of {runs.rows[0]['rows']:,} held-out tokens."
    compared = [_compared(found) for found in summary["compared"]]
    lines = [table(head, rows), "", window, "", *compared, noise_line(summary)]
    return "\n".join([*lines, *notes(PHASE2_FAULTS)])


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
    but = f" (not: {'; '.join(broken)})" if broken else ""
    return (
        f"{found['arm']} less {found['against']}: dead {spread(found['dead'], '+.1f')}, explained "
        f"{spread(found['explained'], '+.4f')}; the published conditions hold in {sum(held)} of "
        f"{len(held)} pairs{but}."
    )


def figure(runs: Runs, settings: Phase2Settings) -> Any:
    """How the arms trained, and what they score on held-out rows, each seed a point."""
    drawn, axes = panels(11, 4, 3)
    for i, arm in enumerate(settings.arms):
        rows = runs.find(init=arm)
        for row in rows:
            named = {"label": arm} if row is rows[0] else {}
            steps, fvu = (row["history"][key] for key in ("step", "fvu"))
            draw_curve(axes[0], steps, fvu, linewidth=1, **named, **look(i))
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
    legend_below(drawn, axes[0], 4)
    drawn.suptitle(runs.rows[0]["hook_name"])
    return drawn


@click.command(NAME, cls=Command)
@click.option("--dry-run", is_flag=True, help="Try everything on the demo model, in a minute.")
@options_of(Phase2Settings)
def main(settings: Phase2Settings, dry_run: bool) -> None:
    """Compare initialisations on one layer: harvest, train in pairs, measure."""
    settings = dry(settings) if dry_run else settings
    runs, summary = study(settings)
    show(page(runs, summary), runs.path, figure(runs, settings))


if __name__ == "__main__":
    start(main)
