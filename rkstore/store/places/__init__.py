"""Remote stores, read-only.

``url`` reads files at a URL, with retries from ``retry``; ``fetch`` downloads one file, checked;
``remote`` is a store whose files are fetched as they are read; ``hub`` knows the Hugging Face Hub.
"""

from rkstore.store.places.remote import RemoteStore
from rkstore.store.places.url import Location, NotThere, is_url

__all__ = ["Location", "NotThere", "RemoteStore", "is_url"]
