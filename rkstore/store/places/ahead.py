"""Reading ahead: what a reader will ask for is fetched before, in its order, some at a time."""

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Ahead(Generic[K]):
    """Fetches a sequence of things in threads, so many bytes ahead of the one who takes them.

    Threads, and daemons: they wait for a server nearly all the time, and a program that ends does
    not wait for them.
    """

    def __init__(
        self, keys: Iterable[K], fetch: Callable[[K], Any], cost: Callable[[K], int], most: int
    ) -> None:
        """Nothing is fetched before :meth:`start`.

        Args:
            keys: what will be taken, about in this order; it may be endless.
            fetch: called with a key, in any thread.
            cost: bytes of what belongs to a key.
            most: bytes that are fetched, or being fetched, and not taken yet. What is begun below
                this bound is finished, so one thing always fits.
        """
        self._keys, self._fetch, self._cost, self._most = iter(keys), fetch, cost, most
        self._changed = threading.Condition()
        self._next: K | None = None
        """The next to be begun, once it is no longer pending from an epoch before."""
        self._pending: dict[K, Future[Any]] = {}
        self._late: set[K] = set()
        """Taken before they were begun: they are not fetched again."""
        self._bytes = 0
        self._closed = False

    def start(self, threads: int) -> None:
        """Begin, in that many threads."""
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def take(self, key: K) -> Any:
        """What was fetched for a key; None if it was not begun, or failed: then it is not here."""
        with self._changed:
            found = self._pending.pop(key, None)
            if found is None:
                self._late.add(key)
                return None
        try:
            return found.result()
        except Exception:
            return None  # who asks reads it itself, and gets the error
        finally:
            with self._changed:
                self._bytes -= self._cost(key)
                self._changed.notify_all()

    def close(self) -> None:
        """Begin nothing more; what is being fetched is dropped when it arrives."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            key, future = begun
            try:
                future.set_result(self._fetch(key))
            except Exception as error:
                future.set_exception(error)

    def _begin(self) -> tuple[K, Future[Any]] | None:
        def ready() -> bool:
            room = self._bytes < self._most and self._next not in self._pending
            return room or self._closed

        with self._changed:
            while self._changed.wait_for(ready) and not self._closed:
                key = self._next
                if key is None:
                    self._next = next(self._keys, None)
                    if self._next is None:
                        break
                    continue
                self._next = None
                if key in self._late:
                    self._late.discard(key)
                    continue
                self._bytes += self._cost(key)
                future = self._pending[key] = Future()
                return key, future
        return None
