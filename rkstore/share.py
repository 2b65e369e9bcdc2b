"""A store and its copies: push one to a URL, pull one or a part of one, mend one from another.

Every file that moves is checked against the size and SHA-256 that the journal lists, and put
in place as a whole. What makes a file count comes behind the file: pushing writes data, then
the journal, then the manifest; pulling extends ``part.json`` when all its files are here. So
either can be stopped at any instant, is a valid store for whoever reads meanwhile, and goes on
when run again.
"""

import fnmatch
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rkstore.errors import BadInput, DamagedStore
from rkstore.info import size
from rkstore.lock import let_go, take_lock
from rkstore.manifest import (
    JOURNAL,
    LARGEST_JOURNAL,
    LARGEST_MANIFEST,
    MANIFEST,
    PART,
    FileRecord,
    Manifest,
    ShardRecord,
    parse_journal,
    parse_manifest,
)
from rkstore.part import NOTHING, Part, parse_part, whole
from rkstore.settings import PullSettings, parse_layers
from rkstore.store import ASIDE, LOCK, Problem, Store, sha256
from rkstore.url import Location, NotThere
from rkstore.writer import DiskErrors, sync_directory

# A journal at a URL cannot be appended to: what a killed push does again is this much at most.
JOURNAL_SECONDS = 30.0

Say = Callable[[str], object]
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Moved:
    """How much a push or a pull had to move."""

    files: int
    bytes: int
    present: int
    """Files that were there already."""

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}; {self.present} were there"


@dataclass(frozen=True)
class Listed:
    """What a store at a URL says of itself."""

    manifest: Manifest
    records: list[ShardRecord]
    part: Part | None

    @property
    def held(self) -> Part:
        """What of the store is there."""
        return whole(self.manifest, self.records) if self.part is None else self.part


def read_listed(location: Location) -> Listed:
    """Read and check manifest, journal and ``part.json`` at a URL.

    Raises:
        BadInput: there is no store, or it needs a newer rkstore.
        DamagedStore: one of them is not what rkstore wrote.
    """
    try:
        raw = location.read(MANIFEST, LARGEST_MANIFEST)
    except NotThere as error:
        raise BadInput(f"there is no store at {location.url}: {error}") from None
    manifest = parse_manifest(raw, location.url)
    journal = location.read_optional(JOURNAL, LARGEST_JOURNAL)
    records = parse_journal(journal or b"", manifest, location.url)
    stated = location.read_optional(PART, LARGEST_MANIFEST)
    part = None if stated is None else parse_part(stated, manifest, records, location.url)
    return Listed(manifest, records, part)


def pull(url: str, settings: PullSettings, say: Say = lambda _: None) -> tuple[Store, Moved]:
    """Bring a store, or a part of one, into a directory; what is there already is kept.

    Args:
        say: told each choice that differs from what was asked, in a sentence.

    Returns:
        The store, and what had to be moved.

    Raises:
        BadInput: nothing there is what was asked for; the directory holds something else, or
            is being written.
        DamagedStore: a file that arrived is not what the journal lists; names it.
        RkstoreError: the way there or the disk failed; run again, it goes on.
    """
    location = Location(url)
    listed = read_listed(location)
    asked = _asked(settings, listed, location, say)
    root = Path(settings.out or Path("stores") / location.name)
    with DiskErrors(root), _claimed(root, listed.manifest, location):
        local = _begin(root, listed, location)
        target = local.held.spanning(asked, listed.manifest)
        if target not in (asked, local.held):
            say(
                f"{root} will hold {len(target.sites)} sites and shards {target.shards.start} to "
                f"{target.shards.stop - 1} of them all: every site of a part has the same rows"
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
        moved = _fetch_missing(location, wanted, root)
        for path, content in target.metadata(listed.manifest).items():
            _replace(root, path, content)
        _replace(root, JOURNAL, b"".join(record.to_line() for record in records))
        if target == whole(listed.manifest, records):
            (root / PART).unlink(missing_ok=True)
            sync_directory(root)
        else:
            _replace(root, PART, target.to_bytes())
        return Store(root), moved


def push(path: str | Path, url: str) -> Moved:
    """Copy a store, or a part of one, to a URL; what is there already is left as it is.

    Raises:
        BadInput: something else is there, or more than here.
        DamagedStore: a file here is not what was recorded; it was not pushed.
        RkstoreError: the way there failed; run again, it goes on.
    """
    store = Store(path)
    location = Location(url)
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


def repair(store: Store, problems: Iterable[Problem], url: str) -> list[Problem]:
    """Fetch the files that were found missing or changed, each checked before it is put in place.

    Returns:
        The problems that are left: files that should not be there.

    Raises:
        BadInput: another store is at the URL, or a part without these files.
        DamagedStore: what arrived is not what the journal lists.
    """
    location = Location(url)
    listed = read_listed(location)
    _check_same(listed.manifest, store.manifest, location.url, store.where)
    recorded, metadata = store.files(), store.held.metadata(store.manifest)
    there = listed.held.files(listed.manifest, listed.records)
    found = list(problems)
    wanted = {p.path: recorded[p.path] for p in found if p.path in recorded}
    absent = [path for path in wanted if path not in there]
    if absent:
        raise BadInput(f"{location.url} has not got {absent[0]}: repair from the whole store")
    with DiskErrors(store.root), _claimed(store.root, store.manifest, location):
        _fetch_missing(location, wanted, store.root)
        for problem in found:
            if problem.path in metadata:
                _replace(store.root, problem.path, metadata[problem.path])
    left = [p for p in found if p.path not in recorded and p.path not in metadata]
    return [p for p in left if not p.path.startswith(ASIDE)]


def fetch(
    location: Location, path: str, recorded: FileRecord, root: Path, advance: Advance
) -> None:
    """Fetch one file aside, check it, and put it in its place.

    Raises:
        DamagedStore: it is not what was recorded; nothing was put in place.
    """
    aside = _aside(root, path)
    digest, received = hashlib.sha256(), 0
    with aside.open("wb") as file:
        for block in location.blocks(path, recorded.bytes):
            received += len(block)
            if received > recorded.bytes:  # what a server sends must not fill the disk
                break
            digest.update(block)
            file.write(block)
            advance(len(block))
        file.flush()
        os.fsync(file.fileno())
    if received != recorded.bytes or digest.hexdigest() != recorded.sha256:
        aside.unlink()
        found = "other bytes" if received == recorded.bytes else f"not {recorded.bytes:,} bytes"
        raise DamagedStore(
            f"{path} at {location.url} is not what was recorded ({found}): it was not kept; "
            "mend that copy, or use another"
        )
    _into_place(root, aside, path)


def intact(file: Path, recorded: FileRecord) -> bool:
    """Whether a file is what was recorded of it."""
    try:
        return file.stat().st_size == recorded.bytes and sha256(file) == recorded.sha256
    except OSError:
        return False


def _asked(settings: PullSettings, listed: Listed, location: Location, say: Say) -> Part:
    """What was asked for, in whole shards."""
    manifest, held = listed.manifest, listed.held
    if not held:
        raise BadInput(f"the store at {location.url} has no rows yet")
    names = _sites(settings, list(held.sites), location)
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
        say(f"rows {a}:{b} lie in shards with rows {rows[0]}:{rows[1]}, which are pulled whole")
    return Part(names, shards)


def _sites(settings: PullSettings, names: list[str], location: Location) -> tuple[str, ...]:
    blocks = {name: int(n[1]) for name in names if (n := re.match(r"blocks\.([0-9]+)\.", name))}
    chosen = set(names)
    if settings.layers != "all":
        layers = set(parse_layers(settings.layers, max(blocks.values(), default=0) + 1))
        chosen = {name for name in names if blocks.get(name) in layers}
    if settings.hook is not None:
        patterns = (settings.hook, f"blocks.*.{settings.hook}")
        chosen = {name for name in chosen if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    if not chosen:
        hook = "" if settings.hook is None else f" and --hook {settings.hook}"
        raise BadInput(
            f"--layers {settings.layers}{hook} is not in the store at {location.url}, "
            f"which has {', '.join(names[:16])}{' and more' if len(names) > 16 else ''}"
        )
    return tuple(name for name in names if name in chosen)


@contextmanager
def _claimed(root: Path, manifest: Manifest, location: Location) -> Iterator[None]:
    """Hold the lock of a directory that has that store, or of one made for it."""
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is a file: choose another --out")
    begun = {LOCK, ASIDE, PART, JOURNAL}  # all that a pull writes before the manifest
    others = sorted({file.name for file in root.iterdir()} - begun) if root.is_dir() else []
    if others and MANIFEST not in others:
        raise BadInput(
            f"{root} is not empty and holds no store ({others[0]} is there): choose another --out"
        )
    if others:
        _check_same(manifest, Store(root).manifest, location.url, str(root))
    root.mkdir(parents=True, exist_ok=True)
    lock = take_lock(root)
    try:
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        yield
    finally:
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        let_go(lock, root)


def _begin(root: Path, listed: Listed, location: Location) -> Store:
    """The store that is in the directory; where there is none, a part that has nothing yet.

    The manifest comes last, so that it never stands there alone and claims to be a whole.
    """
    if not (root / MANIFEST).is_file():
        _replace(root, PART, NOTHING.to_bytes())
        _replace(root, JOURNAL, b"".join(record.to_line() for record in listed.records))
        _replace(root, MANIFEST, listed.manifest.to_bytes())
    store = Store(root)
    _check_one_history(store.records, listed.records, store.where, location.url)
    return store


def _fetch_missing(location: Location, wanted: dict[str, FileRecord], root: Path) -> Moved:
    """Fetch every file that is not here as it should be."""
    lock = threading.Lock()
    total = sum(file.bytes for file in wanted.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="pull", disable=None) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        missing = {}
        for path, recorded in wanted.items():
            if intact(root / path, recorded):
                advance(recorded.bytes)
            else:
                missing[path] = recorded
        needed = sum(file.bytes for file in missing.values())
        free = shutil.disk_usage(root).free
        if needed > free:
            raise BadInput(f"{size(needed)} are to be fetched and {root} has {size(free)} free")

        def one(path: str) -> None:
            fetch(location, path, missing[path], root, advance)

        _each(one, missing, location.at_once)
    return Moved(len(missing), needed, len(wanted) - len(missing))


def _each(work: Callable[[str], None], paths: Iterable[str], at_once: int) -> None:
    """Do the work for every path, some at once; the first failure ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        for _ in pool.map(work, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _already_there(store: Store, location: Location, sizes: dict[str, int]) -> Listed:
    """What of this store is at the URL, after a check that pushing takes nothing away."""
    where = location.url
    if MANIFEST not in sizes:
        ours = {JOURNAL, PART, LOCK} | store.files().keys() | _metadata(store).keys()
        others = [p for p in sizes if p not in ours and not p.startswith(f"{ASIDE}/")]
        if others:
            first = sorted(others)[0]
            raise BadInput(f"{where} is not empty and holds no store ({first} is there)")
        raw = location.read(JOURNAL, LARGEST_JOURNAL) if JOURNAL in sizes else b""
        records = parse_journal(raw, store.manifest, where)
        _check_one_history(store.records, records, store.where, where)
        return Listed(store.manifest, records, NOTHING)
    listed = read_listed(location)
    _check_same(listed.manifest, store.manifest, where, store.where)
    _check_one_history(store.records, listed.records, store.where, where)
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


def _send(store: Store, location: Location, missing: dict[str, FileRecord], there: int) -> None:
    """Send files, shard after shard, and now and then the journal as far as they reach."""

    def one(path: str) -> None:
        file, recorded = store.root / path, missing[path]
        if not intact(file, recorded):
            raise DamagedStore(
                f"{path} of {store.where} is not what was recorded, and was not pushed: "
                "'rkstore verify --repair-from URL' mends it from a copy"
            )
        location.put(path, file)
        with lock:
            bar.update(recorded.bytes)

    lock, last = threading.Lock(), time.monotonic()
    total = sum(file.bytes for file in missing.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None) as bar:
        for shard in store.shards:
            paths = [path for path in store.records[shard].files if path in missing]
            _each(one, paths, location.at_once)
            if paths and shard >= there and time.monotonic() - last > JOURNAL_SECONDS:
                _send_journal(store, location, shard + 1)
                last = time.monotonic()


def _send_journal(store: Store, location: Location, shards: int) -> None:
    lines = (record.to_line() for record in store.records[:shards])
    location.put_bytes(JOURNAL, b"".join(lines))


def _send_what_counts(
    store: Store, location: Location, sizes: dict[str, int], listed: Listed
) -> None:
    """Now that all files are there, say so: to other tools, in the journal, in the manifest."""
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


def _check_same(there: Manifest, here: Manifest, url: str, root: str) -> None:
    if there.fingerprint != here.fingerprint:
        raise BadInput(
            f"{url} is another store than {root} ({there.fingerprint}, not {here.fingerprint}; "
            f"{'; '.join(here.differences(there)[:3])})"
        )


def _check_one_history(
    here: list[ShardRecord], there: list[ShardRecord], root: str, url: str
) -> None:
    """Raise BadInput unless one journal begins with the other."""
    for mine, theirs in zip(here, there, strict=False):
        if mine.chain != theirs.chain:
            raise BadInput(
                f"shard {mine.shard} at {url} was written by another run than that of {root}: "
                "the two cannot be one store"
            )


def _aside(root: Path, path: str) -> Path:
    # Two processes may fetch the same file into one cache.
    aside = root / ASIDE / f"{path.replace('/', '__')}.{os.getpid()}"
    aside.parent.mkdir(exist_ok=True)
    return aside


def _replace(root: Path, path: str, content: bytes) -> None:
    """Put a small file in place as a whole, unless it is there already."""
    target = root / path
    if target.is_file() and target.read_bytes() == content:
        return
    aside = _aside(root, path)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _into_place(root, aside, path)


def _into_place(root: Path, aside: Path, path: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(target)
    sync_directory(target.parent)
