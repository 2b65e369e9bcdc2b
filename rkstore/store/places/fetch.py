"""Fetching one file of a store, checked against its record."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import DamagedStore
from rkstore.store.files import FileRecord, into_place, open_aside
from rkstore.store.places.url import Location

Advance = Callable[[int], object]


def fetch(
    location: Location, path: str, recorded: FileRecord, root: Path, advance: Advance
) -> None:
    """Fetch one file aside, check it, and put it in place; again if it is damaged.

    Args:
        advance: called with the bytes of each block that arrived; negative if it did in vain.

    Raises:
        DamagedStore: it does not match its record; nothing was put in place.
    """
    # Two processes, or two stores of one, may fetch the same file into one cache.
    mark = f".{os.getpid()}.{threading.get_native_id()}"

    def arrive() -> None:
        with open_aside(root, path, mark) as file:
            receive(location, path, recorded, file, advance)

    location.until_whole(arrive)
    into_place(root, path, mark)


def check(location: Location, path: str, recorded: FileRecord, advance: Advance) -> None:
    """Read one file and keep nothing.

    Raises:
        DamagedStore: it does not match its record, also when it is read again.
    """
    location.until_whole(lambda: _receive(location, path, recorded, lambda _: None, advance))


def fetched(location: Location, path: str, recorded: FileRecord) -> bytes:
    """The content of a small file, checked.

    Raises:
        DamagedStore: it does not match its record, also when it is read again.
    """

    def content() -> bytes:
        found = bytearray()
        _receive(location, path, recorded, found.extend, lambda _: None)
        return bytes(found)

    return location.until_whole(content)


def receive(
    location: Location,
    path: str,
    recorded: FileRecord,
    file: BinaryIO,
    advance: Advance = lambda _: None,
) -> None:
    """Copy one file into an open one, synced.

    Args:
        advance: see :func:`fetch`.

    Raises:
        DamagedStore: it does not match its record; the open one is empty.
    """
    try:
        _receive(location, path, recorded, file.write, advance)
    except DamagedStore:
        file.truncate(0)  # a cache keeps what waits aside
        raise
    file.flush()
    os.fsync(file.fileno())


def _receive(
    location: Location,
    path: str,
    recorded: FileRecord,
    keep: Callable[[bytes], object],
    advance: Advance,
) -> None:
    digest, received = hashlib.sha256(), 0
    try:
        for block in location.blocks(path):
            if received + len(block) > recorded.bytes:  # a server must not fill the disk
                raise damaged(location, path, f"more than {recorded.bytes:,} bytes")
            received += len(block)
            digest.update(block)
            keep(block)
            advance(len(block))
        if received != recorded.bytes:
            raise damaged(location, path, f"{received:,} of {recorded.bytes:,} bytes")
        if digest.hexdigest() != recorded.sha256:
            raise damaged(location, path, "other bytes")
    except DamagedStore:
        advance(-received)
        raise


def damaged(location: Location, path: str, found: str) -> DamagedStore:
    """What to say of a file that is not what was recorded."""
    return DamagedStore(
        f"{path} at {location.url} is not what was recorded ({found}): it was not kept; "
        "mend that copy, or use another"
    )
