"""What every codec makes of the values of real models: bits, and the error of ordinary rows.

    python pipelines/codec_values.py --model demo --model smollm2=DIR --model gemma3=DIR
                                     # writes docs/codec_values.json

Each model reads the same number of tokens, the demo model Python's own documents, the others
``--text``. Ordinary rows are those with a norm of at most ten times the site's median, whatever a
codec itself takes for massive. Beside rkstore's codecs stand what int8 was in stores of schema 1
(even steps from the least to the greatest value of each dimension of a chunk), one scale for a
whole layer, as other tools store it, and the least that any code of this error could take.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numcodecs.zstd import Zstd
from tqdm import tqdm

from rkstore.cli import Command
from rkstore.codecs import CODECS
from rkstore.formats import compression_for
from rkstore.harvest import Harvest, prepare
from rkstore.jsontext import to_json
from rkstore.manifest import CHUNK_ROWS, COLUMNS, Manifest, Site, largest_divisor
from rkstore.settings import HarvestSettings
from rkstore.store import Store
from rkstore.text import PYTHON_CORPUS
from rkstore.writer import StoreWriter

HOOKS = ("hook_resid_mid", "hook_resid_post", "mlp.hook_post")
CONTEXT = 128
MASSIVE = 10


def rows_of(ready: Harvest, hook: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and float32 rows ``(tokens, d_in)`` of each site with that hook."""
    sites = ready.model.sites(hook, "all")
    pieces: dict[str, list[np.ndarray]] = {site.hook_name: [] for site in sites}
    for start in tqdm(range(0, len(ready.blocks.ids), 8), desc=hook, disable=None):
        ids = ready.blocks.ids[start : start + 8]
        for name, x in ready.model.activations(ids, sites).items():
            pieces[name].append(x)
    for name in list(pieces):
        yield name, np.concatenate(pieces.pop(name))


def stored(x: np.ndarray, codec: str) -> tuple[float, np.ndarray]:
    """Bits a value, and the values as they are read, of rows in a store of their own."""
    shard_rows = HarvestSettings().shard_rows
    manifest = Manifest(
        rows=len(x),
        context_size=CONTEXT,
        shard_rows=shard_rows,
        chunk_rows=largest_divisor(shard_rows, CHUNK_ROWS),
        codec=codec,
        format="zarr",
        compression=compression_for("zarr", CODECS[codec].dtype),
        sites=(Site("x", x.shape[1]),),
        source={},
    )
    row = np.arange(len(x))
    columns = dict.fromkeys(COLUMNS, row % CONTEXT)
    with tempfile.TemporaryDirectory() as directory:
        with StoreWriter(Path(directory) / "store", manifest) as writer:
            while writer.next_shard < manifest.shards:
                part = slice(*manifest.rows_of_shard(writer.next_shard))
                writer.write_shard({"x": x[part]}, {n: c[part] for n, c in columns.items()})
        store = Store(Path(directory) / "store")
        return 8 * store.stored_bytes("x") / x.size, store.read("x")


def from_extremes(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Int8 of schema 1: 255 steps between the extremes of each dimension of a chunk."""
    size, decoded = 0, np.empty_like(x)
    for start in range(0, len(x), CHUNK_ROWS):
        chunk = x[start : start + CHUNK_ROWS]
        least, span = chunk.min(axis=0), np.ptp(chunk, axis=0)
        scale = np.where(span > 0, span / np.float32(255), np.float32(1))
        codes = np.rint((chunk - least) / scale).clip(0, 255)
        decoded[start : start + CHUNK_ROWS] = least + codes * scale
        size += _compressed(codes.astype(np.uint8)) + least.nbytes + scale.nbytes
    return 8 * size / x.size, decoded


def one_scale(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Int8 with one symmetric scale for a whole site, from its largest absolute value."""
    scale = np.abs(x).max() / np.float32(127)
    codes = np.rint(x / scale).astype(np.int8)
    chunks = (codes[start : start + CHUNK_ROWS] for start in range(0, len(x), CHUNK_ROWS))
    return 8 * sum(map(_compressed, chunks)) / x.size, codes * scale


def least_bits(x: np.ndarray, error: float) -> float:
    """Shannon's lower bound for values of which no dimension is told from another.

    A code whose error is the share ``error`` of the variance takes at least
    ``h(x / σ) - ½ log₂(2πe · error)`` bits a value (Cover & Thomas, "Elements of Information
    Theory", §10.3), with the differential entropy ``h`` of all standardised values together,
    from a histogram of steps of 0.02.
    """
    step, deviation = 0.02, x.std(axis=0, dtype=np.float64)
    known = deviation > 0
    standard = (x[:, known] - x[:, known].mean(axis=0, dtype=np.float64)) / deviation[known]
    codes = np.rint(standard.clip(-100, 100) / step).astype(np.int64).ravel()
    counts = np.bincount(codes - codes.min())
    share = counts[counts > 0] / codes.size
    entropy = -(share * np.log2(share)).sum() + np.log2(step)
    return float(entropy - 0.5 * np.log2(2 * np.pi * np.e * error))


def measured(name: str, x: np.ndarray) -> Iterator[dict[str, Any]]:
    """One row for each way to store the rows of a site."""
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    massive = norms > MASSIVE * np.median(norms)
    ordinary = x[~massive].astype(np.float64)
    variance = np.square(ordinary - ordinary.mean(axis=0)).sum()
    ways = {codec: stored(x, codec) for codec in CODECS if codec != "float32"}
    ways |= {"int8 of schema 1": from_extremes(x), "int8, one scale": one_scale(x)}
    for way, (bits, back) in ways.items():
        error = np.square(back.astype(np.float64) - x).sum(axis=1)
        fvu = error[~massive].sum() / variance
        yield {
            "site": name,
            "codec": way,
            "bits": bits,
            "fvu": fvu,
            "massive": int(massive.sum()),
            "massive_error": error[massive].sum() / np.square(norms[massive]).sum()
            if massive.any()
            else None,
            "least_bits": least_bits(x[~massive], fvu),
        }


def _compressed(codes: np.ndarray) -> int:
    return len(Zstd(1).encode(np.ascontiguousarray(codes)))


@click.command(cls=Command)
@click.option("--model", "models", multiple=True, default=("demo",), help="NAME or NAME=DIR.")
@click.option("--text", type=click.Path(exists=True), help="What all but the demo model read.")
@click.option("--tokens", default=2048, show_default=True)
@click.option("--out", type=Path, default=Path("docs/codec_values.json"), show_default=True)
def main(models: tuple[str, ...], text: str | None, tokens: int, out: Path) -> None:
    """Store every residual site and every mlp.hook_post with every codec."""
    found = []
    for given in models:
        name, _, place = given.partition("=")
        own = name == "demo" or text is None
        ready = prepare(
            HarvestSettings(
                model=place or name,
                hook=HOOKS,
                tokens=tokens,
                context_size=CONTEXT,
                text=() if own else (text or "",),
                dataset=PYTHON_CORPUS if own else HarvestSettings().dataset,
                seed=1 if own else 0,
            )
        )
        for hook in HOOKS:
            for site, x in rows_of(ready, hook):
                found += [{"model": name} | row for row in measured(site, x)]
    out.write_text(to_json({"tokens": tokens, "values": found}, indent=1) + "\n", "utf-8")
    click.echo(out)


if __name__ == "__main__":
    main()
