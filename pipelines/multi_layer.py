"""All layers: does a dictionary begun from RkCNN directions have fewer dead latents in each?

    python pipelines/multi_layer.py --config configs/multi_layer.yaml

One store holds all layers. The arms of a layer and seed are trained on one reading of it, the
same rows in the same order. Run again after an interruption, the same command goes on with
the layers that are missing.
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
    improvement,
    noise,
    run_arms,
    spread,
    the_store,
)
from published import MULTI_LAYER, MULTI_LAYER_D_SAE, MULTI_LAYER_FAULTS, SOURCE
from results import Row, Runs, start, table, write_together
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.evaluation.report.figures import look, png, whole
from rkstore.settings import option
from rkstore.training.sites import layers_of

NAME = "multi_layer"


class MultiLayerSettings(ArmSettings):
    """Several layers of one model."""

    layers: str = option("all", "Blocks: 'all', or a list such as 0-3,8.")
    steps: int = option(5000, "Batches to train on.", least=1)
    keep: bool = option(False, "Keep the dictionaries once they are measured.")
    out: str = directory(f"results/{NAME}")


def study(settings: MultiLayerSettings) -> tuple[Runs, Row]:
    """Make the runs that are not recorded yet; return all, and what they come to."""
    store = the_store(settings, settings.layers)
    layers = layers_of(store, settings.layers, settings.hook)
    runs = Runs(Path(settings.out) / f"{NAME}.json", identity(settings, store))
    wanted = [(layer, seed) for seed in settings.all_seeds for layer in layers]
    for layer, seed in tqdm(wanted, desc="layers", unit="layer", disable=None):
        if not runs.find(layer=layer, seed=seed):
            runs.add(run_arms(arms_of(settings, store, layer, seed), store, settings.keep))
    summary = summarise(runs.rows, settings.arms)
    published = {
        str(layer): {
            "d_sae": MULTI_LAYER_D_SAE,
            "dead": row.dead,
            "l0": row.l0,
            "explained_variance": row.explained,
        }
        for layer, row in enumerate(MULTI_LAYER)
    }
    runs.write(
        summary=summary,
        published={"source": SOURCE, "layers": published, "faults": MULTI_LAYER_FAULTS},
    )
    return runs, summary


def summarise(rows: list[Row], arms: tuple[str, ...]) -> Row:
    """Each arm against those before it, and what another seed changes."""
    compared = [compare(rows, arm, other) for other, arm in itertools.combinations(arms, 2)]
    keys = ("dead", "explained_variance")
    noises = {key: noise(rows, arms[0], key) for key in keys}
    return {"compared": compared, "baseline": arms[0], "noise": noises}


def compare(rows: list[Row], arm: str, against: str) -> Row:
    """All pairs of two arms; ``percent``, as published, is of the dead of ``against``."""
    of_pair = {(row["layer"], row["seed"], row["init"]): row for row in rows}
    dead = differences(rows, arm, against, "dead")
    return {
        "arm": arm,
        "against": against,
        "dead": dead,
        "explained": differences(rows, arm, against, "explained_variance"),
        "fewer": sum(difference < 0 for difference in dead),
        "more": sum(difference > 0 for difference in dead),
        "percent": [
            {"layer": layer, "seed": seed, "value": improvement(base, row)}
            for (layer, seed, init), row in of_pair.items()
            if init == arm and (base := of_pair.get((layer, seed, against)))
        ],
    }


def page(runs: Runs, summary: Row, settings: MultiLayerSettings) -> str:
    """Layer by layer beside what was published, and what it comes to."""
    head = ["layer", *(f"dead {arm}" for arm in settings.arms)]
    head += [
        *(f"EV {arm}" for arm in settings.arms),
        *("published " + x for x in ("dead", "L0", "EV")),
    ]
    layers = list(dict.fromkeys(row["layer"] for row in runs.rows))
    rows = [_cells(runs, layer, settings.arms) for layer in sorted(layers)]
    lines = [table(head, rows), ""]
    lines.append(
        f"Dead of {runs.rows[0]['d_sae']:,} latents on {runs.rows[0]['rows']:,} held-out tokens; "
        f"published: baseline → RkCNN, of {MULTI_LAYER_D_SAE:,}, on 10,000 tokens."
    )
    lines += [_compared(found) for found in summary["compared"]]
    sd = summary["noise"]["dead"]
    lines.append(
        "One seed only: nothing is known of what another would change (--seeds)."
        if sd is None
        else f"Between seeds of a layer, {summary['baseline']} varies by {sd:.1f} dead (SD)."
    )
    faults = [f"- {fault}" for fault in MULTI_LAYER_FAULTS]
    return "\n".join([*lines, "", f"Published: {SOURCE}.", *faults])


def _compared(found: Row) -> str:
    percent = [row["value"] for row in found["percent"] if row["value"] is not None]
    # Per cent of no dead latents there are none.
    told = f" ({spread(percent, '+.2f')} % fewer)" if len(percent) == len(found["dead"]) else ""
    return (
        f"{found['arm']} less {found['against']}: dead {spread(found['dead'], '+.1f')}{told}, "
        f"fewer in {found['fewer']} of {len(found['dead'])} pairs and more in {found['more']}; "
        f"explained {spread(found['explained'], '+.4f')}."
    )


def _cells(runs: Runs, layer: int, arms: tuple[str, ...]) -> list[str]:
    by_arm = [runs.find(layer=layer, init=arm) for arm in arms]
    cells = [str(layer)]
    cells += [f"{_mean(rows, 'dead'):.0f} ({_mean(rows, 'dead_share'):.1%})" for rows in by_arm]
    cells += [f"{_mean(rows, 'explained_variance'):.4f}" for rows in by_arm]
    if layer >= len(MULTI_LAYER):
        return [*cells, "-", "-", "-"]
    known = MULTI_LAYER[layer]
    dead, l0, explained = (f"{a} → {b}" for a, b in (known.dead, known.l0, known.explained))
    return [*cells, dead, l0, explained]


def _mean(rows: list[Row], key: str) -> float:
    return float(sum(row[key] for row in rows) / len(rows))


def figure(runs: Runs, settings: MultiLayerSettings) -> Any:
    """Dead latents and explained variance by layer, and the published ones in grey."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 4), layout="constrained")
    axes: Any = drawn.subplots(1, 2)
    layers = sorted({row["layer"] for row in runs.rows})
    known = [(layer, MULTI_LAYER[layer]) for layer in layers if layer < len(MULTI_LAYER)]
    for i, style in enumerate(("o-", "o--")):
        label = f"published {('baseline', 'RkCNN')[i]}"
        faint = {"color": "grey", "linewidth": 0.8, "markersize": 3, "label": label}
        xs = [layer for layer, _ in known]
        axes[0].plot(
            xs, [100 * row.dead[i] / MULTI_LAYER_D_SAE for _, row in known], style, **faint
        )
        axes[1].plot(xs, [row.explained[i] for _, row in known], style, **faint)
    for i, arm in enumerate(settings.arms):
        rows = [runs.find(layer=layer, init=arm) for layer in layers]
        for axis, key, factor in ((axes[0], "dead_share", 100), (axes[1], "explained_variance", 1)):
            values = [factor * _mean(found, key) for found in rows]
            axis.plot(layers, values, marker="o", markersize=4, label=arm, **look(i))
    axes[0].set(title="Dead latents, held out (lower is better)", xlabel="layer", ylabel="%")
    axes[1].set(title="Explained variance, held out", xlabel="layer")
    for axis in axes:
        whole(axis, 12)
        axis.spines[["top", "right"]].set_visible(False)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return drawn


@click.command(NAME, cls=Command)
@options_of(MultiLayerSettings)
def main(settings: MultiLayerSettings) -> None:
    """Compare initialisations in every layer, from one store."""
    runs, summary = study(settings)
    path = Path(settings.out) / f"{NAME}.png"
    write_together({path: png(figure(runs, settings))})
    click.echo(page(runs, summary, settings))
    click.echo(f"\n{runs.path}\n{path}")


if __name__ == "__main__":
    start(main)
