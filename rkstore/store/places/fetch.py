"""Files that arrive: fetched aside, checked, put in place as a whole."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from rkstore.errors import BadInput, DamagedStore, size
from rkstore.share.copies import Moved, each
from rkstore.store.contents import check_same
from rkstore.store.files import (
    ASIDE,
    JOURNAL,
    LOCK,
    MANIFEST,
    PART,
    FileRecord,
    intact,
    own,
    place,
    record_of,
    sync_directory,
)
from rkstore.store.manifest import Manifest
from rkstore.store.places.url import Location
from rkstore.store.store import Store
from rkstore.store.writing.lock import let_go, take_lock

Advance = Callable[[int], object]


@contextmanager
def claimed(root: Path, manifest: Manifest, location: Location) -> Iterator[None]:
    """Hold the lock of a directory that has that store, or of one made for it."""
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is a file: choose another --out")
    begun = {LOCK, ASIDE, PART, JOURNAL}  # all that a pull writes before the manifest
    others = sorted({file.name for file in root.iterdir()} - begun) if root.is_dir() else []
    if others and MANIFEST not in others:
        raise BadInput(
            f"{root} is not empty and holds no store ({others[0]} is there): choose another --out"
        )
    if others:
        check_same(manifest, Store(root).manifest, location.url, str(root))
    root.mkdir(parents=True, exist_ok=True)
    lock = take_lock(root)
    try:
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        yield
    finally:
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        let_go(lock, root)


def fetch_missing(location: Location, wanted: dict[str, FileRecord], root: Path) -> Moved:
    """Fetch every file that is not here as it should be."""
    lock = threading.Lock()
    total = sum(file.bytes for file in wanted.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="pull", disable=None) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        missing = {}
        for path, recorded in wanted.items():
            if intact(root, path, recorded):
                advance(recorded.bytes)
            else:
                missing[path] = recorded
        needed = sum(file.bytes for file in missing.values())
        free = shutil.disk_usage(root).free
        if needed > free:
            raise BadInput(f"{size(needed)} are to be fetched and {root} has {size(free)} free")

        def one(path: str) -> None:
            fetch(location, path, missing[path], root, advance)

        each(one, missing, location.at_once)
    return Moved(len(missing), needed, len(wanted) - len(missing))


def fetch(
    location: Location, path: str, recorded: FileRecord, root: Path, advance: Advance
) -> None:
    """Fetch one file aside, check it, and put it in its place.

    Raises:
        DamagedStore: it is not what was recorded; nothing was put in place.
    """
    aside = _aside(root, path)
    digest, received = hashlib.sha256(), 0
    with aside.open("wb") as file:
        for block in location.blocks(path):
            received += len(block)
            if received > recorded.bytes:  # what a server sends must not fill the disk
                break
            digest.update(block)
            file.write(block)
            advance(len(block))
        file.flush()
        os.fsync(file.fileno())
    if received != recorded.bytes or digest.hexdigest() != recorded.sha256:
        aside.unlink()
        found = "other bytes" if received == recorded.bytes else f"not {recorded.bytes:,} bytes"
        raise DamagedStore(
            f"{path} at {location.url} is not what was recorded ({found}): it was not kept; "
            "mend that copy, or use another"
        )
    _into_place(root, aside, path)


def replace(root: Path, path: str, content: bytes) -> None:
    """Put a small file in place as a whole, unless it is there already."""
    if intact(root, path, record_of(content)):
        return
    aside = _aside(root, path)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _into_place(root, aside, path)


def _aside(root: Path, path: str) -> Path:
    # Two processes may fetch the same file into one cache.
    aside = own(root, f"{ASIDE}/{path.replace('/', '__')}.{os.getpid()}")
    aside.parent.mkdir(exist_ok=True)
    return aside


def _into_place(root: Path, aside: Path, path: str) -> None:
    target = place(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(target)
    sync_directory(target.parent)
