"""How often a store is read."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from rkstore.store.codecs import Encoded
from rkstore.store.store import Store


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Call what it gives for how many chunks every store has handed out since."""
    # Chunks are read in several threads; a step of ``count`` cannot be interrupted.
    numbers, real = itertools.count(), Store.stored_chunk

    def counting(store: Store, hook_name: str, chunk: int) -> Encoded:
        next(numbers)
        return real(store, hook_name, chunk)

    with mock.patch.object(Store, "stored_chunk", counting):
        yield lambda: next(numbers)
