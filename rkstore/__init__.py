"""rkstore: run a language model once, keep its activations, train every dictionary from disk.

>>> import rkstore
>>> store = rkstore.open("stores/gpt2")              # doctest: +SKIP
>>> x = store.read("blocks.8.mlp.hook_post", 0, 4096)  # doctest: +SKIP
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput, DamagedStore, RkstoreError

if TYPE_CHECKING:
    from rkstore.dictionaries import Dictionary, load_dictionary
    from rkstore.rkcnn import RkCNNProbe, RkCNNResult, StoreSite
    from rkstore.rkcnn.classifier import RkCNNClassifier
    from rkstore.store.batches.assemble import read_batches
    from rkstore.store.batches.kept import left_out
    from rkstore.store.batches.plan import plan_batches, split_chunks
    from rkstore.store.store import Store
    from rkstore.store.verify import verify

__version__ = "0.2.0"

__all__ = [
    "BadInput",
    "DamagedStore",
    "Dictionary",
    "RkCNNClassifier",
    "RkCNNProbe",
    "RkCNNResult",
    "RkstoreError",
    "Store",
    "StoreSite",
    "left_out",
    "load_dictionary",
    "open",
    "plan_batches",
    "read_batches",
    "split_chunks",
    "verify",
]

# Imported on first use: reading a store must not wait for torch.
_WHERE = {
    "Dictionary": "dictionaries",
    "RkCNNClassifier": "rkcnn.classifier",
    "RkCNNProbe": "rkcnn",
    "RkCNNResult": "rkcnn",
    "Store": "store",
    "StoreSite": "rkcnn",
    "left_out": "store.batches.kept",
    "load_dictionary": "dictionaries",
    "plan_batches": "store.batches.plan",
    "read_batches": "store.batches.assemble",
    "split_chunks": "store.batches.plan",
    "verify": "store.verify",
}


def open(path: str | Path, **cache: Any) -> "Store":
    """Open the store in a directory or at a URL, read-only.

    Args:
        cache: for a URL, ``cache`` and ``cache_bytes`` of
            :class:`rkstore.store.places.remote.RemoteStore`, which keeps what it fetched.

    Raises:
        BadInput: there is none, or it needs a newer rkstore.
        DamagedStore: its manifest or journal was changed.
    """
    from rkstore.store.open import open_store

    return open_store(path, **cache)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"rkstore.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'rkstore' has no attribute '{name}'")
