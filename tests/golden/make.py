"""Make the golden stores, of values that a formula gives: every format, codec, compression.

    python tests/golden/make.py

They show that a store written today is read by the code of tomorrow, so they are made
once and kept. A new codec or format gets its store by running this again: those that are
there already are left alone.
"""

import importlib.metadata
from pathlib import Path

import numpy as np

from rkstore.codecs import CODECS
from rkstore.formats import FORMATS
from rkstore.manifest import COLUMNS, Manifest, Site
from rkstore.writer import StoreWriter

GOLDEN = Path(__file__).parent
# By directory: format, codec and compression. A manifest leaves the usual compression out.
STORES = (
    {f"{format}-{codec}": (format, codec, "") for format in FORMATS for codec in CODECS}
    | {
        f"zarr-{codec}-{compression}": ("zarr", codec, compression)
        for codec, compression in [
            ("int8", "zstd"),
            ("int6", "zstd"),
            ("int8", "blosc-lz4"),
            ("float16", "zstd"),
            ("float32", "none"),
        ]
    }
    | {"hdf5-float32-none": ("hdf5", "float32", "none")}
)

HOOK, WIDTH = "blocks.0.mlp.hook_post", 8

# What the bytes of a store depend on besides rkstore; other versions may compress otherwise.
LIBRARIES = ("h5py", "numcodecs", "numpy", "safetensors")


def values(rows: int) -> np.ndarray:
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
        if not (GOLDEN / name).exists():
            make(GOLDEN / name, *contents)
