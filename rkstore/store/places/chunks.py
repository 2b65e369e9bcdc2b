"""Chunks of shards at a URL, each fetched alone and checked by its own checksum."""

from typing import Any

from numpy.typing import NDArray

from rkstore.errors import DamagedStore
from rkstore.store.files import FileRecord
from rkstore.store.formats import ArraySpec, Format, Shard
from rkstore.store.places.fetch import damaged
from rkstore.store.places.ranges import NoRanges
from rkstore.store.places.url import Location


class Chunks:
    """Chunks of the shards of a store. The index of a shard is fetched once, and kept."""

    def __init__(self, location: Location, format: Format) -> None:
        self._location, self._format = location, format
        self._opened: dict[str, Shard] = {}
        self._whole_only = False

    def checked_alone(self, spec: ArraySpec) -> bool:
        """Whether chunks of an array can be fetched alone: the format checks each by itself."""
        return self._format.checks_chunks(spec) and not self._whole_only

    def chunk(
        self, path: str, recorded: FileRecord, spec: ArraySpec, rows: int, index: int
    ) -> NDArray[Any] | None:
        """The values of a chunk; None if the server sends whole files only.

        Args:
            path: of the shard.
            rows: of the shard.

        Raises:
            DamagedStore: it stays other than what was written, also when it is fetched again.
            RkstoreError: it cannot be read.
        """

        def read() -> NDArray[Any]:
            try:
                shard = self._opened.get(path)
                if shard is None:
                    data = _Ranges(self._location, path, recorded)
                    shard = self._opened[path] = self._format.open_ranges(data, spec, rows)
                return shard.chunk(index)
            except (ValueError, RuntimeError) as error:
                self._opened.pop(path, None)  # its index may be what is wrong
                raise damaged(self._location, path, str(error)) from None
            except DamagedStore:
                self._opened.pop(path, None)
                raise

        if self._whole_only:
            return None
        try:
            return self._location.until_whole(read)
        except NoRanges:
            self._whole_only = True
            return None


class _Ranges:
    """A file at a URL as bytes of which each range is fetched when it is asked for."""

    def __init__(self, location: Location, path: str, recorded: FileRecord) -> None:
        self._location, self._path, self._bytes = location, path, recorded.bytes
        self._tag: str | None = None

    def __len__(self) -> int:
        return self._bytes

    def __getitem__(self, where: slice) -> memoryview:
        start, stop, _ = where.indices(len(self))
        if stop <= start:
            return memoryview(b"")
        part = self._location.part(self._path, start, stop)
        if part.total != len(self):
            raise ValueError(f"{part.total:,} of {len(self):,} bytes")
        if self._tag not in (None, part.tag):
            raise ValueError("it was replaced while it was being read")
        self._tag = part.tag
        return memoryview(part.content)
