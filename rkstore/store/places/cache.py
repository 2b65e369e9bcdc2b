"""The files of a store at a URL that were fetched: in a directory of bounded size.

The bound holds for all stores in the directory. When it is full, the least recently used files are
removed. Several processes may share it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rkstore.errors import BadInput, size
from rkstore.store.files import ASIDE, FileRecord, in_place, writing
from rkstore.store.places.fetch import fetch
from rkstore.store.places.url import Location

# A file that waits aside and did not grow for so long was left by a process that was killed.
UNFINISHED_SECONDS = 3600


class Cache:
    """Files of one store, each fetched once and checked against its record."""

    def __init__(
        self,
        location: Location,
        directory: Path,
        most: int,
        name: str,
        removed: Callable[[Path], object],
    ) -> None:
        """Nothing is read or written yet.

        Args:
            most: bytes that all files in the directory may take.
            name: of the store, below the directory.
            removed: called with each file of any store that was removed to make room.
        """
        self.root, self._location, self._removed = directory / name, location, removed
        self._directory, self._most = directory, most
        self._checked: set[str] = set()
        self._changing = threading.Condition()
        self._coming: set[str] = set()
        self._reserved: dict[str, int] = {}
        """Bytes of files that are being fetched."""
        self._room = 0
        """Bytes that may be fetched before the directory is looked at again."""

    def known(self, path: str) -> bool:
        """Whether this process fetched or checked a file already."""
        return path in self._checked

    def has(self, path: str, recorded: FileRecord) -> bool:
        """Whether a file need not be fetched."""
        if path not in self._checked:
            return in_place(self.root, path, recorded)
        return (self.root / path).is_file()

    def present(self, path: str, recorded: FileRecord) -> Path:
        """A file of the store, fetched unless it is there; from any number of threads.

        Raises:
            BadInput: it is larger than the cache may be.
            DamagedStore, RkstoreError: see :func:`~rkstore.store.places.fetch.fetch`.
        """
        file = self.root / path
        with self._changing:
            self._changing.wait_for(lambda: path not in self._coming)
            self._coming.add(path)
        try:
            # Its digest is checked once per process: a cached file may have changed since.
            if not self.has(path, recorded):
                with writing(self._directory):
                    self._make_room(path, recorded.bytes)
                    self.root.mkdir(parents=True, exist_ok=True)
                    fetch(self._location, path, recorded, self.root, lambda _: None)
            self._checked.add(path)
        finally:
            with self._changing:
                self._coming.discard(path)
                self._reserved.pop(path, None)
                self._changing.notify_all()
        with suppress(FileNotFoundError):
            os.utime(file)  # it is the one used last now
        return file

    def _make_room(self, path: str, needed: int) -> None:
        """Remove the least recently used files, so that the needed bytes fit."""
        if needed > self._most:
            raise BadInput(
                f"{path} has {size(needed)} and the cache {self._directory} may hold "
                f"{size(self._most)}: give a larger cache_bytes, or pull the store"
            )
        with self._changing:
            self._changing.wait_for(lambda: needed + self._fetching <= self._most)
            if needed > self._room:
                self._remove(self._most - needed - self._fetching)
            else:
                self._room -= needed
            self._reserved[path] = needed

    @property
    def _fetching(self) -> int:
        return sum(self._reserved.values())

    def _remove(self, most: int) -> None:
        """Remove files until the rest takes no more than that."""
        kept = sorted(_files(self._directory))
        held = sum(count for _, count, _ in kept)
        for _, count, file in kept:
            if held <= most:
                break
            file.unlink(missing_ok=True)
            self._removed(file)
            held -= count
        # To look takes as long as there are files. Half of the room: it may have other users.
        self._room = (most - held) // 2


def _files(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file of a cache was last used, its size, and where it is.

    Without those that are being fetched.
    """
    for under, _, names in os.walk(directory):
        for name in names:
            file = Path(under) / name
            try:
                facts = file.stat()
            except FileNotFoundError:  # another process removed it
                continue
            if Path(under).name == ASIDE and time.time() - facts.st_mtime < UNFINISHED_SECONDS:
                continue
            yield facts.st_mtime, facts.st_size, file
