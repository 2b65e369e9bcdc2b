"""Writing a store at a URL, shard by shard.

A shard is made in a local directory and sent; each file is there as a whole or not at all. Nothing
can be appended there, so the journal is replaced by a longer one, not for every shard but every
half minute, and at the end. Only then do the shards in it exist: a run that was killed repeats what
came later.
"""

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rkstore.errors import BadInput, RkstoreError
from rkstore.store.contents import read_contents
from rkstore.store.files import ASIDE, JOURNAL, LOCK, waiting_name
from rkstore.store.journal import Journal, ShardRecord
from rkstore.store.manifest import Manifest
from rkstore.store.piece import Piece, Whole, read_piece
from rkstore.store.writing.base import Writer
from rkstore.store.writing.destination import Destination
from rkstore.store.writing.making import Attempts
from rkstore.store.writing.writer import other_configuration


class RemoteWriter(Writer):
    """Creates a store at a URL, or continues one: it holds the claim to the URL."""

    def __init__(
        self, url: str, whole: Whole | Manifest, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Prepare the URL for the shards of that manifest, or of that piece.

        Args:
            files: the content of ``manifest.files``, by path.

        Raises:
            BadInput: something else is there, a store of another configuration, or somebody else
                writes there; or this kind of URL cannot be written to shard by shard.
            RkstoreError: it cannot be reached.
        """
        super().__init__(whole, files)
        self._url, self._there = url, Destination(url)
        self.where = self._there.url
        if self._there.scheme in ("hf", "file"):
            raise BadInput(
                f"no store is written shard by shard to {self.where}: give a directory, s3:// or "
                "sftp://; 'rkstore push' copies a finished one to the Hub"
            )
        self._lines, self._flushed, self._sent_at = bytearray(), 0, time.monotonic()
        self._metadata: dict[str, bytes] = {}
        """What was sent of it, by path."""
        self._new: list[str] = []
        """What this writer has put there, until its first shard is recorded."""
        self._closed = False
        with ExitStack() as held:
            self.disk = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="rkstore-")))
            there = held.enter_context(self._there.writing(self.manifest.fingerprint))
            self._present = {p for p in there if p != LOCK and not p.startswith(f"{ASIDE}/")}
            try:
                self._begin()
            except BaseException:
                self._remove_new()
                raise
            self._held = held.pop_all()

    def aside(self, path: str) -> Path:
        """As of every writer: a local file."""
        return self.disk / waiting_name(path)

    def attempts(self) -> Attempts:
        """As of every writer. Other processes need to be able to write to the URL."""
        return _Attempts(self._url, uuid.uuid4().hex, self.manifest)

    def record(self, made: ShardRecord, attempt: str = "") -> None:
        """As of every writer."""
        self.check_next(made)

        def bring(path: str) -> None:
            if attempt:
                self._there.adopt(attempt, path, made.files[path])
                return
            source = self.aside(path)
            # A run that was killed may have sent it.
            if path not in self._present or not self._there.has(path, made.files[path], source):
                self._there.put(path, source)
            source.unlink()

        if self._nothing_recorded:
            self._new += made.files
        self._there.each(bring, made.files)
        record = made.after(self._chain)
        self._lines += record.to_line()
        self.next_shard, self._chain = made.shard + 1, record.chain
        if time.monotonic() - self._sent_at >= self._there.journal_seconds or not self.missing:
            self._flush()

    @property
    def _nothing_recorded(self) -> bool:
        """A failure before the first record leaves nothing behind."""
        return not self._flushed

    def _begin(self) -> None:
        """Begin or continue what is there."""
        if self.whole.head in self._present:
            found, records = self._found()
            if different := self.whole.differences(found):
                raise other_configuration(self.where, different)
            self._lines += records.raw
            if records:
                self.next_shard, self._chain = records[-1].shard + 1, records[-1].chain
                self._flushed = self.next_shard
        elif self._present:
            what = "store" if type(self.whole) is Whole else self.whole.head
            raise BadInput(
                f"{self.where} is not empty and holds no {what} ({min(self._present)} is there): "
                "choose another --out"
            )
        else:
            self._put(self.whole.head, self.whole.to_bytes())
        for path in self.manifest.files:
            if path in self._files:
                self._put(path, self._files[path])
            elif path not in self._present:
                raise BadInput(f"{self.where} lacks {path}, and the writer was not given it")
        if self._flushed:
            self._put_metadata()

    def _found(self) -> tuple[Whole, Journal]:
        """What is there, and the shards recorded in it."""
        read, where = self._there.read_if_there, self.where
        if isinstance(self.whole, Piece):
            if found := self._there.until_whole(lambda: read_piece(read, where)):
                return found
            raise BadInput(f"{where} holds no piece of a harvest: choose another --out")
        contents = self._there.until_whole(lambda: read_contents(read, where))
        if contents.part is not None:
            raise BadInput(f"{where} is a part of a store: choose another --out")
        return Whole(contents.manifest), contents.records

    def _put(self, path: str, content: bytes) -> None:
        """Write a small file unless it is there already."""
        if path in self._present and self._there.has_bytes(path, content):
            return
        if path not in self._present:
            self._new.append(path)
        self._there.put_bytes(path, content)
        self._present.add(path)

    def _put_metadata(self) -> None:
        for path, content in self.whole.metadata(self.next_shard).items():
            if self._metadata.get(path) != content:
                self._put(path, content)
                self._metadata[path] = content

    def _flush(self) -> None:
        """Write the journal of all shards whose files are there: from here on they exist."""
        self._there.check_written()
        self._there.check_alone()
        self._there.put_bytes(JOURNAL, bytes(self._lines))
        self._flushed, self._sent_at = self.next_shard, time.monotonic()
        self._new.clear()
        self._put_metadata()
        self._there.check_written()

    def _close(self, *, failed: bool) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._closed:  # then somebody else may write there
            return
        self._closed = True
        with self._held:
            if not self._lines:
                if failed:
                    self._remove_new()
            elif self._flushed != self.next_shard:
                # After a failure, that is the one to report.
                with suppress(RkstoreError) if failed else ExitStack():
                    self._flush()

    def _remove_new(self) -> None:
        """Remove what was put there before a first shard was recorded."""
        for path in self._new:
            with suppress(RkstoreError):
                self._there.remove(path)


class _Attempts(Attempts):
    """At the URL itself, so that a finished shard need only be moved there."""

    @contextmanager
    def _directory(self, attempt: str) -> Iterator[Path]:
        there = Destination(self.where)
        with tempfile.TemporaryDirectory(prefix="rkstore-") as directory:
            local = Path(directory)
            yield local
            names = [file.name for file in local.iterdir()]
            there.each(lambda name: there.put(f"{ASIDE}/{attempt}/{name}", local / name), names)
