"""What lies on disk, and reading it: files, codecs, the manifest, rows, batches, places."""

from rkstore.store.store import Store
from rkstore.store.verify import verify

__all__ = ["Store", "verify"]
