"""Writing a store, one shard at a time, so that a kill at any instant loses one shard at most.

Each file is written to a temporary name, synced and renamed into place; only then is the shard's
line appended to the journal, and only that line makes the shard exist. A writer that reopens the
directory finds complete shards, and continues after the last.
"""

import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import BadInput, RkstoreError
from rkstore.store.contents import read_contents
from rkstore.store.files import (
    ASIDE,
    JOURNAL,
    LOCK,
    aside,
    in_place,
    into_place,
    named,
    own,
    read_small,
    sync,
    writing,
)
from rkstore.store.journal import Journal, ShardRecord
from rkstore.store.manifest import Manifest
from rkstore.store.piece import Piece, Whole, read_piece
from rkstore.store.writing.base import Writer
from rkstore.store.writing.lock import claim, unlock
from rkstore.store.writing.making import Attempts

# How often a directory is emptied that a file was added to meanwhile.
TRIES = 10


class StoreWriter(Writer):
    """Creates a store in a directory, or continues one: it holds the store's lock."""

    def __init__(
        self,
        root: str | Path,
        manifest: Manifest | Whole,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Prepare the directory for the shards of that manifest, or of that piece.

        Args:
            files: the content of ``manifest.files``, by path; may be left out where they are in
                place.

        Raises:
            BadInput: the directory holds something else, a store of another
                configuration, or another process is writing to it; or a file is not the one of
                the manifest.
        """
        super().__init__(manifest, files)
        self.root = self.disk = named(root)
        self.where = str(self.root)
        self._lock: BinaryIO | None = None
        self._made_root = False
        self._journal_bytes = 0
        with writing(self.root):
            self._claim()

    def _close(self, *, failed: bool) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._lock is None:
            return
        _remove(self.root / ASIDE)
        nothing = failed and self.next_shard == self.whole.shards.start
        if nothing:
            with suppress(OSError, RkstoreError):  # the first error is the one to report
                self._remove_unrecorded(self.whole)
                own(self.root, self.whole.head).unlink(missing_ok=True)
        unlock(self._lock, self.root)
        self._lock = None
        if nothing and self._made_root:
            with suppress(OSError):
                self.root.rmdir()

    def aside(self, path: str) -> Path:
        """As of every writer."""
        return aside(self.root, path)

    def attempts(self) -> Attempts:
        """As of every writer. Other processes need to have the directory at the same path."""
        run = uuid.uuid4().hex
        with writing(self.root):
            (self.root / ASIDE / run).mkdir(parents=True)
        return _Attempts(str(self.root.absolute()), run, self.manifest)

    def record(self, made: ShardRecord, attempt: str = "") -> None:
        """As of every writer."""
        self.check_next(made)
        with writing(self.root):
            self._record(made, attempt)

    def _record(self, made: ShardRecord, attempt: str) -> None:
        record = made.after(self._chain)
        line, derived = record.to_line(), self._metadata_aside(made.shard + 1)
        # Everything is written and synced: what follows needs hardly any room.
        for path in made.files:
            self._into_place(path, attempt)
        self._trim_journal()
        with own(self.root, JOURNAL).open("ab") as journal:
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())
        sync(self.root)
        self.next_shard, self._chain = made.shard + 1, record.chain
        self._journal_bytes += len(line)
        for path in derived:
            self._into_place(path)
        if attempt:
            shutil.rmtree(self.root / ASIDE / attempt, ignore_errors=True)

    def _claim(self) -> None:
        """Lock the directory, and begin or continue what is in it."""
        self._made_root = not self.root.exists()
        self._lock, begun = claim(self.root, {LOCK, ASIDE}, self.whole.head)
        try:
            shutil.rmtree(self.root / ASIDE, ignore_errors=True)
            if begun:
                self._continue(*self._found())
            else:
                self._begin()
        except BaseException:
            # Files that were there before are not ours to remove.
            self._close(failed=not begun)
            raise

    def _found(self) -> tuple[Whole, Journal]:
        """What is in the directory, and the shards recorded in it."""
        read = partial(read_small, self.root)
        if isinstance(self.whole, Piece) and (found := read_piece(read, self.where)):
            return found
        contents = read_contents(read, self.where)
        if contents.part is not None:
            raise BadInput(
                f"{self.root} is a part of a store: complete it with "
                f"'rkstore pull URL --out {self.root}', or choose another --out"
            )
        return Whole(contents.manifest), contents.records

    def _begin(self) -> None:
        files = self._files_aside()
        self._set_aside(self.whole.head, self.whole.to_bytes())
        self._into_place(self.whole.head)
        for path in files:
            self._into_place(path)

    def _continue(self, found: Whole, records: Journal) -> None:
        """Continue what is there. A store without shards may be replaced by another."""
        different = self.whole.differences(found)
        if different and not records:
            self._remove_unrecorded(found)
            self._begin()
            return
        if different:
            raise other_configuration(self.where, different)
        if records:
            self.next_shard, self._chain = records[-1].shard + 1, records[-1].chain
            self._journal_bytes = records.bytes
        self._settle()

    def _remove_unrecorded(self, whole: Whole) -> None:
        """Remove the files of an unrecorded first shard, and its directories."""
        manifest, first = whole.manifest, whole.shards.start
        derived = whole.metadata(first + 1)
        for path in (JOURNAL, *manifest.shard_paths(first), *derived, *manifest.files):
            own(self.root, path).unlink(missing_ok=True)
            for parent in Path(path).parents[:-1]:
                with suppress(OSError):  # it is not empty, or was never made
                    (self.root / parent).rmdir()

    def _settle(self) -> None:
        """Bring files derived from the journal in line with it after a kill."""
        self._trim_journal()
        for path in self._files_aside():
            self._into_place(path)
        if self.next_shard > self.whole.shards.start:
            for path in self._metadata_aside(self.next_shard):
                self._into_place(path)

    def _trim_journal(self) -> None:
        """Cut off an unfinished line."""
        journal = own(self.root, JOURNAL)
        if journal.exists() and journal.stat().st_size > self._journal_bytes:
            os.truncate(journal, self._journal_bytes)

    def _files_aside(self) -> list[str]:
        """Write the files of the whole store that are not in place to temporary names."""
        missing = [p for p, f in self.manifest.files.items() if not in_place(self.root, p, f)]
        for path in missing:
            if path not in self._files:
                raise BadInput(f"{self.root} lacks {path}, and the writer was not given it")
            self._set_aside(path, self._files[path])
        return missing

    def _metadata_aside(self, shards: int) -> list[str]:
        """Write changed files derived from the shards before that one to temporary names."""
        metadata = self.whole.metadata(shards)
        return [path for path, content in metadata.items() if self._set_aside(path, content)]

    def _set_aside(self, path: str, content: bytes) -> bool:
        """Write a small temporary file unless it is in place already; return whether it was
        written.
        """
        target = own(self.root, path)
        if target.is_file() and target.read_bytes() == content:
            return False
        waiting = self.aside(path)
        waiting.write_bytes(content)
        sync(waiting)
        return True

    def _into_place(self, path: str, attempt: str = "") -> None:
        own(self.root, path)  # what is a link is not replaced
        into_place(self.root, path, attempt=attempt)


def other_configuration(where: str, different: list[str]) -> BadInput:
    """The refusal to continue what was written with other options."""
    return BadInput(
        f"{where} holds a store of another configuration "
        f"({'; '.join(different[:3])}): choose another --out, or remove it first"
    )


def _remove(waiting: Path) -> None:
    """Remove files that wait, though a worker that is about to end may still add one.

    It makes no directories, so what is removed of them stays removed.
    """
    for _ in range(TRIES):
        shutil.rmtree(waiting, ignore_errors=True)
        if not waiting.exists():
            return


class _Attempts(Attempts):
    """In the store's own directory, so that a finished shard need only be renamed."""

    @contextmanager
    def _directory(self, attempt: str) -> Iterator[Path]:
        root = Path(self.where)
        at = root / ASIDE / attempt
        try:
            at.mkdir()  # without its parents: they are there as long as somebody waits for this
        except FileNotFoundError:
            raise BadInput(
                f"{root} is not there on {platform.node()}, or its writer has ended: workers need "
                "to share its disk, or give --out a URL such as s3://"
            ) from None
        try:
            with writing(root):
                yield at
        except BaseException:
            shutil.rmtree(at, ignore_errors=True)
            raise
