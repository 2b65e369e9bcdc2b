"""Remote stores, read-only.

``url`` reads files at a URL, with retries from ``retry``, or some bytes of one, as in ``ranges``;
``fetch`` downloads one file, checked, and ``cache`` keeps such files; ``chunks`` are fetched one by
one; ``ahead`` fetches what will be needed; ``remote`` is a store that is read through these;
``hub`` knows the Hugging Face Hub.
"""

from rkstore.store.places.remote import RemoteStore
from rkstore.store.places.url import Location, NotThere, is_url

__all__ = ["Location", "NotThere", "RemoteStore", "is_url"]
