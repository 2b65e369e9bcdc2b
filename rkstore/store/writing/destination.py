"""A writable directory at a URL, for writing a store there or pushing one."""

import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import (
    ASIDE,
    LOCK,
    FileRecord,
    intact,
    into_place,
    is_recorded,
    open_aside,
    waiting_name,
)
from rkstore.store.places.remote import default_cache
from rkstore.store.places.several import each
from rkstore.store.places.url import Location, NotThere
from rkstore.store.writing.claim import LARGEST_CLAIM, check_claim, claim_for
from rkstore.store.writing.lock import take_lock, unlock

# Large files go to S3 in parts of this size: s3fs' own.
S3_PART_BYTES = 50 * 2**20
COPIED_BYTES = 2**20


@dataclass(frozen=True)
class Listed:
    """What a server's list says of a file."""

    bytes: int
    tag: str
    """Of S3; empty elsewhere."""


class Destination(Location):
    """A writable :class:`Location`; each file is written atomically."""

    # A journal at a URL cannot be appended to: a killed push repeats at most this much.
    journal_seconds = 30.0

    def __init__(self, url: str | Path) -> None:
        """As for a :class:`Location`."""
        super().__init__(url)
        self._listed: dict[str, Listed] = {}
        self._written: dict[str, Listed] = {}
        """What was written since it was last looked at, with a tag if it replaced another."""
        self._claim = b""
        """Ours to the URL, while it is written to where there are no locks."""

    @contextmanager
    def writing(self, store: str) -> Iterator[set[str]]:
        """Write to the directory, alone; yields the path of every file in it.

        Args:
            store: fingerprint of what is written; a push of it that died is taken over.

        Raises:
            BadInput: this kind of URL cannot be written to, or another process writes there.
        """
        if self.scheme in ("http", "https"):
            raise BadInput(f"{self.url} can be read only: push to s3://, sftp:// or a directory")
        with self._locked() if self.scheme == "file" else self._claimed(store):
            try:
                yield self._list()
            finally:
                # The connection may be gone by now: then the next push removes what is left aside.
                with suppress(Exception):
                    self._fs.invalidate_cache()
                    if self._fs.isdir(self._at(ASIDE)):
                        self._fs.rm(self._at(ASIDE), recursive=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        root = Path(self._root)
        root.mkdir(parents=True, exist_ok=True)
        lock = take_lock(root)
        try:
            yield
        finally:
            unlock(lock, root)

    def check_alone(self) -> None:
        """Raise BadInput if the claim to the URL is not ours any more."""
        if self._claim:
            try:
                found = self.read(LOCK, LARGEST_CLAIM)
            except NotThere:
                found = b""
            check_claim(found, self._claim, self.url)

    @contextmanager
    def _claimed(self, store: str) -> Iterator[None]:
        with claim_for(self.url, store, default_cache() / "pushes") as claim:
            with self._one_sentence(LOCK, "write"), suppress(FileExistsError):
                self._patiently(lambda: self._create(LOCK, claim))
            # Read in any case: it may be ours, or a server may not know exclusive writes.
            check_claim(self.read(LOCK, LARGEST_CLAIM), claim, self.url)
            self._claim = claim
            try:
                yield
            finally:
                self._claim = b""
                with suppress(Exception):  # if it stays, the next push from here takes it over
                    if self.read(LOCK, LARGEST_CLAIM) == claim:
                        self.remove(LOCK)

    def _create(self, path: str, content: bytes) -> None:
        """Write a small file that is not there yet; of several who try, one succeeds."""
        if self.scheme == "s3":
            self._fs.pipe_file(self._at(path), content, mode="create")  # If-None-Match: *
            return
        self._fs.makedirs(self._root, exist_ok=True)
        try:
            with self._fs.ftp.open(self._at(path), "wx") as file:
                file.write(content)
        except OSError:  # SFTP has no error of its own for this
            if self._fs.exists(self._at(path)):
                raise FileExistsError(path) from None
            raise

    def has(self, path: str, recorded: FileRecord, source: Path) -> bool:
        """Whether the file there is what was recorded.

        S3's own checksum is compared where it can be; otherwise the file is read and hashed.

        Args:
            source: the local file that would be sent.
        """
        if self.scheme == "file":
            return intact(Path(self._root), path, recorded)
        tag = self._listed[path].tag if path in self._listed else ""
        if tag and tag == _tag(source, tag) and is_recorded(source, recorded):
            return True
        digest, received = hashlib.sha256(), 0
        with suppress(RkstoreError):  # what cannot be read is sent again
            for block in self.blocks(path):
                digest.update(block)
                received += len(block)
                if received > recorded.bytes:
                    return False
            return digest.hexdigest() == recorded.sha256
        return False

    def has_bytes(self, path: str, content: bytes) -> bool:
        """Whether a small file there has that content."""
        with suppress(RkstoreError):
            return self.read(path, len(content)) == content
        return False

    def check_written(self) -> None:
        """Look again at what S3 said it has written: a gateway may have lost it.

        Over SFTP each file was looked at when it was sent; a local one was synced.

        Raises:
            RkstoreError: a file is not there, has another size, or is what it was before.
        """
        if self.scheme != "s3":
            return
        written, self._written = self._written, {}
        before = self._listed
        self._list()
        for path, sent in written.items():
            there = self._listed.get(path)
            stale = sent.tag and there == before[path] != sent
            if there is None or there.bytes != sent.bytes or stale:
                raise RkstoreError(
                    f"{path} was written to {self.url}, and it is not there: run the same command "
                    "again, which sends what is missing"
                )

    def put(self, path: str, source: Path) -> None:
        """Copy a local file there. A reader finds the old file or the new one, never a part."""
        with self._one_sentence(path, "write"):
            self._patiently(lambda: self._put(path, source))
        if self.scheme == "s3":
            before = self._listed[path].tag if path in self._listed else ""
            tag = _tag(source, before) if before else ""
            self._written[path] = Listed(source.stat().st_size, tag)

    def _put(self, path: str, source: Path) -> None:
        if self.scheme == "s3":  # an object appears as a whole
            self._fs.put_file(str(source), self._at(path))
            return
        if self.scheme == "file":
            root = Path(self._root)
            with source.open("rb") as there, open_aside(root, path) as file:
                shutil.copyfileobj(there, file, COPIED_BYTES)
                file.flush()
                os.fsync(file.fileno())
            into_place(root, path)
            return
        waits, goes = self._at(f"{ASIDE}/{path.replace('/', '__')}"), self._at(path)
        self._fs.makedirs(posixpath.dirname(waits), exist_ok=True)
        self._fs.put_file(str(source), waits)
        self._fs.makedirs(posixpath.dirname(goes), exist_ok=True)
        self._fs.ftp.posix_rename(waits, goes)

    def adopt(self, attempt: str, path: str, recorded: FileRecord) -> None:
        """Move a file that waits there, in the directory of an attempt, to its path.

        It was sent by another process; nothing of it comes through this one.
        """
        waits = self._at(f"{ASIDE}/{attempt}/{waiting_name(path)}")
        with self._one_sentence(path, "write"):
            self._patiently(lambda: self._move(waits, self._at(path)))
        if self.scheme == "s3":
            self._written[path] = Listed(recorded.bytes, "")

    def _move(self, waits: str, goes: str) -> None:
        if self.scheme == "s3":  # copied there, by the server
            self._fs.cp_file(waits, goes)
            return
        self._fs.makedirs(posixpath.dirname(goes), exist_ok=True)
        if not (self._fs.exists(goes) and not self._fs.exists(waits)):  # an answer was lost
            self._fs.ftp.posix_rename(waits, goes)

    def each(self, work: Callable[[str], None], paths: Iterable[str]) -> None:
        """Do the work for every path, as many at once as the server serves."""
        each(work, paths, self.at_once)

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

    def _list(self) -> set[str]:
        with self._one_sentence(""):
            self._fs.invalidate_cache()
            try:
                found = self._patiently(lambda: self._fs.find(self._root, detail=True))
            except FileNotFoundError:
                if self.scheme == "s3":  # a prefix need not exist, a bucket does
                    raise
                return set()
        paths = {path.removeprefix(f"{self._root}/"): info for path, info in found.items()}
        self._listed = {
            path: Listed(int(info["size"]), str(info.get("ETag", "")).strip('"'))
            for path, info in paths.items()
        }
        return set(paths)


def _tag(source: Path, like: str) -> str:
    """The tag that S3 gives that file if s3fs sends it: MD5 of it, or of those of its parts."""
    with source.open("rb") as file:
        if "-" not in like:
            return hashlib.file_digest(file, _md5).hexdigest()
        parts = [_md5(part).digest() for part in iter(lambda: file.read(S3_PART_BYTES), b"")]
    return f"{_md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def _md5(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)
