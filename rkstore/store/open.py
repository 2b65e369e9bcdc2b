"""Opening a store, wherever it is: a directory, a URL, or the only one under stores/."""

from pathlib import Path
from typing import Any

from rkstore.store.store import Store, find_store


def open_store(asked: str | Path | None, **cache: Any) -> Store:
    """Open the store in a directory or at a URL, or the only one under ``stores/``.

    Args:
        cache: for a URL, ``cache`` and ``cache_bytes`` of :class:`rkstore.store.places.remote.RemoteStore`,
            which keeps what it fetched.

    Raises:
        BadInput: there is none, or several, or it needs a newer rkstore.
        DamagedStore: its manifest or journal was changed.
    """
    if "://" in str(asked):
        # Speaking to servers takes libraries that a directory needs none of.
        from rkstore.store.places.remote import RemoteStore

        return RemoteStore(str(asked), **cache)
    return Store(find_store(asked))
