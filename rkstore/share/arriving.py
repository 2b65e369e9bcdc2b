"""Receiving files into a directory: locking it, fetching missing files, cleaning up."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from rkstore.errors import BadInput, size
from rkstore.share.copies import check_same
from rkstore.store.files import ASIDE, JOURNAL, LOCK, PART, FileRecord, in_place
from rkstore.store.manifest import Manifest
from rkstore.store.places.fetch import fetch
from rkstore.store.places.moved import Moved
from rkstore.store.places.several import each
from rkstore.store.places.url import Location
from rkstore.store.store import Store
from rkstore.store.writing.lock import claim, unlock


@contextmanager
def claimed(root: Path, manifest: Manifest, location: Location) -> Iterator[None]:
    """Hold the lock of a directory that has that store, or of one made for it."""
    # A pull writes the manifest last.
    lock, begun = claim(root, {LOCK, ASIDE, PART, JOURNAL})
    try:
        if begun:
            check_same(manifest, Store(root).manifest, location.url, str(root))
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        yield
    finally:
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        unlock(lock, root)


def fetch_missing(location: Location, wanted: dict[str, FileRecord], root: Path) -> Moved:
    """Fetch every file that is missing or damaged here."""
    lock = threading.Lock()
    total = sum(file.bytes for file in wanted.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="pull", disable=None) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        missing = {}
        for path, recorded in wanted.items():
            if in_place(root, path, recorded):
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
