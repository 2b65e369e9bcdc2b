"""Checking a store: every file against the size and the digest that were recorded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rkstore.errors import DamagedStore
from rkstore.store.files import (
    ASIDE,
    HUB_FILES,
    JOURNAL,
    LOCK,
    MANIFEST,
    PART,
    FileRecord,
    inside,
    reading,
    record_of,
    sha256,
)
from rkstore.store.store import Store


@dataclass(frozen=True)
class Problem:
    """A file that differs from its record, and how."""

    path: str
    what: str


def verify(store: Store, advance: Callable[[int], object] = lambda _: None) -> Iterator[Problem]:
    """Compare every file of a store with its record.

    Args:
        advance: called with the bytes of each file once it is checked.

    Yields:
        One problem for each file that was changed, truncated, lost or added.

    Raises:
        RkstoreError: the system does not let a file be read; whether it is intact is unknown.
    """
    expected = store.files()
    for path, recorded in expected.items():
        yield from _compare(store.root, path, recorded)
        advance(recorded.bytes)
    metadata = store.held.metadata(store.manifest)
    for path, content in metadata.items():
        yield from _compare(store.root, path, record_of(content))
    known = expected.keys() | metadata.keys() | {MANIFEST, JOURNAL, PART, LOCK} | HUB_FILES
    elsewhere = {path for record in store.records for path in record.files}
    for file in sorted(store.root.rglob("*")):
        path = file.relative_to(store.root).as_posix()
        if (file.is_symlink() or not file.is_dir()) and path not in known:
            if path.startswith(ASIDE):
                what = "was left by an interrupted write"
            elif store.part is None or path not in elsewhere:
                what = "is not recorded"
            else:
                what = f"is not in the part that {PART} states: pull again"
            yield Problem(path, what)


def _compare(root: Path, path: str, recorded: FileRecord) -> Iterator[Problem]:
    try:
        with reading(path, root):
            what = _difference(inside(root, path), recorded)
    except DamagedStore:
        what = "is not a file, or is reached by a symbolic link"
    except OSError:
        what = "is missing"
    if what:
        yield Problem(path, what)


def _difference(file: Path, recorded: FileRecord) -> str:
    """How a file differs from its record; an empty string if it does not."""
    size = file.stat().st_size
    if size != recorded.bytes:
        return f"has {size:,} bytes where {recorded.bytes:,} were written"
    return "" if sha256(file) == recorded.sha256 else "was changed"
