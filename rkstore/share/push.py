"""Copying a store, or a part of one, to a URL."""

import threading
import time
from pathlib import Path

from tqdm import tqdm

from rkstore.errors import BadInput, DamagedStore
from rkstore.share.card import card
from rkstore.share.copies import check_one_history, check_same
from rkstore.store.contents import Contents
from rkstore.store.files import (
    ASIDE,
    JOURNAL,
    LARGEST_JOURNAL,
    LOCK,
    MANIFEST,
    PART,
    intact,
)
from rkstore.store.journal import parse_journal
from rkstore.store.open import say_if_short
from rkstore.store.part import NOTHING
from rkstore.store.places.moved import Moved
from rkstore.store.places.several import each
from rkstore.store.store import Store
from rkstore.store.writing.destination import Destination
from rkstore.store.writing.hub import HubDestination


def push(path: str | Path, url: str | Path) -> Moved:
    """Copy a store, or a part of one, to a URL; files already there stay unchanged.

    Raises:
        BadInput: the URL has something else, or more of the store.
        DamagedStore: a file here is not what was recorded; it was not pushed.
        RkstoreError: the connection failed; run again, it continues.
    """
    store = say_if_short(Store(path))
    location = HubDestination(url) if str(url).startswith("hf://") else Destination(url)
    with location.writing(store.manifest.fingerprint) as found:
        listed = _already_there(store, location, found)
        sent = _send(store, location, found, len(listed.records))
        location.check_written()
        _send_what_counts(store, location, found, listed)
        if isinstance(location, HubDestination):
            location.put_card(card(store, location.url))
        location.check_written()
    return Moved(len(sent), sum(sent), len(store.files()) - len(sent))


def _already_there(store: Store, location: Destination, found: set[str]) -> Contents:
    """What of this store is at the URL, after a check that pushing removes nothing."""
    where = location.url
    if MANIFEST not in found:
        ours = {JOURNAL, PART, LOCK} | store.files().keys() | _metadata(store).keys()
        others = [p for p in found if p not in ours and not p.startswith(f"{ASIDE}/")]
        if others:
            first = sorted(others)[0]
            raise BadInput(f"{where} is not empty and holds no store ({first} is there)")
        raw = location.read(JOURNAL, LARGEST_JOURNAL) if JOURNAL in found else b""
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


def _send(store: Store, location: Destination, found: set[str], there: int) -> list[int]:
    """Send what is not there, shard after shard, and now and then the journal of what is.

    Returns:
        The bytes of each file that was sent.
    """
    files = store.files()
    sent: list[int] = []

    def one(path: str) -> None:
        recorded, source = files[path], store.root / path
        send = path not in found or not location.has(path, recorded, source)
        if send:
            if not intact(store.root, path, recorded):
                raise DamagedStore(
                    f"{path} of {store.where} is not what was recorded, and was not pushed: "
                    "'rkstore verify --repair-from URL' repairs it from a copy"
                )
            location.put(path, source)
        with lock:
            bar.update(recorded.bytes)
            sent.extend([recorded.bytes] * send)

    lock, last = threading.Lock(), time.monotonic()
    total = sum(file.bytes for file in files.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None) as bar:
        each(one, store.manifest.files.keys() & files.keys(), location.at_once)
        for shard in store.shards:
            each(one, store.manifest.shard_paths(shard, store.held.sites), location.at_once)
            if shard >= there and time.monotonic() - last > location.journal_seconds:
                _send_journal(store, location, shard + 1)
                last = time.monotonic()
    return sent


def _send_journal(store: Store, location: Destination, shards: int) -> None:
    lines = (record.to_line() for record in store.records[:shards])
    location.put_bytes(JOURNAL, b"".join(lines))


def _send_what_counts(
    store: Store, location: Destination, found: set[str], listed: Contents
) -> None:
    """Once all files are there, write the metadata that lists them, the manifest last."""
    grown = listed.held != store.held
    for path, content in _metadata(store).items():
        if grown or path not in found or not location.has_bytes(path, content):
            location.put_bytes(path, content)
    if JOURNAL not in found or len(listed.records) < len(store.records):
        _send_journal(store, location, len(store.records))
    if store.part is not None and grown:
        location.put_bytes(PART, store.part.to_bytes())
    if MANIFEST not in found:
        if store.part is None and PART in found:
            location.remove(PART)
        location.put_bytes(MANIFEST, store.manifest.to_bytes())
    elif store.part is None and PART in found:
        location.remove(PART)


def _metadata(store: Store) -> dict[str, bytes]:
    return store.held.metadata(store.manifest)
