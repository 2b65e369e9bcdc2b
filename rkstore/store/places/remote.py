"""Reading a store at a URL, with a bounded cache of its files on disk.

A file is fetched when it is first read, checked against its recorded SHA-256 and kept; when the
cache is full, the least recently used files are removed. Several processes may share a cache.
While a shard is decoded, the next requested one is being fetched.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, size
from rkstore.store.files import ASIDE, FileRecord, in_place, named, writing
from rkstore.store.places.fetch import fetch
from rkstore.store.places.url import Location
from rkstore.store.store import Store

CACHE_BYTES = 10 * 10**9

# In a cache that is smaller than what its processes read at once, a file may be removed before it
# is opened, and once more after it was fetched again. So often it never is.
TRIES = 20

# A file that waits aside and did not grow for so long was left by a process that was killed.
UNFINISHED_SECONDS = 3600

T = TypeVar("T")


def default_cache() -> Path:
    """``$RKSTORE_CACHE``, or a directory in the user's own cache."""
    return named(os.environ.get("RKSTORE_CACHE") or "~/.cache/rkstore")


class RemoteStore(Store):
    """A store at a URL, read-only: everything a :class:`Store` reads, fetched as it is read."""

    def __init__(
        self, url: str, cache: str | Path | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Read the metadata of the store; no rows are fetched yet.

        Args:
            cache: directory of fetched files; :func:`default_cache` by default.
            cache_bytes: its maximum size, over all stores; 10 GB by default.

        Raises:
            BadInput: there is no store at the URL, or it needs a newer rkstore.
            DamagedStore: its manifest or journal was changed.
            RkstoreError: the server cannot be reached.
        """
        self._cache = default_cache() if cache is None else named(cache)
        self._cache_bytes = cache_bytes
        self._locate(url)
        self.where = self._location.url
        contents = self._location.contents()
        self.root = self._cache / contents.manifest.fingerprint
        self._hold(contents)

    def _locate(self, url: str) -> None:
        self._url, self._location = url, Location(url)
        self._fetching = threading.Lock()
        self._checked: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """As for a :class:`Store`; with the original URL, which may have a password."""
        cached = {"url": self._url, "cache": self._cache.absolute(), "bytes": self._cache_bytes}
        return super().__getstate__() | cached

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cache, self._cache_bytes = state["cache"], state["bytes"]
        self._locate(state["url"])
        super().__setstate__(state)

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

    def _shard_files(self, hook_name: str, shard: int) -> dict[str, FileRecord]:
        specs = self.manifest.specs(hook_name).values()
        paths = (self._format.shard_path(spec, shard) for spec in specs)
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
        file = self.root / path
        with self._fetching, writing(self._cache):
            # Its digest is checked once per process: a cached file may have changed since.
            known = path in self._checked and file.is_file()
            if not known and not in_place(self.root, path, recorded):
                self._make_room(recorded.bytes, path)
                self.root.mkdir(parents=True, exist_ok=True)
                fetch(self._location, path, recorded, self.root, lambda _: None)
            self._checked.add(path)
            with suppress(FileNotFoundError):
                os.utime(file)  # it is the one used last now
        return file

    def _make_room(self, needed: int, path: str) -> None:
        """Remove the least recently used files, so that the needed bytes fit."""
        if needed > self._cache_bytes:
            raise BadInput(
                f"{path} has {size(needed)} and the cache {self._cache} may hold "
                f"{size(self._cache_bytes)}: give a larger cache_bytes, or pull the store"
            )
        kept = sorted(_files(self._cache))
        held = sum(count for _, count, _ in kept)
        for _, count, file in kept:
            if held + needed <= self._cache_bytes:
                return
            file.unlink(missing_ok=True)
            self._forget(file)
            held -= count

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


def _files(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file of a cache was last used, its size, and where it is.

    Without those that another process is fetching.
    """
    for under, _, names in os.walk(cache):
        for name in names:
            file = Path(under) / name
            try:
                facts = file.stat()
            except FileNotFoundError:  # another process removed it
                continue
            if Path(under).name == ASIDE and time.time() - facts.st_mtime < UNFINISHED_SECONDS:
                continue
            yield facts.st_mtime, facts.st_size, file
