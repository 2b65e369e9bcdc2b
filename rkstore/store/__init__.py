"""The files of a store, and reading them.

A store is a directory: ``manifest.json`` describes it, ``shards.jsonl`` lists the shards recorded
so far, ``part.json`` which part of them is here (``contents`` reads the three).
Every site is an array in a ``format``, of numbers that a ``codec`` decodes. ``batches`` puts rows
in an order, ``places`` reads at a URL, ``writing`` writes, ``verify`` compares every file with its
record. Nothing here imports torch or can run a language model.
"""

from typing import TYPE_CHECKING

from rkstore.door import door

if TYPE_CHECKING:
    from rkstore.store.facts import store_facts
    from rkstore.store.manifest import Manifest
    from rkstore.store.open import find_store, open_paired, open_store
    from rkstore.store.paired import PairedStore
    from rkstore.store.readable import Readable
    from rkstore.store.sites import Pair, Site
    from rkstore.store.store import Store

__all__ = ["Manifest", "Pair", "PairedStore", "Readable", "Site", "Store"]
__all__ += ["find_store", "open_paired", "open_store", "store_facts"]

# Imported on first use: code that needs only file names must not import NumPy.
__getattr__ = door(
    __name__,
    {
        "rkstore.store.facts": "store_facts",
        "rkstore.store.manifest": "Manifest",
        "rkstore.store.open": "find_store open_paired open_store",
        "rkstore.store.paired": "PairedStore",
        "rkstore.store.readable": "Readable",
        "rkstore.store.sites": "Pair Site",
        "rkstore.store.store": "Store",
    },
)
