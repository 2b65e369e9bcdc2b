"""Tune a copy of a model on Python source: the second model of crosscoders.

    python pipelines/tuned_model.py --model models/smollm2 --out models/smollm2-python --steps 60

The text is that of the standard library (``rkstore/harvest/text/python.py``), in an order that
depends on the seed. ``tuned.json`` beside the weights says what was done, and the loss on held-out
blocks before and after.
"""

import json
from pathlib import Path

import click
import numpy as np
from results import start

from rkstore.cli.options import Command
from rkstore.harvest.text.python import python_documents
from rkstore.harvest.tuned import tune


@click.command(cls=Command)
@click.option("--model", required=True, help="A directory, a name on the Hub, or demo.")
@click.option("--out", type=Path, required=True, help="Directory for the copy.")
@click.option("--steps", default=60, show_default=True)
@click.option("--batch-size", default=8, show_default=True, help="Blocks of --context-size tokens.")
@click.option("--context-size", default=128, show_default=True)
@click.option("--lr", default=1e-4, show_default=True)
@click.option("--documents", default=300, show_default=True, help="Source files to take.")
@click.option("--seed", default=0, show_default=True)
def main(model: str, out: Path, documents: int, seed: int, **options: float) -> None:
    """Tune a copy of MODEL on Python source and write it to OUT."""
    texts = [text for name, text in python_documents() if name.startswith("lib/")]
    order = np.random.default_rng(seed).permutation(len(texts))[:documents]
    record = tune(model, [texts[i] for i in order], out, seed=seed, **options)  # type: ignore[arg-type]
    click.echo(json.dumps(record, indent=1, allow_nan=False))


if __name__ == "__main__":
    start(main)
