"""What every format does: :class:`Format` writes and opens shard files, :class:`Shard` is one."""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: rows × width (or rows alone), cut in shards of whole chunks.

    A shard is one file: what is written, checked and sent at once. A chunk is what
    is decoded at once.
    """

    name: str
    dtype: np.dtype
    width: int | None
    shard_rows: int
    chunk_rows: int
    compression: str
    """One of the format's ``compressions``."""
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def chunks_per_shard(self) -> int:
        return self.shard_rows // self.chunk_rows

    @property
    def tail(self) -> tuple[int, ...]:
        """The shape of one row."""
        return () if self.width is None else (self.width,)


class MappedFile:
    """The bytes of a file, read through a memory map."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = memoryview(self._map)

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, where: slice) -> memoryview:
        """A view of some bytes. The system is asked for all of them at once: touched page by
        page, a slow disk would be asked for a little at a time."""
        start, stop, _ = where.indices(len(self._bytes))
        page = start - start % mmap.PAGESIZE
        if stop > start:
            self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return self._bytes[where]


class Shard(ABC):
    """One open shard file, safe to read from many threads at once."""

    @abstractmethod
    def chunk(self, index: int) -> np.ndarray:
        """Return the rows of the chunk, as many as are recorded, ``(≤ chunk_rows, *tail)``.

        Of an uncompressed shard they are a view of the mapped file, which cannot be written to.

        Raises:
            ValueError, OSError: the bytes are not what was written. The message
                says how; the caller knows which site and rows. An OSError with an ``errno`` is
                the system's, and says nothing about the bytes.
        """


class Format(ABC):
    """Writes and opens shard files."""

    name: str
    compressions: tuple[str, ...]
    """The first is used where a manifest states none, and for arrays other than activations."""

    def compression_for(self, dtype: np.dtype) -> str:  # noqa: ARG002 - not every format has a choice
        """The compression that serves activations stored as that type best."""
        return self.compressions[0]

    @abstractmethod
    def path_pattern(self, spec: ArraySpec) -> str:
        """Path of the file of shard ``%d``, relative to the store, with forward slashes."""

    def shard_path(self, spec: ArraySpec, shard: int) -> str:
        """Path of a shard's file."""
        return self.path_pattern(spec) % shard

    @abstractmethod
    def encode_chunk(self, spec: ArraySpec, values: np.ndarray, rows: int) -> bytes:
        """The bytes of one chunk as they will lie in the file; the same values give the same.

        Safe to call from many threads at once.

        Args:
            values: ``(≤ chunk_rows, *tail)``; fewer only in the last chunk of a shard.
            rows: of the whole shard.
        """

    @abstractmethod
    def write_chunks(self, path: Path, spec: ArraySpec, chunks: Sequence[bytes], rows: int) -> None:
        """Write a shard of that many rows, from its chunks in order, to a new file."""

    def write_shard(self, path: Path, spec: ArraySpec, values: np.ndarray) -> None:
        """Write ``(rows, *tail)``, ``rows ≤ shard_rows``, to a new file."""
        chunks = [
            self.encode_chunk(spec, values[start : start + spec.chunk_rows], len(values))
            for start in range(0, len(values), spec.chunk_rows)
        ]
        self.write_chunks(path, spec, chunks, len(values))

    @abstractmethod
    def open_shard(self, path: Path, spec: ArraySpec, rows: int) -> Shard:
        """Open a shard file that holds that many rows.

        Raises:
            ValueError, OSError: the file is not such a shard.
        """

    @abstractmethod
    def metadata(self, rows: dict[ArraySpec, int]) -> dict[str, bytes]:
        """Files, by path, that let other tools open arrays of that many rows."""

    @abstractmethod
    def open_array(self, root: Path, spec: ArraySpec, shards: Sequence[int]) -> Any:
        """The stored numbers of one array as the format's own library hands them out.

        Args:
            shards: those that are there.
        """
