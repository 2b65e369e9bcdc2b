"""A least-recently-used cache, bounded in bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Recent:
    """Loaded values by key, each with ``nbytes``; the least recently used are dropped first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """The value of that key, loaded unless cached. Two values always fit."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                known: T = self._values[key]
                return known
        value = load()
        with self._lock:
            self._values[key] = value
            while len(self._values) > 2 and self._bytes() > self._most_bytes:
                self._values.popitem(last=False)
        return value

    def _bytes(self) -> int:
        return sum(value.nbytes for value in self._values.values())
