"""What every codec makes of the values of several models: bits, and the error of ordinary rows.

    python pipelines/codec_values.py --model demo --model smollm2=DIR --model gemma3=DIR \\
        --text FILE                  # writes docs/codec_values.json, of which codec_page.py
                                     # makes the first half of docs/codecs.md

Each model reads the same number of tokens: the demo model Python's own documents, the others
``--text``. Ordinary rows have a norm of at most ten times the site's median, whatever a codec
itself counts as massive. rkstore's codecs are compared with int8 as it was in stores of schema 1
(even steps from the least to the greatest value of each dimension of a chunk), with one scale for a
whole layer, as other tools store it, and with the fewest bits that a code of this error could take.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from arms import as_in, directory
from numcodecs.zstd import Zstd
from results import start
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.errors import BadInput
from rkstore.evaluation.record import Row, compact
from rkstore.harvest.run import Harvest, prepare
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.python import PYTHON_CORPUS
from rkstore.settings import Settings, option
from rkstore.store.codecs import CODECS
from rkstore.store.files import write_together
from rkstore.store.formats import compression_for
from rkstore.store.manifest import CHUNK_ROWS, COLUMNS, Manifest, largest_divisor
from rkstore.store.massive import Usual
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

# hook_resid_pre is hook_resid_post of the block before.
HOOKS = ("hook_resid_mid", "hook_resid_post", "mlp.hook_post")
CONTEXT = 128
MASSIVE = 10

EXTREMES = "int8 of schema 1"
ONE_SCALE, ONE_SCALE_ORDINARY = "int8, one scale", "int8, one scale of ordinary rows"

# Width of the histogram's steps, in standard deviations: far below the step of int8, because wider
# steps smooth the density and raise its entropy.
STEP = 0.002
REACH = 100


class ModelsSettings(Settings):
    """Which models read how much of which text."""

    model: tuple[str, ...] = option(
        ("demo",), "Model as NAME, or NAME=DIR for a local directory; may be repeated."
    )
    text: tuple[str, ...] = as_in(
        HarvestSettings, "text", help="Plain text for all models but the demo model."
    )
    tokens: int = as_in(HarvestSettings, "tokens", default=2048)
    out: str = directory("docs")

    def places(self) -> dict[str, str]:
        """Hub name or directory of each model, by the name it goes by."""
        named = [given.partition("=") for given in self.model]
        return {name: place or name for name, _, place in named}

    def harvest(self, name: str, **given: Any) -> HarvestSettings:
        """How a model is harvested; the demo model reads the text that it was trained on.

        Raises:
            BadInput: the directory of the model is not there, or it has no text to read.
        """
        given |= {"tokens": self.tokens, "context_size": CONTEXT}
        if name == "demo":
            return HarvestSettings(model=name, dataset=PYTHON_CORPUS, seed=1, **given)
        place = self.places()[name]
        if place != name and not Path(place).expanduser().is_dir():
            raise BadInput("its directory is not there")
        if not self.text:
            raise BadInput("there is no --text for it to read")
        return HarvestSettings(model=place, text=self.text, **given)


def each_model(settings: ModelsSettings, **given: Any) -> Iterator[tuple[str, Harvest | str]]:
    """Name of each model, and its harvest ready to run, or why it is left out."""
    for name in settings.places():
        try:
            yield name, prepare(settings.harvest(name, **given))
        except BadInput as error:
            click.echo(f"{name} is left out: {error}", err=True)
            yield name, str(error)


def described(ready: Harvest | str) -> Row:
    """What is recorded of a model: its weights and its text, or why it is left out."""
    if isinstance(ready, str):
        return {"left_out": ready}
    model = ready.manifest.source["model"]
    return {key: model[key] for key in ("architecture", "layers", "dtype", "weights_sha256")} | {
        "tokens_sha256": ready.blocks.sha256
    }


def rows_of(ready: Harvest) -> Iterator[tuple[str, np.ndarray]]:
    """Name and float32 rows ``(tokens, d_in)`` of each site."""
    sites = list(ready.manifest.sites)
    pieces: dict[str, list[np.ndarray]] = {site.hook_name: [] for site in sites}
    for first in tqdm(range(0, len(ready.blocks.ids), 8), desc="model", disable=None):
        ids = ready.blocks.ids[first : first + 8]
        for name, x in ready.model.activations(ids, sites).items():
            pieces[name].append(x)
    for name in tqdm(list(pieces), desc="sites", disable=None):
        yield name, np.concatenate(pieces.pop(name))


@dataclass(frozen=True)
class Stored:
    """What a codec makes of the rows of a site."""

    bits: float
    """Bits a value, including everything stored besides the codes."""
    bits_apart: float
    """The part of them that is kept apart from the codes."""
    back: np.ndarray
    """The values as they are read back."""
    whole: int = 0
    """Massive rows, which the codec keeps whole."""


Values = dict[str, np.ndarray]


def write_store(
    out: Path, manifest: Manifest, of_rows: Callable[[slice], tuple[Values, Values]]
) -> Store:
    """Write a store whose values and columns, of a slice of its rows, a function returns."""
    with StoreWriter(out, manifest) as writer:
        while writer.next_shard < manifest.shards:
            writer.write_shard(*of_rows(slice(*manifest.rows_of_shard(writer.next_shard))))
    return Store(out)


def stored(x: np.ndarray, codec: str) -> Stored:
    """Rows in a store of their own.

    Raises:
        BadInput: the codec cannot hold one of them.
    """
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
    with tempfile.TemporaryDirectory() as work:
        store = write_store(
            Path(work) / "store",
            manifest,
            lambda part: ({"x": x[part]}, {name: c[part] for name, c in columns.items()}),
        )
        apart = sum(path.stat().st_size for path in store.root.rglob("apart/*"))
        bits = 8 * store.stored_bytes("x") / x.size
        return Stored(bits, 8 * apart / x.size, store.read("x"), store.massive_rows("x"))


def from_extremes(x: np.ndarray) -> Stored:
    """Int8 of schema 1: 255 steps between the extremes of each dimension of a chunk."""
    size, decoded = 0, np.empty_like(x)
    for first in range(0, len(x), CHUNK_ROWS):
        chunk = x[first : first + CHUNK_ROWS]
        least, span = chunk.min(axis=0), np.ptp(chunk, axis=0)
        scale = np.where(span > 0, span / np.float32(255), np.float32(1))
        codes = np.rint((chunk - least) / scale).clip(0, 255)
        decoded[first : first + CHUNK_ROWS] = least + codes * scale
        size += _compressed(codes.astype(np.uint8)) + least.nbytes + scale.nbytes
    return Stored(8 * size / x.size, 0.0, decoded)


def one_scale(x: np.ndarray, known: np.ndarray) -> Stored:
    """Int8 with one symmetric scale for a whole site, from the largest absolute value known."""
    scale = np.abs(known).max() / np.float32(127)
    codes = np.rint(x / scale).clip(-127, 127).astype(np.int8)
    chunks = (codes[first : first + CHUNK_ROWS] for first in range(0, len(x), CHUNK_ROWS))
    return Stored(8 * sum(map(_compressed, chunks)) / x.size, 0.0, codes * scale)


def _compressed(codes: np.ndarray) -> int:
    return len(Zstd(1).encode(np.ascontiguousarray(codes)))


class Bound:
    """Shannon's lower bound on the bits of values ``x (n, d_in)``, if all are coded alike.

    A code that treats all values alike once they are centred and divided by σ, with an error of
    mean square ``D`` in units of the variance, takes at least ``h - ½ log₂(2πe D)`` bits a value
    (Cover & Thomas, "Elements of Information Theory", §10.3), where ``h`` is the differential
    entropy of all values together. As in the codecs, the centre of a dimension is its mean or its
    least value, whichever gives fewer bits.
    """

    def __init__(self, x: np.ndarray) -> None:
        deviation = x.std(axis=0, dtype=np.float64)
        self._known = deviation > 0
        self._variance = np.square(deviation[self._known])
        per = (1 / (STEP * deviation[self._known])).astype(np.float32)
        centres = x.mean(axis=0, dtype=np.float64).astype(np.float32), x.min(axis=0)
        known = x[:, self._known]
        self._entropy = min(_entropy((known - centre[self._known]) * per) for centre in centres)

    def bits(self, difference: np.ndarray) -> float:
        """The fewest bits a value of a code with the error ``(n, d_in)``."""
        of_each = np.einsum("nd,nd->d", difference, difference, dtype=np.float64) / len(difference)
        error = float(np.mean(of_each[self._known] / self._variance))
        return self._entropy - 0.5 * float(np.log2(2 * np.pi * np.e * error))


def _entropy(steps: np.ndarray) -> float:
    """Differential entropy in bits of values given in units of ``STEP``."""
    reach = round(REACH / STEP)
    codes = np.rint(steps.clip(-reach, reach, out=steps), out=steps).astype(np.int32).ravel()
    counts = np.bincount(codes + reach)
    share = counts[counts > 0] / codes.size
    return float(-(share * np.log2(share)).sum() + np.log2(STEP))


def measured(name: str, x: np.ndarray) -> Iterator[Row]:
    """One row for each way to store the rows of a site."""
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    norms = np.sqrt(squares)
    massive = norms > MASSIVE * np.median(norms)
    ordinary = x[~massive]
    variance = ordinary.var(axis=0, dtype=np.float64).sum() * len(ordinary)
    # Rows that a codec keeps whole are not coded like the others.
    alike = ~massive & ~Usual.of(x).massive(x)
    bound = Bound(x[alike])
    common = {"site": name, "d_in": x.shape[1], "massive": int(massive.sum())}
    ways: dict[str, Callable[[], Stored]] = {
        **{codec: partial(stored, x, codec) for codec in CODECS if codec != "float32"},
        EXTREMES: partial(from_extremes, x),
        ONE_SCALE: partial(one_scale, x, x),
        ONE_SCALE_ORDINARY: partial(one_scale, x, ordinary),
    }
    for way, store in ways.items():
        try:
            found = store()
        except BadInput as error:
            yield common | {"codec": way, "refused": str(error)}
            continue
        difference = found.back - x
        lost = np.einsum("nd,nd->n", difference, difference, dtype=np.float64)
        fvu = float(lost[~massive].sum() / variance)
        of_massive = float(lost[massive].sum() / squares[massive].sum()) if massive.any() else None
        yield common | {
            "codec": way,
            "bits": found.bits,
            "bits_apart": found.bits_apart,
            "least_bits": bound.bits(difference[alike]),
            "whole": found.whole,
            "fvu": fvu,
            "massive_error": of_massive,
        }


def study(settings: ModelsSettings) -> Row:
    """Every model, and every site of it in every codec."""
    models, values = {}, []
    for name, ready in each_model(settings, hook=HOOKS):
        models[name] = described(ready)
        if isinstance(ready, Harvest):
            for site, x in rows_of(ready):
                values += [{"model": name} | row for row in measured(site, x)]
    return {"tokens": settings.tokens, "context": CONTEXT, "models": models, "values": values}


def write(document: Row, out: Path) -> None:
    """Write it atomically, with a line for each measurement."""
    write_together({out: compact(document)})
    click.echo(out)


@click.command("codec_values", cls=Command)
@options_of(ModelsSettings)
def main(settings: ModelsSettings) -> None:
    """Store every residual site and every mlp.hook_post with every codec."""
    write(study(settings), Path(settings.out) / "codec_values.json")


if __name__ == "__main__":
    start(main)
