"""Fetching one file of a store, checked against its record."""

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
    """Fetch one file, check it, and put it in place.

    Args:
        advance: called with the bytes of each block that arrived.

    Raises:
        DamagedStore: it does not match its record; nothing was put in place.
    """
    # Two processes may fetch the same file into one cache.
    waiting = aside(root, path, f".{os.getpid()}")
    digest, received = hashlib.sha256(), 0
    with waiting.open("wb") as file:
        for block in location.blocks(path):
            received += len(block)
            if received > recorded.bytes:  # a server must not fill the disk
                break
            digest.update(block)
            file.write(block)
            advance(len(block))
        file.flush()
        os.fsync(file.fileno())
    if received != recorded.bytes or digest.hexdigest() != recorded.sha256:
        waiting.unlink()
        found = "other bytes" if received == recorded.bytes else f"not {recorded.bytes:,} bytes"
        raise DamagedStore(
            f"{path} at {location.url} is not what was recorded ({found}): it was not kept; "
            "repair that copy, or use another"
        )
    into_place(waiting, place(root, path))
