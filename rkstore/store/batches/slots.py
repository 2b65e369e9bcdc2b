"""Memory for batches, reused: each piece has an owner, and comes back when the owner is gone.

The system zeroes fresh memory page by page, which takes about as long as filling it; to pin it
takes longer still.
"""

import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A shape, and a type.
Kind = tuple[tuple[int, ...], np.dtype[Any]]


class Slots:
    """Arrays that whoever holds one, or a view of it, keeps from being written over."""

    def __init__(self, most: int, make: Callable[..., NDArray[Any]] = np.empty) -> None:
        """Start with none.

        Args:
            most: how many of a kind are kept for reuse.
            make: ``make(shape, dtype)``, a new contiguous array.
        """
        self._make = make
        # A deque is appended to and popped from by several threads at once.
        self._free: dict[Kind, deque[NDArray[Any]]] = defaultdict(lambda: deque(maxlen=most))

    def take(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An uninitialised array that nothing else refers to."""
        kind = (shape, np.dtype(dtype))
        free = self._free[kind]
        try:
            memory = free.pop()
        except IndexError:
            memory = self._make(*kind)
        owner = _Owner(memory)
        weakref.finalize(owner, free.append, memory).atexit = False
        return np.asarray(owner)


class _Owner:
    """What every view of a slot refers to."""

    def __init__(self, memory: NDArray[Any]) -> None:
        self.__array_interface__ = memory.__array_interface__
