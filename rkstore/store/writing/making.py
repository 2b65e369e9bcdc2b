"""The files of a shard, made apart from being recorded.

To make them needs no lock and changes nothing of a store: any process may do it, several may make
the same shard, and what one leaves unfinished is ignored. Only :meth:`Writer.record` makes a shard
exist.
"""

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rkstore.store.apart import Apart, joined
from rkstore.store.files import FileRecord, sha256, sync, waiting_name
from rkstore.store.formats import ArraySpec, format_named
from rkstore.store.journal import ShardRecord
from rkstore.store.manifest import Manifest
from rkstore.store.statistics import ShardStatistics
from rkstore.store.writing.encoder import EncodedChunk, ShardEncoder, statistics_of


def make_shard(
    manifest: Manifest, shard: ShardEncoder, place: Callable[[str], Path], pool: Executor
) -> ShardRecord:
    """Write the files of a shard after all its rows were added.

    Args:
        place: where to write the file of a path in the store; nothing is there yet.

    Returns:
        The record of the shard, without its chain.

    Raises:
        BadInput: rows are missing, or cannot be stored. Nothing was written.
        OSError: the disk is full or failed.
    """
    chunks, columns = shard.finish()
    making = _Files(manifest, shard.shard, place)
    files: dict[str, FileRecord] = {}
    written = list(pool.map(making.of_site, chunks, chunks.values()))
    for of_some in (making.of_columns(columns), *written):
        files |= of_some
    return ShardRecord(
        shard.shard,
        files,
        {name: sum(c.squared_error for c in cs) for name, cs in chunks.items()},
        {name: sum(c.massive_error for c in cs) for name, cs in chunks.items()},
    )


@dataclass(frozen=True)
class _Files:
    """The files of one shard, each synced so that it survives a power cut."""

    manifest: Manifest
    shard: int
    place: Callable[[str], Path]

    def of_site(self, name: str, chunks: Sequence[EncodedChunk]) -> dict[str, FileRecord]:
        manifest, specs = self.manifest, self.manifest.specs(name)
        layout, codec = format_named(manifest.format), manifest.stored_codec
        path = layout.shard_path(specs[""], self.shard)
        first, last = manifest.rows_of_shard(self.shard)
        to = self.place(path)
        layout.write_chunks(to, specs[""], [chunk.data for chunk in chunks], last - first)
        files = {path: _synced(to)}
        files |= self._small(manifest.statistics_path(name, self.shard), statistics_of(chunks))
        for side in codec.side:  # of the shard: the same in every chunk
            files |= self._array(specs[side], chunks[0].side[side][np.newaxis])
        if codec.keeps_apart:
            apart = [chunk.apart for chunk in chunks if chunk.apart is not None]
            files |= self._small(manifest.apart_path(name, self.shard), joined(apart))
        return files

    def of_columns(self, columns: Mapping[str, np.ndarray]) -> dict[str, FileRecord]:
        files: dict[str, FileRecord] = {}
        for name, spec in self.manifest.column_specs().items():
            files |= self._array(spec, columns[name])
        return files

    def _array(self, spec: ArraySpec, values: np.ndarray) -> dict[str, FileRecord]:
        path = format_named(self.manifest.format).shard_path(spec, self.shard)
        to = self.place(path)
        format_named(self.manifest.format).write_shard(to, spec, values)
        return {path: _synced(to)}

    def _small(self, path: str, content: ShardStatistics | Apart) -> dict[str, FileRecord]:
        to = self.place(path)
        to.write_bytes(content.to_bytes())
        return {path: _synced(to)}


def _synced(file: Path) -> FileRecord:
    """Make a written file survive a power cut; return its size and digest."""
    sync(file)
    return FileRecord(file.stat().st_size, sha256(file))


@dataclass(frozen=True)
class Made:
    """A shard whose files wait to be put in place."""

    record: ShardRecord
    """Without its chain."""
    attempt: str
    """Where they wait, below the directory of waiting files."""


@dataclass(frozen=True)
class Attempts(ABC):
    """Where other processes make shards for a writer. It can be sent to them.

    Each attempt has a directory of its own, so one that comes late changes nothing of another.
    """

    where: str
    """Directory or URL of what is written, as every process finds it."""
    run: str
    """Where all attempts of this writer wait."""
    manifest: Manifest

    def make(self, shard: int, fill: Callable[[ShardEncoder], object]) -> Made:
        """Make the files of a shard.

        Args:
            fill: adds all rows of the shard.

        Raises:
            BadInput: rows cannot be stored, or the directory is not there.
            RkstoreError: the disk is full, or the connection failed.
        """
        attempt = f"{self.run}/{shard:05d}-{uuid.uuid4().hex}"
        with ThreadPoolExecutor(os.cpu_count()) as pool, self._directory(attempt) as at:
            encoder = ShardEncoder(self.manifest, shard, pool)
            fill(encoder)
            record = make_shard(self.manifest, encoder, lambda p: at / waiting_name(p), pool)
        return Made(record, attempt)

    @abstractmethod
    def _directory(self, attempt: str) -> AbstractContextManager[Path]:
        """A local directory whose files wait as that attempt once they are whole."""
