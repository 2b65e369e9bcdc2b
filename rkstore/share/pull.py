"""Fetching a store, or a part of one, into a directory."""

import re
from collections.abc import Callable
from pathlib import Path

from rkstore.errors import BadInput, few
from rkstore.share.arriving import claimed, fetch_missing
from rkstore.share.copies import check_one_history
from rkstore.share.settings import PullSettings
from rkstore.store.contents import Contents
from rkstore.store.files import JOURNAL, MANIFEST, PART, named, put, sync, writing
from rkstore.store.open import say_if_short
from rkstore.store.part import NOTHING, Part, whole
from rkstore.store.places.moved import Moved
from rkstore.store.places.url import Location
from rkstore.store.sites import Among
from rkstore.store.store import Store

Say = Callable[[str], object]


def pull(url: str | Path, settings: PullSettings, say: Say = lambda _: None) -> tuple[Store, Moved]:
    """Fetch a store, or a part of one, into a directory; files already there are kept.

    Args:
        say: called with a sentence for each choice that differs from the request.

    Returns:
        The store, and what was transferred.

    Raises:
        BadInput: the URL has nothing that was requested; the directory holds something else, or is
        being written.
        DamagedStore: a fetched file is not what the journal lists; names it.
        RkstoreError: the connection or the disk failed; run again, it continues.
    """
    location = Location(url)
    listed = location.contents()
    asked = _asked(settings, listed, location, say)
    root = named(settings.out or Path("stores") / location.name)
    with writing(root), claimed(root, listed.manifest, location):
        local = _begin(root, listed, location)
        target = local.held.spanning(asked, listed.manifest)
        if target not in (asked, local.held):
            say(
                f"{root} will contain {len(target.sites)} sites and shards {target.shards.start} "
                f"to {target.shards.stop - 1} of them all: every site of a part has the same rows"
            )
        records = listed.records
        if len(local.records) > len(records) or (local.part is None and local.held == target):
            records = local.records
        wanted = target.files(listed.manifest, records)
        there = listed.held.files(listed.manifest, listed.records)
        absent = [path for path in wanted if path not in there and path not in local.files()]
        if absent:
            raise BadInput(
                f"{location.url} is a part of a store and lacks {len(absent)} files of what "
                f"{root} would hold, {absent[0]} first: pull from the whole"
            )
        moved = fetch_missing(location, wanted, root)
        for path, content in target.metadata(listed.manifest).items():
            put(root, path, content)
        put(root, JOURNAL, b"".join(record.to_line() for record in records))
        if target == whole(listed.manifest, records):
            (root / PART).unlink(missing_ok=True)
            sync(root)
        else:
            put(root, PART, target.to_bytes())
        return say_if_short(Store(root)), moved


def _asked(settings: PullSettings, listed: Contents, location: Location, say: Say) -> Part:
    """The requested part, in whole shards."""
    manifest, held = listed.manifest, listed.held
    if not held:
        raise BadInput(f"the store at {location.url} has no rows yet")
    among = Among(held.sites, f"the store at {location.url}", lambda _: f"has {few(held.sites)}")
    names = tuple(among.chosen(settings.layers, settings.hook))
    first = held.shards.start * manifest.shard_rows
    stop = manifest.rows_recorded(held.shards.stop)
    if settings.rows is None:
        return Part(names, held.shards)
    found = re.fullmatch(r"([0-9]*):([0-9]*)", settings.rows)
    if not found:
        raise BadInput(f"--rows is '{settings.rows}': give a range such as 0:100000")
    a, b = int(found[1] or first), int(found[2] or stop)
    if not first <= a < b <= stop:
        raise BadInput(
            f"--rows is '{settings.rows}': the store at {location.url} has rows {first}:{stop}"
        )
    shards = range(a // manifest.shard_rows, -(-b // manifest.shard_rows))
    rows = shards.start * manifest.shard_rows, manifest.rows_recorded(shards.stop)
    if rows != (a, b):
        say(f"rows {a}:{b} are in shards with rows {rows[0]}:{rows[1]}, which are pulled whole")
    return Part(names, shards)


def _begin(root: Path, listed: Contents, location: Location) -> Store:
    """The store that is in the directory, or else a new part without any rows.

    The manifest comes last: alone, it would claim that the store is whole.
    """
    if not (root / MANIFEST).is_file():
        put(root, PART, NOTHING.to_bytes())
        put(root, JOURNAL, b"".join(record.to_line() for record in listed.records))
        put(root, MANIFEST, listed.manifest.to_bytes())
    store = Store(root)
    check_one_history(store.records, listed.records, store.where, location.url)
    return store
