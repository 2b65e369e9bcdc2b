"""What can go wrong, each as one sentence that says what to do about it."""

from collections.abc import Sequence


class RkstoreError(Exception):
    """An operation that failed. The command line prints its sentence and exits with ``status``."""

    status = 1


class BadInput(RkstoreError, ValueError):
    """A request that cannot be carried out as asked: nothing was started."""

    status = 2


class DamagedStore(RkstoreError):
    """Files that are not what the store recorded when it wrote them."""


def few(names: Sequence[str], most: int = 16) -> str:
    """The first of some names, and how many more there are: for a sentence that one can read."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
