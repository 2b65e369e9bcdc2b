"""What lies on disk, and reading it: files, codecs, the manifest, rows, batches, places."""

from rkstore.store.store import Store, verify

__all__ = ["Store", "verify"]
