"""rkstore: run a language model once, keep its activations, train every dictionary from disk.

>>> import rkstore
>>> store = rkstore.open("stores/gpt2")              # doctest: +SKIP
>>> x = store.read("blocks.8.mlp.hook_post", 0, 4096)  # doctest: +SKIP
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.door import door
from rkstore.errors import BadInput, DamagedStore, RkstoreError

if TYPE_CHECKING:
    from rkstore.dictionaries import Dictionary, load_dictionary
    from rkstore.rkcnn import RkCNNProbe, RkCNNResult, StoreSite
    from rkstore.rkcnn.classifier import RkCNNClassifier
    from rkstore.rkcnn.mine import mine_directions
    from rkstore.store.batches.assemble import read_batches
    from rkstore.store.batches.kept import left_out
    from rkstore.store.batches.plan import plan_batches, split_chunks
    from rkstore.store.open import open_paired
    from rkstore.store.store import Store
    from rkstore.store.verify import verify
    from rkstore.training.datasets import BatchDataset, RowDataset
    from rkstore.training.inits.arrays import initialise
    from rkstore.training.rkcnn_sae import RkCNNSAEConfig, RkCNNSparseAutoencoder

__version__ = "0.5.0"

__all__ = [
    "BadInput",
    "BatchDataset",
    "DamagedStore",
    "Dictionary",
    "RkCNNClassifier",
    "RkCNNProbe",
    "RkCNNResult",
    "RkCNNSAEConfig",
    "RkCNNSparseAutoencoder",
    "RkstoreError",
    "RowDataset",
    "Store",
    "StoreSite",
    "initialise",
    "left_out",
    "load_dictionary",
    "mine_directions",
    "open",
    "open_paired",
    "plan_batches",
    "read_batches",
    "split_chunks",
    "verify",
]

# Imported on first use: reading a store must not wait for torch.
__getattr__ = door(
    __name__,
    {
        "rkstore.dictionaries": "Dictionary load_dictionary",
        "rkstore.rkcnn": "RkCNNProbe RkCNNResult StoreSite",
        "rkstore.rkcnn.classifier": "RkCNNClassifier",
        "rkstore.rkcnn.mine": "mine_directions",
        "rkstore.store": "Store",
        "rkstore.store.batches.assemble": "read_batches",
        "rkstore.store.batches.kept": "left_out",
        "rkstore.store.batches.plan": "plan_batches split_chunks",
        "rkstore.store.open": "open_paired",
        "rkstore.store.verify": "verify",
        "rkstore.training.datasets": "BatchDataset RowDataset",
        "rkstore.training.inits.arrays": "initialise",
        "rkstore.training.rkcnn_sae": "RkCNNSAEConfig RkCNNSparseAutoencoder",
    },
)


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
