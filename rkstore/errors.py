"""What can go wrong, each as one sentence that says what to do about it."""


class RkstoreError(Exception):
    """An operation that failed. The command line prints its sentence and exits with ``status``."""

    status = 1


class BadInput(RkstoreError, ValueError):
    """A request that cannot be carried out as asked: nothing was started."""

    status = 2


class DamagedStore(RkstoreError):
    """Files that are not what the store recorded when it wrote them."""
