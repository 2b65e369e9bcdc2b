"""All layers: does a dictionary initialised with RkCNN directions have fewer dead latents?

    python pipelines/multi_layer.py --config configs/multi_layer.yaml

One store holds all layers. The arms of a layer and seed are trained on one reading of it, the
same rows in the same order. After an interruption, the same command continues with the layers
that are missing.
"""

from typing import Any

import click
from arms import ArmSettings, directory, noise_line, run_missing, spread, summarise, the_store
from published import MULTI_LAYER, MULTI_LAYER_D_SAE, MULTI_LAYER_FAULTS, notes, record
from results import show, start

from rkstore.cli.options import Command, options_of
from rkstore.evaluation.paired import improvement
from rkstore.evaluation.record import Row, Runs
from rkstore.evaluation.report.figures import legend_below, look, panels, whole
from rkstore.evaluation.report.tables import table
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
    """All runs, those that are missing made now, and their summary."""
    store = the_store(settings, settings.layers)
    layers = layers_of(store, settings.layers, settings.hook)
    runs = run_missing(settings, NAME, store, layers)
    summary = summarise(runs.rows, settings.arms, counted)
    published = {
        str(layer): {
            "d_sae": MULTI_LAYER_D_SAE,
            "dead": row.dead,
            "l0": row.l0,
            "explained_variance": row.explained,
        }
        for layer, row in enumerate(MULTI_LAYER)
    }
    runs.write(summary=summary, published=record(MULTI_LAYER_FAULTS, layers=published))
    return runs, summary


def counted(pairs: list[tuple[Row, Row]]) -> Row:
    """In how many pairs an arm has fewer dead latents; ``percent`` is that of the other arm."""
    return {
        "fewer": sum(row["dead"] < base["dead"] for base, row in pairs),
        "more": sum(row["dead"] > base["dead"] for base, row in pairs),
        "percent": [
            {"layer": row["layer"], "seed": row["seed"], "value": improvement(base, row)}
            for base, row in pairs
        ],
    }


def page(runs: Runs, summary: Row, settings: MultiLayerSettings) -> str:
    """Layer by layer beside what was published, and the summary."""
    head = ["layer", *(f"{key} {arm}" for key in ("dead", "EV") for arm in settings.arms)]
    head += [f"published {key}" for key in ("dead", "L0", "EV")]
    layers = sorted({row["layer"] for row in runs.rows})
    one = runs.rows[0]
    lines = [
        table(head, [_cells(runs, layer, settings.arms) for layer in layers]),
        "",
        f"Dead of {one['d_sae']:,} latents on {one['rows']:,} held-out tokens; "
        f"published: baseline → RkCNN, of {MULTI_LAYER_D_SAE:,}, on 10,000 tokens.",
        *(_compared(found) for found in summary["compared"]),
        noise_line(summary),
    ]
    return "\n".join([*lines, *notes(MULTI_LAYER_FAULTS)])


def _compared(found: Row) -> str:
    percent = [row["value"] for row in found["percent"] if row["value"] is not None]
    # There is no percentage where the other has no dead latents.
    share = f" ({spread(percent, '+.2f')} % fewer)" if len(percent) == len(found["dead"]) else ""
    return (
        f"{found['arm']} less {found['against']}: dead {spread(found['dead'], '+.1f')}{share}, "
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
    drawn, axes = panels(11, 4, 2)
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
    legend_below(drawn, axes[0], 5)
    return drawn


@click.command(NAME, cls=Command)
@options_of(MultiLayerSettings)
def main(settings: MultiLayerSettings) -> None:
    """Compare initialisations in every layer, from one store."""
    runs, summary = study(settings)
    show(page(runs, summary, settings), runs.path, figure(runs, settings))


if __name__ == "__main__":
    start(main)
