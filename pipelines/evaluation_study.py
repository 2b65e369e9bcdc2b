"""What a real model loses with one dictionary of each wiring in it: ``docs/evaluation.json``.

    python pipelines/zoo_study.py --store stores/smollm2 --second stores/smollm2-python
    python pipelines/evaluation_study.py --store stores/smollm2 --second stores/smollm2-python \\
        --model models/smollm2 --second-model models/smollm2-python

The dictionaries are those that ``zoo_study.py`` trained. ``--page`` writes the table between the
two markers of the page. Stopped, it goes on where it was: what is in the record is not measured
again.

The text of these stores is one document, so intervals are by held-out chunk: 512 rows each, 4,608
rows apart.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from results import put, start
from zoo_study import MAX_NORM

from rkstore import __version__
from rkstore.cli.options import Command
from rkstore.cli.zoo import Kind, kinds
from rkstore.errors import BadInput
from rkstore.evaluation.functional import Functional
from rkstore.evaluation.record import as_json
from rkstore.evaluation.report.tables import table as as_table
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.store.files import write_together
from rkstore.store.open import open_store
from rkstore.store.sites import briefly

BEGIN, END = "<!-- measured with the model -->", "<!-- end of measured with the model -->"

# Those measured together share their ablations, and go into the record together.
TOGETHER = (
    ("sae",),
    ("transcoder", "skip-transcoder"),
    ("per-layer", "clt"),
    ("crosscoder",),
    ("diff", "dfc"),
)


@click.command(cls=Command)
@click.option("--store", type=Path, required=True, help="Store that the dictionaries are of.")
@click.option("--second", type=Path, required=True, help="Store of the second model.")
@click.option("--model", required=True, help="Model of the store.")
@click.option("--second-model", required=True, help="Model of the second store.")
@click.option("--layers", default="10-15", show_default=True)
@click.option("--layer", default=15, show_default=True, help="Of those that take one.")
@click.option("--blocks", default=23, show_default=True, help="Held-out blocks to run.")
@click.option("--steer", default=20, show_default=True, help="Latents added to two models; or 0.")
@click.option("--only", multiple=True, help="Measure these again; the record keeps the others.")
@click.option("--checkpoints", type=Path, default=Path("checkpoints"), show_default=True)
@click.option("--out", type=Path, default="docs/evaluation.json", show_default=True)
@click.option("--page", type=Path, help="Page to write the table into.")
def main(
    store: Path,
    second: Path,
    model: str,
    second_model: str,
    layers: str,
    layer: int,
    blocks: int,
    steer: int,
    only: tuple[str, ...],
    checkpoints: Path,
    out: Path,
    page: Path | None,
) -> None:
    """Measure one dictionary of each wiring in its model, and record it."""
    chosen = kinds(layers, layer)
    if unknown := set(only) - set(chosen):
        raise BadInput(f"--only {', '.join(sorted(unknown))}: choose among {', '.join(chosen)}")
    identity = {
        "store": open_store(str(store)).manifest.fingerprint,
        "second": open_store(str(second)).manifest.fingerprint,
        "layers": layers,
        "layer": layer,
        "blocks": blocks,
        "max_norm": MAX_NORM,
        "intervals": "by held-out chunk",
    }
    document = _known(out, identity)
    found = document["dictionaries"]
    for group in TOGETHER:
        names = [name for name in group if name in only or (not only and name not in found)]
        if not names:
            continue
        paths = {name: _checkpoint(checkpoints, name) for name in names}
        two = chosen[names[0]].two_models
        settings = EvaluateSettings(
            store=str(store),
            paired_with=str(second) if two else None,
            model=(model, second_model) if two else (model,),
            max_norm=MAX_NORM,
            blocks=blocks,
            each_site=False,
            steer=steer if two and steer else None,
        )
        functional = Functional(paths.values(), settings, by=_chunk)
        for name, result in zip(names, functional.run(), strict=True):
            found[name] = result.as_dict() | {"rkstore": __version__}
            del found[name]["path"]
        write_together({out: as_json(document)})
    click.echo(measured(document))
    if page:
        fill(page, document)


def _chunk(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chunk of each row, for chunks of 512."""
    return rows // 512


def _known(record: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The record on disk, or an empty one.

    Raises:
        BadInput: it was measured in another way.
    """
    if not record.exists():
        return {**identity, "dictionaries": {}}
    document: dict[str, Any] = json.loads(record.read_text("utf-8"))
    for key, value in identity.items():
        if document.get(key) != value:
            raise BadInput(
                f"{key} of {record} is {document.get(key)}, here {value}: give another --out"
            )
    return document


def _checkpoint(root: Path, name: str) -> Path:
    """The plain dictionary of that name."""
    there = sorted(root.rglob(f"{name}-plain_*"))
    if len(there) != 1:
        raise BadInput(
            f"{root} holds {len(there)} checkpoints {name}-plain_STEP, not one: make them with "
            "pipelines/zoo_study.py"
        )
    return there[0]


def measured(document: Mapping[str, Any]) -> str:
    """The table of the page, from the record: every site of a dictionary at once."""
    titles = kinds(document["layers"], document["layer"])
    head = ["dictionary", "in place of", "ΔCE", "of random", "of the mean", "of zeros"]
    head += ["recovered", "from the mean", "KL", "agreement", "of random", "of the mean"]
    rows = [
        [titles[name].title, *row]
        for name in titles
        if name in document["dictionaries"]
        for row in _rows(document["dictionaries"][name], titles[name])
    ]
    return as_table(head, rows) + "".join(
        f"\n\n{_steered(titles[name].title, result['steering'])}"
        for name, result in document["dictionaries"].items()
        if result["steering"]
    )


def _steered(title: str, groups: Sequence[Mapping[str, Any]]) -> str:
    """What the latents of a dictionary of two models do when they are added."""
    models = ("base", "chat")
    head = [f"added, of {title}", "latents", *(f"KL in {name}" for name in models)]
    head += [f"carried over from {name}" for name in models]
    rows = [
        [
            group["group"],
            str(group["latents"]),
            *(_interval(group["moved"].get(name), ".4f") for name in models),
            *(_interval(group["carried"].get(name), ".3f") for name in models),
        ]
        for group in groups
    ]
    return as_table(head, rows)


def _rows(result: Mapping[str, Any], kind: Kind) -> Iterator[list[str]]:
    """One row, or one for each of two models."""
    splices = result["splices"] if kind.two_models else result["splices"][-1:]
    for splice in splices:
        spliced, random, zero, mean = (
            splice["passes"][name] for name in ("spliced", "random", "zero", "mean")
        )
        alone = len(splice["sites"]) == 1
        yield [
            briefly(splice["sites"]) + ("" if alone or splice["feedback"] else " *"),
            _interval(spliced["increase"], ".3f"),
            *(_value(one["increase"], ".2f") for one in (random, mean, zero)),
            _interval(spliced["recovered_from_zero"], ".3f"),
            _interval(spliced["recovered_from_mean"], ".3f"),
            _interval(spliced["kl"], ".3f"),
            _interval(spliced["agreement"], ".3f"),
            *(_value(one["agreement"], ".3f") for one in (random, mean)),
        ]


def _value(estimate: Mapping[str, float] | None, form: str) -> str:
    return "-" if estimate is None else format(estimate["value"], f"z{form}")


def _interval(estimate: Mapping[str, float | None] | None, form: str) -> str:
    """Half of the width of the interval behind ±: it is symmetric."""
    if estimate is None or estimate["high"] is None or estimate["value"] is None:
        return "-" if estimate is None else format(estimate["value"], f"z{form}")
    return f"{estimate['value']:{form}} ± {estimate['high'] - estimate['value']:{form}}"


def fill(page: Path, document: Mapping[str, Any]) -> None:
    """Write the table between the markers of the page."""
    put(page, BEGIN, END, measured(document))


if __name__ == "__main__":
    start(main)
