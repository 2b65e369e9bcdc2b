"""Writing a store, safe from crashes, one writer at a time.

``encoder`` turns rows into chunks, ``writer`` puts chunks into files and records them, ``lock``
keeps other writers out. ``destination``, not imported here because it uses the network, writes
files to a URL.
"""

from rkstore.store.writing.encoder import ShardEncoder
from rkstore.store.writing.lock import take_lock, unlock
from rkstore.store.writing.writer import StoreWriter

__all__ = ["ShardEncoder", "StoreWriter", "take_lock", "unlock"]
