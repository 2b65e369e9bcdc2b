"""The interface of formats: :class:`Format` writes and opens shards, :class:`Shard` is one."""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: rows × width (or rows alone), cut in shards of whole chunks.

    A shard is one file, the unit of writing, checking and sending. A chunk is the unit of decoding.
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


class Bytes(Protocol):
    """The bytes of a file: a map of it, or ranges of one that lies elsewhere."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice) -> memoryview: ...


class MappedFile:
    """The bytes of a file, read through a memory map."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = memoryview(self._map)

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, where: slice) -> memoryview:
        """A view of some bytes, requested from the system at once: page faults on a slow disk would
        read a little at a time.
        """
        start, stop, _ = where.indices(len(self._bytes))
        page = start - start % mmap.PAGESIZE
        if stop > start:
            self._map.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return self._bytes[where]


class Shard(ABC):
    """One open shard file, safe to read from many threads at once."""

    @abstractmethod
    def chunk(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return the recorded rows of the chunk, ``(≤ chunk_rows, *tail)``.

        For an uncompressed shard they are a read-only view of the mapped file.

        Args:
            out: contiguous memory that may be used for them, of their type; it is returned if it
                was. It is used if the chunk is compressed and not cut short by the end of its
                shard.

        Raises:
            ValueError, OSError: the bytes are not what was written. The message
                says how; the caller knows which site and rows. An OSError with an ``errno`` is the
                system's, and does not concern the bytes.
        """


class Format(ABC):
    """Writes and opens shard files."""

    name: str
    compressions: tuple[str, ...]
    """The first is used if a manifest states none, and for arrays other than activations."""

    def compression_for(self, dtype: np.dtype) -> str:  # noqa: ARG002 - not every format has a choice
        """The best compression for activations stored as that type."""
        return self.compressions[0]

    @abstractmethod
    def path_pattern(self, spec: ArraySpec) -> str:
        """Path of the file of shard ``%d``, relative to the store, with forward slashes."""

    def shard_path(self, spec: ArraySpec, shard: int) -> str:
        """Path of a shard's file."""
        return self.path_pattern(spec) % shard

    @abstractmethod
    def encode_chunk(self, spec: ArraySpec, values: np.ndarray, rows: int) -> bytes | memoryview:
        """The bytes of one chunk in the file; the same values give the same bytes.

        Safe to call from many threads at once.

        Args:
            values: ``(≤ chunk_rows, *tail)``; fewer only in the last chunk of a shard.
            rows: of the whole shard.
        """

    @abstractmethod
    def write_chunks(
        self, path: Path, spec: ArraySpec, chunks: Sequence[bytes | memoryview], rows: int
    ) -> None:
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

    def checks_chunks(self, spec: ArraySpec) -> bool:  # noqa: ARG002 - not every format does
        """Whether a chunk can be read and checked without the rest of its shard."""
        return False

    def open_ranges(self, data: Bytes, spec: ArraySpec, rows: int) -> Shard:
        """Open a shard whose bytes arrive in ranges, if :meth:`checks_chunks`.

        Every call of :meth:`Shard.chunk` asks for the bytes of that chunk alone, and checks them.

        Raises:
            ValueError: the file is not such a shard.
        """
        raise NotImplementedError

    @abstractmethod
    def metadata(self, rows: dict[ArraySpec, int]) -> dict[str, bytes]:
        """Files, by path, that let other tools open arrays of that many rows."""

    @abstractmethod
    def open_array(self, root: Path, spec: ArraySpec, shards: Sequence[int]) -> Any:
        """The stored numbers of one array as an object of the format's own library.

        Args:
            shards: the available ones.
        """
