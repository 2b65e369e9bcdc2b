"""Opening a store: in a directory, at a URL, or the only one under ``stores/``."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, warn
from rkstore.store.files import MANIFEST, named
from rkstore.store.paired import NAMES, PairedStore
from rkstore.store.readable import Readable
from rkstore.store.store import Store


def open_store(asked: str | Path | None, **cache: Any) -> Store:
    """Open the store in a directory or at a URL, or the only one under ``stores/``.

    Args:
        cache: for a URL, ``cache`` and ``cache_bytes`` of
            :class:`rkstore.store.places.remote.RemoteStore`, which keeps what it fetched.

    Raises:
        BadInput: there is none, or several, or it needs a newer rkstore.
        DamagedStore: its manifest or journal was changed.
    """
    if "://" in str(asked):
        # URLs need libraries that a directory does not.
        from rkstore.store.places.remote import RemoteStore

        return say_if_short(RemoteStore(str(asked), **cache))
    return say_if_short(Store(find_store(asked)))


def open_paired(
    first: str | Path, second: str | Path, names: Sequence[str] = NAMES, **cache: Any
) -> PairedStore:
    """Open two stores of the same tokens as one, such as those of a base model and its chat model.

    Args:
        names: what the sites of each begin with: ``base:blocks.8.mlp.hook_post``.
        cache: see :func:`open_store`.

    Raises:
        BadInput: one cannot be opened, the names are the same, or the rows are not of the same
            tokens.
        DamagedStore: a manifest or a journal was changed.
    """
    return PairedStore(open_store(first, **cache), open_store(second, **cache), names)


def open_readable(asked: str | Path | None, paired_with: str | Path | None = None) -> Readable:
    """The store of a command, or the pair if a second one is given.

    Raises:
        BadInput: see :func:`open_store` and :func:`open_paired`.
    """
    store = open_store(asked)
    return store if paired_with is None else PairedStore(store, open_store(paired_with))


def say_if_short(store: Store) -> Store:
    """Say it once if a store has fewer shards than its manifest expects: it is not all there is."""
    if not store.complete:
        _say(f"{store.where}: {len(store.records)} of {store.manifest.shards} shards are there")
    return store


@functools.cache
def _say(sentence: str) -> None:
    warn(sentence)


def find_store(path: str | Path | None, under: str | Path = "stores") -> Path:
    """The given directory, or the only store under ``stores/``.

    Raises:
        BadInput: there is none, or there are several; lists them. Or it is a URL.
    """
    if "://" in str(path):
        raise BadInput(f"{path} is a URL, and this needs a directory: fetch it with 'rkstore pull'")
    if path is not None:
        return named(path)
    found = sorted(file.parent for file in named(under).glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(f"there is no store under {under}/: write one with 'rkstore harvest'")
    raise BadInput(
        f"there are {len(found)} stores under {under}/ ({', '.join(str(path) for path in found)}): "
        f"say which with --store"
    )
