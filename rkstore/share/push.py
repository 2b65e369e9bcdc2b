"""Copying a store, or a part of one, to a URL."""

import threading
import time
from pathlib import Path

from tqdm import tqdm

from rkstore.errors import BadInput, DamagedStore
from rkstore.share.copies import Moved, check_one_history, check_same, each
from rkstore.store.contents import Contents
from rkstore.store.files import (
    ASIDE,
    JOURNAL,
    LARGEST_JOURNAL,
    LOCK,
    MANIFEST,
    PART,
    FileRecord,
    intact,
)
from rkstore.store.journal import parse_journal
from rkstore.store.part import NOTHING
from rkstore.store.store import Store
from rkstore.store.writing.destination import Destination

# A journal at a URL cannot be appended to: a killed push repeats at most this much.
JOURNAL_SECONDS = 30.0


def push(path: str | Path, url: str | Path) -> Moved:
    """Copy a store, or a part of one, to a URL; files already there stay unchanged.

    Raises:
        BadInput: the URL has something else, or more of the store.
        DamagedStore: a file here is not what was recorded; it was not pushed.
        RkstoreError: the connection failed; run again, it continues.
    """
    store = Store(path)
    location = Destination(url)
    with location.writing() as sizes:
        listed = _already_there(store, location, sizes)
        files = store.files()
        recorded = {p: file for record in listed.records for p, file in record.files.items()}
        missing = {
            path: file
            for path, file in files.items()
            if sizes.get(path) != file.bytes or recorded.get(path) != file
        }
        _send(store, location, missing, len(listed.records))
        _send_what_counts(store, location, sizes, listed)
    total = sum(file.bytes for file in missing.values())
    return Moved(len(missing), total, len(files) - len(missing))


def _already_there(store: Store, location: Destination, sizes: dict[str, int]) -> Contents:
    """The part of this store at the URL, after checking that pushing removes nothing."""
    where = location.url
    if MANIFEST not in sizes:
        ours = {JOURNAL, PART, LOCK} | store.files().keys() | _metadata(store).keys()
        others = [p for p in sizes if p not in ours and not p.startswith(f"{ASIDE}/")]
        if others:
            first = sorted(others)[0]
            raise BadInput(f"{where} is not empty and holds no store ({first} is there)")
        raw = location.read(JOURNAL, LARGEST_JOURNAL) if JOURNAL in sizes else b""
        records = parse_journal(raw, store.manifest, where)
        check_one_history(store.records, records, store.where, where)
        return Contents(store.manifest, records, NOTHING)
    listed = location.contents()
    check_same(listed.manifest, store.manifest, where, store.where)
    check_one_history(store.records, listed.records, store.where, where)
    if len(listed.records) > len(store.records):
        raise BadInput(
            f"{where} has {len(listed.records)} shards and {store.where} "
            f"{len(store.records)}: pull them first"
        )
    if not store.held.holds(listed.held):
        what = "is whole" if listed.part is None else "has what this part lacks"
        raise BadInput(
            f"{store.where} is a part of a store, and the one at {where} {what}: "
            f"complete it first with 'rkstore pull {where} --out {store.where}'"
        )
    return listed


def _send(store: Store, location: Destination, missing: dict[str, FileRecord], there: int) -> None:
    """Send files, shard after shard, and from time to time the journal of the files sent."""

    def one(path: str) -> None:
        recorded = missing[path]
        if not intact(store.root, path, recorded):
            raise DamagedStore(
                f"{path} of {store.where} is not what was recorded, and was not pushed: "
                "'rkstore verify --repair-from URL' repairs it from a copy"
            )
        location.put(path, store.root / path)
        with lock:
            bar.update(recorded.bytes)

    lock, last = threading.Lock(), time.monotonic()
    total = sum(file.bytes for file in missing.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None) as bar:
        for shard in store.shards:
            paths = [path for path in store.records[shard].files if path in missing]
            each(one, paths, location.at_once)
            if paths and shard >= there and time.monotonic() - last > JOURNAL_SECONDS:
                _send_journal(store, location, shard + 1)
                last = time.monotonic()


def _send_journal(store: Store, location: Destination, shards: int) -> None:
    lines = (record.to_line() for record in store.records[:shards])
    location.put_bytes(JOURNAL, b"".join(lines))


def _send_what_counts(
    store: Store, location: Destination, sizes: dict[str, int], listed: Contents
) -> None:
    """Once all files are there, write the metadata that lists them, the manifest last."""
    grown = listed.held != store.held
    for path, content in _metadata(store).items():
        if grown or sizes.get(path) != len(content):
            location.put_bytes(path, content)
    if JOURNAL not in sizes or len(listed.records) < len(store.records):
        _send_journal(store, location, len(store.records))
    if store.part is not None and grown:
        location.put_bytes(PART, store.part.to_bytes())
    if MANIFEST not in sizes:
        if store.part is None and PART in sizes:
            location.remove(PART)
        location.put_bytes(MANIFEST, store.manifest.to_bytes())
    elif store.part is None and PART in sizes:
        location.remove(PART)


def _metadata(store: Store) -> dict[str, bytes]:
    return store.held.metadata(store.manifest)
