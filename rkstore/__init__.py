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
    from rkstore.batches import BatchPlan, read_batches, split_chunks
    from rkstore.dictionaries import Dictionary, load_dictionary
    from rkstore.evaluate import evaluate
    from rkstore.rkcnn import RkCNNProbe, RkCNNResult
    from rkstore.store import Store, verify
    from rkstore.train import train

# Imported on first use: reading a store must not wait for torch.
_WHERE = {
    "BatchPlan": "rkstore.batches",
    "read_batches": "rkstore.batches",
    "split_chunks": "rkstore.batches",
    "Dictionary": "rkstore.dictionaries",
    "load_dictionary": "rkstore.dictionaries",
    "evaluate": "rkstore.evaluate",
    "RkCNNProbe": "rkstore.rkcnn",
    "RkCNNResult": "rkstore.rkcnn",
    "Store": "rkstore.store",
    "verify": "rkstore.store",
    "train": "rkstore.train",
}

__version__ = "0.1.0"


def open(path: str | Path) -> "Store":
    """Open the store in a directory, read-only.

    Raises:
        BadInput: there is none, or it needs a newer rkstore.
        DamagedStore: its manifest or journal was changed.
    """
    from rkstore.store import Store

    return Store(path)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'rkstore' has no attribute '{name}'")


__all__ = ["BadInput", "DamagedStore", "RkstoreError", "open", *_WHERE]
