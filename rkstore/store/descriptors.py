"""A limit on open shard files, below the system's limit per process.

A mapped file holds a file descriptor. Many systems allow a process 1,024, macOS 256, and other
libraries need some too.
"""

import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

from rkstore.store.files import TOO_MANY_OPEN
from rkstore.store.formats import Shard

# More would not make reading faster; if fewer are allowed, shards use a quarter of them.
OPEN_SHARDS = 256
SHARE = 4

Key = tuple[str, int]
T = TypeVar("T")


class Holder(Protocol):
    """Anything with open shards, by array and number."""

    _shards: dict[Key, Shard]


class OpenShards:
    """The open shards of all stores in this process; the least recently used are closed."""

    def __init__(self) -> None:
        # The least recently used first. A store that no longer exists has closed its own.
        self._used: OrderedDict[tuple[weakref.ref[Holder], Key], None] = OrderedDict()
        self._lock = threading.Lock()

    def used(self, holder: Holder, key: Key) -> None:
        """Note that a store uses one of its shards; close others if too many are open."""
        entry = (weakref.ref(holder), key)
        with self._lock:
            if entry in self._used:
                self._used.move_to_end(entry)
                return
            self._used[entry] = None
            self._close_all_but(most_open())

    def opening(self, open: Callable[[], T]) -> T:
        """Open a file; if no descriptor is left, close all shards first."""
        try:
            return open()
        except OSError as error:
            if error.errno not in TOO_MANY_OPEN:
                raise
        with self._lock:
            self._close_all_but(0)
        return open()

    def _close_all_but(self, most: int) -> None:
        while len(self._used) > most:
            (reference, key), _ = self._used.popitem(last=False)
            holder = reference()
            if holder is not None:
                holder._shards.pop(key, None)


def most_open() -> int:
    """How many shards may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN_SHARDS if soft < 0 else max(1, min(OPEN_SHARDS, soft // SHARE))


OPEN = OpenShards()
