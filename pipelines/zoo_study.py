"""One dictionary of each wiring on a real model, plain and nested: ``docs/dictionaries.json``.

    rkstore harvest --model models/smollm2 --text valid.txt --layers 10-15 --pair mlp \\
        --hook hook_resid_post --tokens 120000 --out stores/smollm2
    python pipelines/tuned_model.py --model models/smollm2 --batch-size 4 \\
        --out models/smollm2-python
    rkstore harvest --model models/smollm2-python --paired-with stores/smollm2 --layers 15 \\
        --hook hook_resid_post --out stores/smollm2-python
    python pipelines/zoo_study.py --store stores/smollm2 --second stores/smollm2-python

``--page docs/dictionaries.md`` writes its table between the two markers of the page. Stopped, it
goes on where it was: a finished training is not repeated.
"""

import json
from pathlib import Path
from typing import Any

import click
from results import put, start

from rkstore import __version__
from rkstore.cli.options import Command
from rkstore.cli.zoo import evaluated, kinds, table, trained
from rkstore.errors import BadInput
from rkstore.evaluation.measure import Evaluation
from rkstore.evaluation.record import as_json
from rkstore.evaluation.report.tables import number
from rkstore.evaluation.report.tables import table as as_table
from rkstore.store.files import write_together
from rkstore.store.open import open_store
from rkstore.store.store import Store

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"

MAX_NORM = 10.0

# Latents in each layer of the cross-layer transcoder: six encoders and 21 decoders are enough work.
WIDTHS = {"clt": 2048}


@click.command(cls=Command)
@click.option("--store", type=Path, required=True, help="Store with the MLP pairs of the layers.")
@click.option("--second", type=Path, required=True, help="Store of the second model.")
@click.option("--layers", default="10-15", show_default=True)
@click.option("--layer", default=15, show_default=True, help="Of those that take one.")
@click.option(
    "--d-sae", default=2304, show_default=True, help="Latents; in each layer, if several."
)
@click.option("--k", default=32, show_default=True)
@click.option("--epochs", default=2.0, show_default=True)
@click.option("--batch-size", default=512, show_default=True)
@click.option("--only", multiple=True, help="Train these alone; the record keeps the others.")
@click.option("--out", default="checkpoints", show_default=True)
@click.option("--record", type=Path, default="docs/dictionaries.json", show_default=True)
@click.option("--page", type=Path, help="Page to write the table into.")
def main(
    store: Path,
    second: Path,
    layers: str,
    layer: int,
    d_sae: int,
    k: int,
    epochs: float,
    batch_size: int,
    only: tuple[str, ...],
    out: str,
    record: Path,
    page: Path | None,
) -> None:
    """Train, evaluate and record one dictionary of each wiring."""
    opened = open_store(str(store))
    steps = round(epochs * opened.rows / batch_size)
    shared = {"dictionary": "batchtopk", "k": k, "steps": steps, "batch_size": batch_size}
    # A few attention sinks besides BOS would decide every number of the residual stream.
    shared["max_norm"] = MAX_NORM
    chosen = {name: kind for name, kind in kinds(layers, layer).items() if not only or name in only}
    if not chosen:
        raise BadInput(f"--only {', '.join(only)}: choose among {', '.join(kinds(layers, layer))}")
    paths: dict[str, list[Path]] = {}
    found: dict[str, list[Evaluation]] = {}
    for name, kind in chosen.items():
        here = {**shared, "d_sae": WIDTHS.get(name, d_sae), "out": out}
        paths |= trained({name: kind}, store, second, here)
        found |= evaluated({name: kind}, paths, store, second, MAX_NORM)
    document = {
        "rkstore": __version__,
        "store": _store(opened),
        "second": _store(open_store(str(second))),
        "layers": layers,
        "layer": layer,
        "shared": {**shared, "epochs": epochs, "d_sae": d_sae, "widths": WIDTHS},
        "dictionaries": {
            name: [result.as_dict() for result in results] for name, results in found.items()
        },
    }
    if only and record.exists():
        document = _with_others(json.loads(record.read_text("utf-8")), document)
    write_together({record: as_json(document)})
    click.echo(table(chosen, found))
    if page:
        fill(page, document)


def _with_others(known: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The record on disk with some dictionaries made again, by the version that is said.

    Raises:
        BadInput: the others were trained in another way.
    """
    for key in ("layers", "layer", "shared"):
        if known[key] != document[key]:
            raise BadInput(
                f"--only: {key} of the record is {known[key]}, here {document[key]}: leave out "
                "--only, or give another --record"
            )
    again = known.get("again", {}) | dict.fromkeys(document["dictionaries"], __version__)
    return known | {
        "dictionaries": known["dictionaries"] | document["dictionaries"],
        "again": again,
    }


def _store(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    return {
        "fingerprint": manifest.fingerprint,
        "rows": store.rows,
        "codec": manifest.codec,
        "model": manifest.source.get("model"),
        "text": manifest.source.get("text"),
    }


def measured(document: dict[str, Any]) -> str:
    """The table of the page, from the record."""
    titles = kinds(document["layers"], document["layer"])
    head = ["dictionary", "latents", "L0", "FVU", "dead", "FVU of the first eighth"]
    rows = []
    for name, results in document["dictionaries"].items():
        for form, result in zip(("", ", nested"), results, strict=True):
            first = result["of_prefix"][0]["fvu"] if form else None
            rows.append(
                [
                    titles[name].title + form,
                    f"{result['d_sae']:,}",
                    number(result["l0"], ".1f"),
                    number(result["fvu"], ".3f"),
                    number(100 * result["dead_share"], ".1f") + " %",
                    number(first, ".3f"),
                ]
            )
    return as_table(head, rows)


def fill(page: Path, document: dict[str, Any]) -> None:
    """Write the table between the markers of the page."""
    put(page, BEGIN, END, measured(document))


if __name__ == "__main__":
    start(main)
