"""A writable directory at a URL, for pushing a store there."""

import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rkstore.errors import BadInput
from rkstore.store.files import ASIDE, aside, into_place, place, sync
from rkstore.store.places.url import Location
from rkstore.store.writing.lock import take_lock, unlock


class Destination(Location):
    """A writable :class:`Location`; each file is written atomically."""

    @contextmanager
    def writing(self) -> Iterator[dict[str, int]]:
        """Write to the directory; yields the size of every file in it, by path.

        Raises:
            BadInput: this kind of URL cannot be written to, or another process writes there.
        """
        if self.scheme in ("http", "https"):
            raise BadInput(f"{self.url} can be read only: push to s3://, sftp:// or a directory")
        if self.scheme == "hf":
            raise BadInput(
                "each file pushed to hf:// would be a separate commit: use "
                "'hf upload-large-folder USER/NAME STORE --repo-type dataset'"
            )
        lock = None
        if self.scheme == "file":
            Path(self._root).mkdir(parents=True, exist_ok=True)
            lock = take_lock(Path(self._root))
        try:
            yield self._sizes()
        finally:
            # The connection may be gone: then the next push removes leftover temporary files.
            with suppress(Exception):
                if self.scheme != "s3" and self._fs.isdir(self._at(ASIDE)):
                    self._fs.rm(self._at(ASIDE), recursive=True)
            if lock is not None:
                unlock(lock, Path(self._root))

    def put(self, path: str, source: Path) -> None:
        """Copy a local file there. A reader finds the old file or the new one, never a part."""
        with self._one_sentence(path, "write"):
            self._patiently(lambda: self._put(path, source))

    def _put(self, path: str, source: Path) -> None:
        if self.scheme == "s3":  # an object appears as a whole
            self._fs.put_file(str(source), self._at(path))
            return
        if self.scheme == "file":
            target, waiting = place(Path(self._root), path), aside(Path(self._root), path)
            shutil.copyfile(source, waiting)
            sync(waiting)
            into_place(waiting, target)
            return
        waits, goes = self._at(f"{ASIDE}/{path.replace('/', '__')}"), self._at(path)
        self._fs.makedirs(posixpath.dirname(waits), exist_ok=True)
        self._fs.put_file(str(source), waits)
        self._fs.makedirs(posixpath.dirname(goes), exist_ok=True)
        self._fs.ftp.posix_rename(waits, goes)

    def put_bytes(self, path: str, content: bytes) -> None:
        """Write a small file there atomically."""
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "content"
            source.write_bytes(content)
            self.put(path, source)

    def remove(self, path: str) -> None:
        """Remove a file there."""
        with self._one_sentence(path, "remove"):
            self._patiently(lambda: self._fs.rm_file(self._at(path)))

    def _sizes(self) -> dict[str, int]:
        with self._one_sentence(""):
            try:
                found = self._patiently(lambda: self._fs.find(self._root, detail=True))
            except FileNotFoundError:
                if self.scheme == "s3":  # a prefix need not exist, a bucket does
                    raise
                return {}
        before = f"{self._root}/"
        return {path.removeprefix(before): int(info["size"]) for path, info in found.items()}
