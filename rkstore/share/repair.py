"""Repairing a damaged store from a copy of it."""

from collections.abc import Iterable
from pathlib import Path

from rkstore.errors import BadInput
from rkstore.share.arriving import claimed, fetch_missing
from rkstore.share.copies import check_same
from rkstore.store.files import ASIDE, put, writing
from rkstore.store.places.url import Location
from rkstore.store.store import Store
from rkstore.store.verify import Problem


def repair(store: Store, problems: Iterable[Problem], url: str | Path) -> list[Problem]:
    """Fetch the missing or changed files, each checked before it is put in place.

    Returns:
        The remaining problems: files that should not be there.

    Raises:
        BadInput: the URL has another store, or a part without these files.
        DamagedStore: a fetched file is not what the journal lists.
    """
    location = Location(url)
    listed = location.contents()
    check_same(listed.manifest, store.manifest, location.url, store.where)
    there = listed.held.files(listed.manifest, listed.records)
    found = list(problems)
    with writing(store.root), claimed(store.root, store.manifest, location):
        now = Store(store.root)  # a writer may have recorded more since it was verified
        recorded, metadata = now.files(), now.held.metadata(now.manifest)
        wanted = {p.path: recorded[p.path] for p in found if p.path in recorded}
        absent = [path for path in wanted if path not in there]
        if absent:
            raise BadInput(f"{location.url} lacks {absent[0]}: repair from the whole store")
        fetch_missing(location, wanted, store.root)
        for problem in found:
            if problem.path in metadata:
                put(store.root, problem.path, metadata[problem.path])
    left = [p for p in found if p.path not in recorded and p.path not in metadata]
    return [p for p in left if not p.path.startswith(ASIDE)]
