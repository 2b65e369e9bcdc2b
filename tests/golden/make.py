"""Make the golden stores, of values that a formula gives: every format, codec, compression.

    python tests/golden/make.py

They show that a store written today is read by the code of tomorrow, so they are made
once and kept. A new codec or format gets its store by running this again: those that are
there already are left alone. Those of schema 1 can be read and not be made any more.
"""

import importlib.metadata
from pathlib import Path

import numpy as np

from rkstore.store.codecs import CODECS
from rkstore.store.formats import FORMATS, compression_for
from rkstore.store.manifest import COLUMNS, SCHEMA, Manifest
from rkstore.store.sites import Site
from rkstore.store.writing.writer import StoreWriter

GOLDEN = Path(__file__).parent
FIRST, NOW = GOLDEN / "schema-1", GOLDEN / "schema-2"

# By directory: format, codec and compression. A manifest leaves the usual compression out.
BESIDES = [
    ("zarr", "int8", "blosc-zstd"),
    ("zarr", "int8", "blosc-lz4"),
    ("zarr", "float16", "zstd"),
    ("zarr", "float32", "none"),
    ("hdf5", "float32", "none"),
]
STORES = {
    f"{format}-{codec}": (format, codec, compression_for(format, CODECS[codec].dtype))
    for format in FORMATS
    for codec in CODECS
} | {"-".join(chosen): chosen for chosen in BESIDES}

HOOK, WIDTH = "blocks.0.mlp.hook_post", 8

# What the bytes of a store depend on besides rkstore; other versions may compress otherwise.
LIBRARIES = ("h5py", "numcodecs", "numpy", "safetensors")


def values(rows: int, schema: int = SCHEMA) -> np.ndarray:
    """What the store of a schema holds: waves, from schema 2 on with two massive rows and a spike.

    Float32 ``(rows, WIDTH)``.
    """
    x = waves(rows)
    if schema > 1:
        x[[5, 40]] *= 128
        x[50, 0] = 2
    return x


def waves(rows: int) -> np.ndarray:
    """Waves of another length and height in every dimension, float32 ``(rows, WIDTH)``.

    Halves of a wave are parabolas, in whole numbers and powers of two: every machine and
    every version of a library has exactly these values, which is not so for a sine.
    """
    row, dimension = np.arange(rows)[:, None], np.arange(WIDTH)[None, :]
    phase = (row * (3 + 2 * dimension) + 5 * dimension) % 64
    half = phase % 32
    wave = np.where(phase < 32, 1, -1) * 4 * half * (32 - half)
    x: np.ndarray = (wave * 2.0 ** (dimension - 14)).astype(np.float32)
    return x


def columns(rows: int) -> dict[str, np.ndarray]:
    """Token, document and position of every row."""
    row = np.arange(rows)
    return {"token_id": row * 7 % 50, "document": row // 20, "position": row % 8}


def manifest(format: str, codec: str, compression: str) -> Manifest:
    """Two shards, of which the second and its last chunk are part filled."""
    return Manifest(
        rows=56,
        context_size=8,
        shard_rows=32,
        chunk_rows=16,
        codec=codec,
        format=format,
        compression=compression,
        sites=(Site(HOOK, WIDTH),),
        source={
            "model": {"name": "parabolas"},
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    )


def make(root: Path, format: str, codec: str, compression: str) -> None:
    """Write the golden store of that format, codec and compression."""
    wanted = manifest(format, codec, compression)
    x, known = values(wanted.rows), columns(wanted.rows)
    with StoreWriter(root, wanted) as writer:
        while writer.next_shard < wanted.shards:
            rows = slice(*wanted.rows_of_shard(writer.next_shard))
            writer.write_shard({HOOK: x[rows]}, {name: known[name][rows] for name in COLUMNS})


if __name__ == "__main__":
    for name, contents in STORES.items():
        if not (NOW / name).exists():
            make(NOW / name, *contents)
