"""What lies on disk, and reading it.

A store is a directory: ``manifest.json`` says what it is, ``shards.jsonl`` what is in it so far,
``part.json`` which part of that is here (:mod:`~rkstore.store.contents` reads the three). Every
site is an array in a ``format``, of numbers that a ``codec`` decodes. ``batches`` puts rows in
an order, ``places`` reads at a URL, ``writing`` writes, ``verify`` compares every file with what
was recorded. Nothing here imports torch or can call a language model.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rkstore.store.facts import store_facts
    from rkstore.store.manifest import Manifest
    from rkstore.store.open import find_store, open_store
    from rkstore.store.sites import Site
    from rkstore.store.store import Store

__all__ = ["Manifest", "Site", "Store", "find_store", "open_store", "store_facts"]

# Imported on first use: what needs the names of files must not wait for NumPy.
_WHERE = {"Manifest": "manifest", "Site": "sites", "Store": "store", "store_facts": "facts"}
_WHERE |= dict.fromkeys(("find_store", "open_store"), "open")


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"rkstore.store.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'rkstore.store' has no attribute '{name}'")
