"""Reading a store at a URL, with a bounded cache of its files on disk.

**Whole files, while the cache can hold them.** A file is fetched when it is first read, checked
against its recorded SHA-256 and kept (``cache.py``). :meth:`RemoteStore.ahead` is told which chunks
come next, and fetches their files before they are needed, several at a time. Each is then fetched
once for all epochs, and for the next run.

**Ranges, otherwise.** A shuffled epoch reads the chunks of a shard far apart in time. If the cache
is smaller than what is read, each shard would be fetched again for nearly every one of its chunks;
if only some chunks are read, such as those held out, most of what is fetched would be for nothing.
Then each chunk is one request, and is held in memory until it is taken.

A range cannot be checked against the digest of a whole file. It is checked against what is known:
the recorded length of the file, the checksum of the shard's index (CRC-32C), the checksum of the
chunk, the size that it decompresses to, and, in S3, that the file was not replaced (ETag). These
are the checks of a store on disk. A file that another
whole shard was put in place of is noticed by its length, which compression makes differ; shards
without compression are equally long, so they are always fetched whole, as are those of HDF5, whose
tables lie anywhere in the file.

From a server without latency, with a cache of 15 MB for 36 MB in eight shards, ranges bring 55,000
rows of 768 in int8 a second; a whole shard for each chunk brought 9,700. With room for all, whole
files bring 64,000.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, DamagedStore
from rkstore.store.files import FileRecord, named
from rkstore.store.formats import ArraySpec
from rkstore.store.places.ahead import Ahead
from rkstore.store.places.cache import Cache
from rkstore.store.places.chunks import Chunks
from rkstore.store.places.fetch import Advance, check
from rkstore.store.places.url import Location, NotThere
from rkstore.store.statistics import ShardStatistics
from rkstore.store.store import Store

CACHE_BYTES = 10 * 10**9

# In a cache that is smaller than what its processes read at once, a file may be removed before it
# is opened, and once more after it was fetched again. So often it never is.
TRIES = 20

# Chunks held in memory ahead of need: five windows of int8 at GPT-2's 3,072 dimensions, or a
# quarter of a second at 1 GB/s.
AHEAD_BYTES = 2**28

# How full the files of what is read may make the cache: columns and statistics are in it too.
FITS = 0.9

# Files are fetched whole if at least one in so many of their chunks is read.
FEW = 4

T = TypeVar("T")

# Site, shard, and chunk in the shard.
Key = tuple[str, int, int]


def default_cache() -> Path:
    """``$RKSTORE_CACHE``, or a directory in the user's own cache."""
    return named(os.environ.get("RKSTORE_CACHE") or "~/.cache/rkstore")


def default_bytes() -> int:
    """``$RKSTORE_CACHE_BYTES``, or 10 GB.

    Raises:
        BadInput: it is not a number of bytes.
    """
    given = os.environ.get("RKSTORE_CACHE_BYTES") or str(CACHE_BYTES)
    with suppress(ValueError, OverflowError):
        if (most := int(float(given))) > 0:
            return most
    raise BadInput(f"RKSTORE_CACHE_BYTES is '{given}': give a number of bytes, such as 50e9")


@dataclass(frozen=True)
class _Reading:
    """What is being read of some sites, and how."""

    sites: frozenset[str]
    ranges: bool
    ahead: Ahead[Key]


class RemoteStore(Store):
    """A store at a URL, read-only: everything a :class:`Store` reads, fetched as it is read."""

    def __init__(
        self, url: str, cache: str | Path | None = None, cache_bytes: int | None = None
    ) -> None:
        """Read the metadata of the store; no rows are fetched yet.

        Args:
            cache: directory of fetched files; :func:`default_cache` by default.
            cache_bytes: its maximum size, over all stores; :func:`default_bytes` by default.

        Raises:
            BadInput: there is no store at the URL, or it needs a newer rkstore.
            DamagedStore: its manifest or journal was changed.
            RkstoreError: the server cannot be reached.
        """
        self._cache = default_cache() if cache is None else named(cache)
        self._cache_bytes = default_bytes() if cache_bytes is None else cache_bytes
        self._url, self._location = url, Location(url)
        self.where = self._location.url
        contents = self._location.contents()
        self.root = self._cache / contents.manifest.fingerprint
        self._hold(contents)
        self._begin_fetching()

    def _begin_fetching(self) -> None:
        most, name = self._cache_bytes, self.manifest.fingerprint
        self._fetched = Cache(self._location, self._cache, most, name, self._forget)
        self._alone = Chunks(self._location, self._format)
        self._reading: _Reading | None = None

    def __getstate__(self) -> dict[str, Any]:
        """As for a :class:`Store`; with the original URL, which may have a password."""
        cached = {"url": self._url, "cache": self._cache.absolute(), "bytes": self._cache_bytes}
        return super().__getstate__() | cached

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cache, self._cache_bytes = state["cache"], state["bytes"]
        self._url, self._location = state["url"], Location(state["url"])
        super().__setstate__(state)
        self._begin_fetching()

    @contextmanager
    def ahead(self, hook_names: Sequence[str], chunks: Iterable[int]) -> Iterator[Store]:
        """As :meth:`Store.ahead`: fetched before they are read, in files or in ranges."""
        sites = [self.check_site(name) for name in hook_names]
        if not sites or not self.shards:
            yield self
            return
        per_shard = self.manifest.shard_rows // self.manifest.chunk_rows
        ranges = self._in_ranges(sites, chunks, per_shard)
        keys = ((name, *divmod(chunk, per_shard)) for chunk in chunks for name in sites)
        cost = self._bytes_of_chunk if ranges else self._bytes_of_file
        most = AHEAD_BYTES if ranges else self._cache_bytes // 2
        if cost((sites[0], self.shards[0], 0)) > most // 2:
            yield self  # what is read would make room for what is coming
            return
        view = object.__new__(type(self))  # with the same cache and the same open files
        vars(view).update(vars(self))
        coming = Ahead(keys, view._fetch_chunk, cost, most)
        view._reading = _Reading(frozenset(sites), ranges, coming)
        coming.start(self._location.at_once)
        try:
            yield view
        finally:
            coming.close()

    def _in_ranges(self, sites: Sequence[str], chunks: Iterable[int], per_shard: int) -> bool:
        """Whether chunks are fetched one by one, because whole files would be wasted."""
        specs = [self.manifest.specs(name)[""] for name in sites]
        if not all(self._alone.checked_alone(spec) for spec in specs):
            return False
        files = [self._shard_files(name, n).values() for name in sites for n in self.shards]
        if sum(file.bytes for some in files for file in some) > FITS * self._cache_bytes:
            return True
        if not isinstance(chunks, Sized):
            return False
        return FEW * len(chunks) < per_shard * len({chunk // per_shard for chunk in chunks})

    def _bytes_of_chunk(self, key: Key) -> int:
        spec = self.manifest.specs(key[0])[""]
        return spec.chunk_rows * spec.dtype.itemsize * (spec.width or 1)

    def _bytes_of_file(self, key: Key) -> int:
        return self._values_file(key[0], key[1])[1].bytes

    def _fetch_chunk(self, key: Key) -> NDArray[Any] | None:
        """The values of a chunk, if it was fetched alone; otherwise its files are here now."""
        name, shard, chunk = key
        values, recorded = self._values_file(name, shard)
        for path, file in self._shard_files(name, shard).items():
            if path != values:
                self._present(path, file)
        if self._is_range(name, values, recorded):
            return self._chunk_alone(self.manifest.specs(name)[""], shard, chunk)
        self._present(values, recorded)
        return None

    def _is_range(self, name: str, path: str, recorded: FileRecord) -> bool:
        reading = self._reading
        ranges = reading is not None and reading.ranges and name in reading.sites
        return ranges and not self._fetched.has(path, recorded)

    def _read(
        self, spec: ArraySpec, shard: int, chunk: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        if self._reading is None or spec.name not in self._reading.sites:
            return super()._read(spec, shard, chunk, out)
        taken: NDArray[Any] | None = self._reading.ahead.take((spec.name, shard, chunk))
        if taken is not None:
            return taken
        if self._is_range(spec.name, *self._values_file(spec.name, shard)):
            alone = self._chunk_alone(spec, shard, chunk)
            if alone is not None:
                return alone
        return super()._read(spec, shard, chunk, out)

    def _chunk_alone(self, spec: ArraySpec, shard: int, chunk: int) -> NDArray[Any] | None:
        path, recorded = self._values_file(spec.name, shard)
        first, last = self.manifest.rows_of_shard(shard)
        rows = self.manifest.array_rows(spec, last - first)
        return self._alone.chunk(path, recorded, spec, rows, chunk)

    def column(
        self, name: str, start: int | None = None, stop: int | None = None
    ) -> NDArray[np.signedinteger[Any]]:
        """As :meth:`Store.column`; of the next shards too, because their files are small."""
        if spec := self.manifest.column_specs().get(name):
            first, last = self._check_rows(start, stop)
            size, more = self.manifest.shard_rows, self._location.at_once
            until = min(-(-last // size) + more, self.shards.stop)
            shards = range(first // size, until)
            self._together((self._format.shard_path(spec, n), n) for n in shards)
        return super().column(name, start, stop)

    def _statistics(self, hook_name: str) -> ShardStatistics:
        name = self.check_site(hook_name)
        self._together((self.manifest.statistics_path(name, n), n) for n in self.shards)
        return super()._statistics(name)

    def _together(self, files: Iterable[tuple[str, int]]) -> None:
        """Fetch small files of shards at the same time: one by one, each costs a round trip."""
        missing = [(path, n) for path, n in files if not self._fetched.known(path)]
        if len(missing) < 2:
            return

        def present(path: str, shard: int) -> None:
            with suppress(Exception):  # its reader gets the error
                self._present(path, self.records[shard].files[path])

        with ThreadPoolExecutor(self._location.at_once) as pool:
            for _ in pool.map(present, *zip(*missing, strict=True)):
                pass

    def read(
        self, hook_name: str, start: int | None = None, stop: int | None = None
    ) -> NDArray[np.float32]:
        """As :meth:`Store.read`, shard after shard."""
        hook_name = self.check_site(hook_name)
        start, stop = self._check_rows(start, stop)
        out = np.empty((stop - start, self.manifest.width(hook_name)), np.float32)
        rows = self.manifest.shard_rows
        for shard in range(start // rows, -(-stop // rows)):
            first, last = max(shard * rows, start), min((shard + 1) * rows, stop)
            self._fetch_shard(hook_name, shard)
            if last < stop:
                self._fetch_ahead(hook_name, shard)
            out[first - start : last - start] = super().read(hook_name, first, last)
        return out

    @property
    def name(self) -> str:
        return self._location.name

    def differs(self, path: str, recorded: FileRecord, advance: Advance) -> str:
        """How a file there differs from its record; an empty string if it does not."""
        try:
            check(self._location, path, recorded, advance)
        except NotThere:
            return "is missing"
        except DamagedStore:
            return "is not what was written"
        return ""

    @property
    def at_once(self) -> int:
        """How many files can be read at the same time."""
        return self._location.at_once

    def open_array(self, hook_name: str) -> Any:
        """Not possible remotely: Zarr and h5py open directories and files."""
        raise BadInput(
            f"the arrays of {self.where} cannot be opened remotely: use read(), or fetch "
            f"'{hook_name}' with 'rkstore pull {self.where} --hook {hook_name}'"
        )

    def _using(self, path: str, recorded: FileRecord, use: Callable[[Path], T]) -> T:
        """As of a :class:`Store`; fetched again if another process made room in between."""
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                return use(self._present(path, recorded))
        return use(self._present(path, recorded))

    def _values_file(self, hook_name: str, shard: int) -> tuple[str, FileRecord]:
        path = self._format.shard_path(self.manifest.specs(hook_name)[""], shard)
        return path, self.records[shard].files[path]

    def _shard_files(self, hook_name: str, shard: int) -> dict[str, FileRecord]:
        """The files that rows of a site are decoded from."""
        specs = self.manifest.specs(hook_name).values()
        paths = [self._format.shard_path(spec, shard) for spec in specs]
        if self.codec.keeps_apart:
            paths.append(self.manifest.apart_path(hook_name, shard))
        return {path: self.records[shard].files[path] for path in paths}

    def _fetch_shard(self, hook_name: str, shard: int) -> None:
        for path, recorded in self._shard_files(hook_name, shard).items():
            self._present(path, recorded)

    def _fetch_ahead(self, hook_name: str, shard: int) -> None:
        """Fetch the next shard in the background, if the cache has room for both."""
        both = (self._shard_files(hook_name, n).values() for n in (shard, shard + 1))
        if sum(file.bytes for files in both for file in files) > self._cache_bytes:
            return

        def fetch_next() -> None:
            with suppress(Exception):  # its reader gets the error
                self._fetch_shard(hook_name, shard + 1)

        threading.Thread(target=fetch_next, daemon=True).start()

    def _present(self, path: str, recorded: FileRecord) -> Path:
        return self._fetched.present(path, recorded)

    def _forget(self, file: Path) -> None:
        """Close a file removed from the cache: an open one would still take space."""
        with self._lock:
            for key in [key for key in list(self._shards) if self._file_of(key) == file]:
                self._shards.pop(key, None)

    def _file_of(self, key: tuple[str, int]) -> Path:
        name, shard = key
        specs = self.manifest.all_specs()
        spec = next(spec for spec in specs if spec.name == name)
        return self.root / self._format.shard_path(spec, shard)

    def _how_to_get_more(self) -> str:
        return "the rest was not pushed there"
