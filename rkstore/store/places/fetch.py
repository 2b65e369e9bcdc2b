"""Fetching one file of a store: aside, checked against its record, into place."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from rkstore.errors import DamagedStore
from rkstore.store.files import FileRecord, aside, into_place, place
from rkstore.store.places.url import Location

Advance = Callable[[int], object]


def fetch(
    location: Location, path: str, recorded: FileRecord, root: Path, advance: Advance
) -> None:
    """Fetch one file aside, check it, and put it in place; again if it is damaged.

    Args:
        advance: called with the bytes of each block that arrived; negative if it did in vain.

    Raises:
        DamagedStore: it is not what was recorded; nothing was put in place.
    """
    # Two processes may fetch the same file into one cache.
    waiting = aside(root, path, f".{os.getpid()}")
    try:
        location.until_whole(lambda: _receive(location, path, recorded, waiting, advance))
    except DamagedStore:
        waiting.unlink()
        raise
    into_place(waiting, place(root, path))


def _receive(
    location: Location, path: str, recorded: FileRecord, waiting: Path, advance: Advance
) -> None:
    digest, received = hashlib.sha256(), 0
    try:
        with waiting.open("wb") as file:
            for block in location.blocks(path):
                if received + len(block) > recorded.bytes:  # a server must not fill the disk
                    raise _damaged(location, path, f"more than {recorded.bytes:,} bytes")
                received += len(block)
                digest.update(block)
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
        if received != recorded.bytes:
            raise _damaged(location, path, f"{received:,} of {recorded.bytes:,} bytes")
        if digest.hexdigest() != recorded.sha256:
            raise _damaged(location, path, "other bytes")
    except DamagedStore:
        advance(-received)
        raise


def _damaged(location: Location, path: str, found: str) -> DamagedStore:
    return DamagedStore(
        f"{path} at {location.url} is not what was recorded ({found}): it was not kept; "
        "mend that copy, or use another"
    )
