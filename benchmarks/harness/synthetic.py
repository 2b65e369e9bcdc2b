"""Rows that look like an MLP's activations, and the files in which each side has them.

Random numbers through a GELU: each dimension with a mean of about -1 before it and a scale of
its own, so that most values lie just below zero and few are large. Making rows takes no model,
so a store of a full width is there in a minute.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from harness.row import Bench
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.codecs import codec_named
from rkstore.store.formats import compression_for
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

SITE = "blocks.0.mlp.hook_post"
CONTEXT = 128
SHARD_ROWS, CHUNK_ROWS = HarvestSettings().shard_rows, 512
WIDTH = 3072
BATCH_ROWS = 4096


def rows_of(bench: Bench) -> int:
    return bench.size(65_536, 16_384)


def shard(number: int, width: int) -> NDArray[np.float32]:
    """The rows of one shard; the same number gives the same rows."""
    generator = torch.Generator().manual_seed(0)
    mean = -1 + 0.5 * torch.randn(width, generator=generator)
    scale = torch.exp(0.4 * torch.randn(width, generator=generator))
    generator.manual_seed(number + 1)
    x = torch.randn(SHARD_ROWS, width, generator=generator) * scale + mean
    rows: NDArray[np.float32] = torch.nn.functional.gelu(x).numpy()
    return rows


def shards(bench: Bench, width: int = WIDTH) -> Iterator[NDArray[np.float32]]:
    """All rows, a shard at a time."""
    return (shard(number, width) for number in range(rows_of(bench) // SHARD_ROWS))


@functools.cache
def store(bench: Bench, codec: str = "", compression: str = "", width: int = WIDTH) -> Path:
    """A store of the rows; codec and compression are the default ones if none are given."""
    codec = codec or HarvestSettings().codec
    compression = compression or compression_for("zarr", codec_named(codec).dtype)
    root = bench.work / f"store-{codec}-{compression}-{width}"
    manifest = Manifest(
        rows=rows_of(bench),
        context_size=CONTEXT,
        shard_rows=SHARD_ROWS,
        chunk_rows=CHUNK_ROWS,
        codec=codec,
        format="zarr",
        compression=compression,
        sites=(Site(SITE, width),),
        source={"model": {"name": "synthetic"}},
    )
    row = np.arange(SHARD_ROWS, dtype=np.int32)
    columns = {"token_id": row, "document": row // CONTEXT, "position": row % CONTEXT}
    with StoreWriter(root, manifest) as writer:
        for x in shards(bench, width):
            writer.write_shard({SITE: x}, columns)
    return root


def _raw(bench: Bench, dtype: type[np.floating]) -> Path:
    path = bench.work / f"rows.{np.dtype(dtype).name}"
    with path.open("wb") as file:
        for x in shards(bench):
            x.astype(dtype, copy=False).tofile(file)
    return path


@functools.cache
def float32_file(bench: Bench) -> Path:
    """The rows as a file of float32 and nothing else."""
    return _raw(bench, np.float32)


@functools.cache
def float16_file(bench: Bench) -> Path:
    """The rows as a file of float16 and nothing else."""
    return _raw(bench, np.float16)


def _hdf5(bench: Bench, name: str, create: Callable[[h5py.File, tuple[int, int]], None]) -> Path:
    path = bench.work / name
    with h5py.File(path, "w") as file:
        create(file, (rows_of(bench), WIDTH))
        for number, x in enumerate(shards(bench)):
            file["tensor"][number * SHARD_ROWS : (number + 1) * SHARD_ROWS] = x
    return path


@functools.cache
def gzip_file(bench: Bench) -> Path:
    """The rows in HDF5, float32, gzip at h5py's default level, chunks of as many rows as ours."""

    def create(file: h5py.File, shape: tuple[int, int]) -> None:
        chunks = (CHUNK_ROWS, WIDTH)
        file.create_dataset("tensor", shape, "f4", chunks=chunks, compression="gzip")

    return _hdf5(bench, "gzip.h5", create)


@functools.cache
def contiguous_file(bench: Bench) -> Path:
    """The rows in HDF5, float32, one after another."""

    def create(file: h5py.File, shape: tuple[int, int]) -> None:
        file.create_dataset("tensor", shape, "f4")

    return _hdf5(bench, "contiguous.h5", create)


@functools.cache
def saelens_cache(bench: Bench) -> Path:
    """The rows as SAELens caches them: ``rkstore export --to saelens`` of a float32 store."""
    from rkstore.share.exchange.exporting import export_store
    from rkstore.share.settings import ExportSettings

    out = bench.work / "saelens-cache"
    source = store(bench, "float32", "none")
    export_store(Store(source), ExportSettings(to="saelens", out=str(out)))
    return out


def bytes_under(path: Path) -> int:
    """Bytes of a file, or of all files under a directory."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
