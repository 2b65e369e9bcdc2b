"""Checking a store: every file against the size and the digest that were recorded."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rkstore.errors import DamagedStore
from rkstore.store.files import (
    ASIDE,
    HUB_FILES,
    JOURNAL,
    LOCK,
    LOST,
    MANIFEST,
    PART,
    TOO_MANY_OPEN,
    FileRecord,
    inside,
    reading,
    record_of,
    sha256,
)
from rkstore.store.store import Store
from rkstore.store.writing.lock import writer_of

if TYPE_CHECKING:
    from rkstore.store.places.remote import RemoteStore


@dataclass(frozen=True)
class Problem:
    """A file that differs from its record, and how."""

    path: str
    what: str


def verify(store: Store, advance: Callable[[int], object] = lambda _: None) -> Iterator[Problem]:
    """Compare every file of a store with its record.

    While the store is being written, the shards that it had when it was opened are checked; what
    the writer is about to record is no problem.

    Args:
        advance: called with the bytes of each file once it is checked.

    Yields:
        One problem for each file that was changed, cut short, lost or added, or cannot be read.

    Raises:
        RkstoreError: too many files are open.
    """
    root, busy = store.root, writer_of(store.root)
    # Before its first shard a writer may still be about to write the files of the whole store.
    expected = {} if busy and not store.records else store.files()
    for path, recorded in expected.items():
        yield from _compare(root, path, recorded)
        advance(recorded.bytes)
    there = sorted(root.rglob("*"))
    busy = busy or writer_of(root)
    now = Store(root) if busy else store  # with the shards recorded meanwhile
    metadata = now.held.metadata(now.manifest)
    derived = [p for path, raw in metadata.items() for p in _compare(root, path, record_of(raw))]
    if not busy:  # the writer renews them after every shard
        yield from derived
    known = now.files().keys() | metadata.keys() | {MANIFEST, JOURNAL, PART, LOCK} | HUB_FILES
    elsewhere: set[str] = set()
    if now.part is not None:
        elsewhere = {*now.manifest.files}.union(*(record.files for record in now.records))
    if busy:
        known |= elsewhere | set(now.manifest.shard_paths(len(now.records)))
    for file in there:
        path = file.relative_to(root).as_posix()
        if path in known or (file.is_dir() and not file.is_symlink()):
            continue
        if path.startswith(ASIDE):
            if not busy:
                yield Problem(path, "was left by an interrupted write")
        elif path in elsewhere:
            yield Problem(path, f"is not of the part that {PART} states: pull again")
        else:
            yield Problem(path, "is not recorded")


def verify_at_url(
    store: "RemoteStore", advance: Callable[[int], object] = lambda _: None
) -> Iterator[Problem]:
    """Read every file of a store at a URL once, and compare it with its record; nothing is kept.

    Files that are there besides are not seen: not every server has lists.

    Args:
        advance: called with the bytes of each block that was read; negative if it was in vain.

    Raises:
        RkstoreError: the server cannot be reached.
    """
    files = store.files()
    if store.complete:  # before that they are renewed with every push
        metadata = store.held.metadata(store.manifest)
        files |= {path: record_of(raw) for path, raw in metadata.items()}

    def compared(path: str) -> Problem:
        return Problem(path, store.differs(path, files[path], advance))

    with ThreadPoolExecutor(store.at_once) as pool:
        yield from (problem for problem in pool.map(compared, files) if problem.what)


def _compare(root: Path, path: str, recorded: FileRecord) -> Iterator[Problem]:
    try:
        what = _difference(inside(root, path), recorded)
    except DamagedStore:
        what = "is not a file, or is reached by a symbolic link"
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            with reading(path, root):
                raise
        what = f"cannot be read: {os.strerror(error.errno or 0)}"
        if error.errno in LOST:
            what = "is missing"
    if what:
        yield Problem(path, what)


def _difference(file: Path, recorded: FileRecord) -> str:
    """How a file differs from its record; an empty string if it does not."""
    size = file.stat().st_size
    if size != recorded.bytes:
        return f"has {size:,} bytes where {recorded.bytes:,} were written"
    return "" if sha256(file) == recorded.sha256 else "was changed"
