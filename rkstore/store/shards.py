"""The files of an opened store: its shards, mapped when first read, and what is beside them.

Every way to say what is wrong with a file of a store is here.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from rkstore.errors import DamagedStore, RkstoreError
from rkstore.store.apart import Apart
from rkstore.store.codecs import Codec
from rkstore.store.descriptors import OPEN
from rkstore.store.files import FileRecord, inside, reading, record_of
from rkstore.store.formats import ArraySpec, Shard, format_named
from rkstore.store.journal import Journal
from rkstore.store.manifest import Manifest
from rkstore.store.recent import Recent

# Cache of decoded scales, offsets and values apart: at GPT-2's width, dozens of shards.
SIDE_BYTES = 2**26

T = TypeVar("T")


class ShardFiles:
    """What a :class:`~rkstore.store.store.Store` reads its rows from."""

    root: Path
    where: str
    manifest: Manifest
    records: Journal
    codec: Codec

    def _begin_reading(self) -> None:
        """Nothing is open yet."""
        self._format = format_named(self.manifest.format)
        self._shards: dict[tuple[str, int], Shard] = {}
        self._sides = Recent(SIDE_BYTES)
        self._lock = threading.Lock()

    def _side(self, spec: ArraySpec, shard: int) -> np.ndarray:
        """Scale or offset of a shard, or of all its chunks."""
        return self._sides.get((spec.name, shard), lambda: self._read(spec, shard, 0))

    def _apart(self, hook_name: str, shard: int, chunk: int, rows: int) -> Apart | None:
        """The values kept apart for a chunk, counted within its shard."""
        if not self.codec.keeps_apart:
            return None
        path = self.manifest.apart_path(hook_name, shard)

        def load() -> Apart:
            first, last = self.manifest.rows_of_shard(shard)
            raw = self._checked_bytes(path, self.records[shard].files[path])
            try:
                return Apart.from_bytes(raw, last - first, self.manifest.width(hook_name))
            except ValueError as error:
                raise DamagedStore(f"{path} of {self.where} is damaged: {error}") from None

        start = chunk * self.manifest.chunk_rows
        return self._sides.get(path, load).part(start, start + rows)

    def _read(
        self, spec: ArraySpec, shard: int, chunk: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """One chunk of an array; see :meth:`Shard.chunk`."""
        try:
            with reading(self._format.shard_path(spec, shard), self.where):
                return self._open(spec, shard).chunk(chunk, out)
        except RkstoreError:
            raise
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            first, last = self.manifest.rows_of_shard(shard)
            raise DamagedStore(
                f"{spec.name}, shard {shard} (rows {first}:{last}) of {self.where} is damaged: "
                f"{error}; 'rkstore verify' lists every damaged file"
            ) from None

    def _open(self, spec: ArraySpec, shard: int) -> Shard:
        key = (spec.name, shard)
        if (known := self._shards.get(key)) is not None:
            OPEN.used(self, key)
            return known
        path = self._format.shard_path(spec, shard)
        recorded = self.records[shard].files[path]

        def opened(file: Path) -> Shard:
            with self._lock:
                if (known := self._shards.get(key)) is not None:  # another thread was faster
                    return known
                size = file.stat().st_size
                if size != recorded.bytes:
                    raise ValueError(f"{path} has {size:,} bytes, {recorded.bytes:,} are recorded")
                first, last = self.manifest.rows_of_shard(shard)
                rows = self.manifest.array_rows(spec, last - first)
                found = OPEN.opening(lambda: self._format.open_shard(file, spec, rows))
                self._shards[key] = found
                OPEN.used(self, key)
                return found

        return self._using(path, recorded, opened)

    def _using(self, path: str, recorded: FileRecord, use: Callable[[Path], T]) -> T:  # noqa: ARG002
        """What comes of opening a file of the store."""
        return use(inside(self.root, path))

    def _checked_bytes(self, path: str, recorded: FileRecord) -> bytes:
        def content(file: Path) -> bytes:
            if file.stat().st_size != recorded.bytes:
                raise DamagedStore(f"{path} of {self.where} has another size than is recorded")
            return file.read_bytes()

        try:
            with reading(path, self.where):
                raw = self._using(path, recorded, content)
        except OSError as error:
            raise DamagedStore(f"{path} of {self.where} cannot be read: {error}") from None
        if record_of(raw) != recorded:
            raise DamagedStore(f"{path} of {self.where} was changed after it was written")
        return raw
