"""The study of inits in words, tables and pictures.

    python pipelines/rkcnn_page.py docs/rkcnn.json docs/rkcnn_front.json \\
        --again docs/rkcnn_again.json

writes docs/rkcnn.md, its pictures, and beside them the runs that every number comes from: all of
these, or none if one cannot be made. It takes the runs beside the page, or the files that the study
has just written: one for each weight of the penalty, and one each with and without special tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from results import start
from rkcnn_results import (
    ARMS,
    BASELINE,
    BEST,
    Results,
    difference,
    layers_figure,
    layers_table,
    look,
    means_table,
    pairs_table,
    side,
    tally,
    windows_table,
)
from rkcnn_study import ARMS as STUDY_ARMS

from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.paired import (
    Paired,
    compare,
    coverage,
    deviation,
)
from rkstore.evaluation.record import Row, compact, grouped
from rkstore.evaluation.report import pages
from rkstore.evaluation.report.figures import logarithmic, panels, png
from rkstore.evaluation.report.tables import table
from rkstore.store.files import write_together

# The text of the page; the runs fill its braces.
TEMPLATE = Path(__file__).with_suffix(".md")

FRONT_WINDOW = "100000"

# When a layer was run: for the study, and again.
WHEN = ("0.1", "now")


def page(document: Row, front: Row, again: Row) -> str:
    """docs/rkcnn.md."""
    found = Results(document)
    settings = found.settings
    longest = str(max(found.windows))
    train, held_out = (settings[f"{part}_rows"] for part in ("store", "held_out"))
    chosen = ("d_in", "d_sae", "k", "steps", "batch_size", "lr", "warmup")
    return pages.page(
        TEMPLATE,
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
        arms="\n".join(f"| {name} | {STUDY_ARMS[name].what} |" for name in ARMS),
        dead=means_table(found, longest, ".0f"),
        fvu=means_table(found, "fvu", ".3f"),
        windows=windows_table(found),
        best=layers_table(found, longest),
        pairs=pairs_table(found, longest),
        front=_front_table(front),
        front_seeds=len({run["seed"] for run in front["runs"]}),
        front_window=f"{int(FRONT_WINDOW):,}",
        **_numbers(found, longest),
        **_again(document, again, longest),
    )


def side_by_side(document: Row, again: Row, *, special_tokens: bool) -> dict[str, Results]:
    """The layer that was run again, before and now: the arms and seeds that both have.

    Args:
        special_tokens: whether to take the new runs with the rows of special tokens.

    Raises:
        BadInput: there are none, or they are of more than one layer.
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
    """The words and numbers of the section on the layer that was run again."""
    all_rows, kept = (
        side_by_side(document, again, special_tokens=special) for special in (True, False)
    )
    now = kept[WHEN[1]]
    first, stop = again["settings"]["held_out_rows"]
    [left_out] = {run["left_out"] for run in again["runs"] if not run["special_tokens"]}
    codec, changes = (_changes(both, "fvu") for both in (all_rows, kept))
    seeds = [deviation(now.values(arm, now.layers[0], "fvu")) for arm in now.arms]
    differences = [
        [found.compared(arm, against, "fvu")[0] for found in kept.values()]
        for arm, against, _ in now.known_pairs()
    ]
    numbers = {
        "again_layer": now.layers[0],
        "again_seeds": now.seeds,
        "again_arms": len(now.arms),
        "codec": document["settings"]["codec"],
        "again_codec": again["settings"]["codec"],
        "again_out": f"{left_out / (stop - first):.1%}",
        "again_means": _again_means(kept, key),
        "again_pairs": _again_pairs(kept, key),
        "codec_seeds": all_rows[WHEN[1]].seeds,
        "codec_changes": _range(codec),
        "codec_moved": sum(side(change) != 0 for change in codec),
        "again_changes": _range(changes),
        "again_moved": sum(side(change) != 0 for change in changes),
        "again_sd": f"{np.mean([sd for sd in seeds if sd is not None]):.4f}",
        "again_same": sum(side(before) == side(after) for before, after in differences),
        "again_told": len(differences),
    }
    return {name: str(number) for name, number in numbers.items()}


def _changes(both: dict[str, Results], key: str) -> list[Paired]:
    """How much more each arm has now than before, seed by seed."""
    before, now = both.values()
    [layer] = now.layers
    values = ((now.values(arm, layer, key), before.values(arm, layer, key)) for arm in now.arms)
    return [compare(np.subtract(*pair).tolist()) for pair in values]


def _range(changes: Sequence[Paired]) -> str:
    """The smallest and the largest of the means."""
    means = [change.mean for change in changes]
    return f"{min(means):+.4f} to {max(means):+.4f}"


def _numbers(found: Results, key: str) -> dict[str, str]:
    """The numbers of the text that are in no table."""
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
        "fewer": str(tally(dead)[0]),
        "tenth": str(sum(share <= 0.1 for share in shares)),
        "above": ", ".join(
            f"{layer} ({share:.0%})"
            for layer, share in zip(found.layers, shares, strict=True)
            if share > 0.1
        ),
        "less_explained": str(tally(fvu)[2]),
        "explained": str(tally(fvu)[0]),
    } | not_worse


def _again_means(both: dict[str, Results], key: str) -> str:
    """Dead latents and FVU of each arm, mean over seeds, before and now."""
    now = both[WHEN[1]]
    [layer], shortest = now.layers, str(min(now.windows))
    rows = [[arm, str(len(now.values(arm, layer, key)))] for arm in now.arms]
    for which, form in ((shortest, ".0f"), (key, ".1f"), ("fvu", ".3f")):
        for row, arm, change in zip(rows, now.arms, _changes(both, which), strict=True):
            row += [f"{found.mean(arm, layer, which):{form}}" for found in both.values()]
            row.append(difference(change, f"+{form}"))
    heads = [f"dead in {int(window):,}" for window in (shortest, key)]
    return table(["arm", "seeds", *_heads([*heads, "FVU"], "change")], rows)


def _again_pairs(both: dict[str, Results], key: str) -> str:
    """Paired differences of two arms, before and now."""
    rows = []
    for arm, against, _ in both[WHEN[1]].known_pairs():
        cells = [
            found.overall(arm, against, which, form)
            for which, form in ((key, "+.1f"), ("fvu", "+.4f"))
            for found in both.values()
        ]
        rows.append([f"{arm} − {against}", *cells])
    return table(["arms", *_heads(["dead", "FVU"])], rows)


def _heads(measured: Sequence[str], *more: str) -> list[str]:
    """Heads of columns side by side; the first of each group names what is measured."""
    before, now = WHEN
    return [head for what in measured for head in (f"{what}, {before}", now, *more)]


def _front(document: Row) -> dict[tuple[int, str], dict[float, Row]]:
    """The ReLU code: by layer and arm, the mean over seeds at each weight of the penalty."""
    points = grouped(document["runs"], lambda run: (run["layer"], run["arm"]))
    found = {}
    for layer, arm in sorted(points, key=lambda point: (point[0], ARMS.index(point[1]))):
        weights = grouped(points[layer, arm], "l1")
        rows = {l1: [run | run["dead"] for run in weights[l1]] for l1 in sorted(weights)}
        found[layer, arm] = {
            l1: {key: np.mean([run[key] for run in runs]) for key in ("l0", "fvu", FRONT_WINDOW)}
            for l1, runs in rows.items()
        }
    return found


def _front_table(front: Row) -> str:
    """Arms of the ReLU code at every weight of its penalty, mean over seeds."""
    rows = []
    for (layer, arm), means in _front(front).items():
        for l1, mean in means.items():
            cells = [f"{mean['l0']:.1f}", f"{mean['fvu']:.3f}", f"{mean[FRONT_WINDOW]:.0f}"]
            rows.append([arm, str(layer), f"{l1:g}", *cells])
    return table(["arm", "layer", "l1", "L0", "FVU", "dead"], rows)


def front_figure(front: Row) -> Any:
    """FVU against L0 of the ReLU code."""
    layers = sorted({run["layer"] for run in front["runs"]})
    drawn, axes = panels(11, 4, len(layers))
    for (layer, arm), means in _front(front).items():
        axis = axes[layers.index(layer)]
        line = [[mean[key] for mean in means.values()] for key in ("l0", "fvu")]
        axis.plot(*line, label=arm, **look(arm))
        runs = [run for run in front["runs"] if (run["layer"], run["arm"]) == (layer, arm)]
        dots = ([run[key] for run in runs] for key in ("l0", "fvu"))
        axis.scatter(*dots, s=6, alpha=0.5, color=look(arm)["color"])
    for axis, layer in zip(axes, layers, strict=True):
        axis.set(title=f"ReLU, layer {layer}", xlabel="L0", ylabel="FVU")
        logarithmic(axis, "x")
        axis.legend(frameon=False)
    return drawn


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
    """Write rkcnn.md, its pictures and its runs from the records of the study.

    STUDY has the runs with TopK, FRONTS those with ReLU: one file for each weight of the penalty,
    or one file with all.
    """
    where = Path(out).expanduser()
    front = joined([read(path) for path in fronts], "l1")
    repeated = joined([read(path) for path in again], "special_tokens")
    write_together(documents(read(study), front, repeated, where))
    click.echo(where / "rkcnn.md")


def documents(document: Row, front: Row, again: Row, out: Path) -> dict[Path, bytes]:
    """What is written, by path."""
    return {
        out / "rkcnn.json": compact(document),
        out / "rkcnn_front.json": compact(front),
        out / "rkcnn_again.json": compact(again),
        out / "rkcnn.md": page(document, front, again).encode(),
        out / "images" / "rkcnn.png": png(layers_figure(document)),
        out / "images" / "rkcnn_front.png": png(front_figure(front)),
    }


def read(path: Path) -> Row:
    """The record of rkcnn_study in a file.

    Raises:
        BadInput: the file holds something else, or no runs.
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
        raise BadInput(f"{path} has no runs yet: run rkcnn_study first")
    return document


def joined(studies: Sequence[Row], key: str) -> Row:
    """The runs of studies that differ in one setting, which is then recorded in each run.

    Studies that were joined before are left as they are.

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
        raise BadInput(f"one of the files has no single {key}: make it with rkcnn_study")
    if len(set(values)) < len(values):
        raise BadInput(f"two of the files have one {key} (of {values}): give each once")
    runs = [
        run | {key: v} for study, v in zip(studies, values, strict=True) for run in study["runs"]
    ]
    return {"settings": settings[0], "runs": runs}


if __name__ == "__main__":
    start(main)
