"""Processes read one store over a slow line, and share a cache that holds two of its files."""

from functools import partial
from pathlib import Path

import apart
import numpy as np
from conftest import make_manifest, make_values, write_store
from processes import in_child, wait_for
from tally import Tallies, Tally
from works import HOOK

from rkstore.errors import RkstoreError
from rkstore.store.places.remote import RemoteStore
from rkstore.store.store import Store

LATER = 0.01
WRONG, REFUSED = 3, 4


def readers(root: Path, wanted: int, times: int = 3) -> Tallies:
    """Let so many processes read everything, so many times; nothing is wrong, so all must."""
    store = root / "slow" / "store"
    manifest = make_manifest(codec="int8", sites={HOOK: 12})
    write_store(store, manifest, make_values(manifest))
    tally = Tally()
    with apart.web(store.parent) as port, apart.slow(port, LATER) as front:
        at = f"http://127.0.0.1:{front}/store"
        work = partial(_read_all, at, root / "cache", store, times)
        ended = [wait_for(child) for child in [in_child(work) for _ in range(wanted)]]
    tally.tried, tally.survived = wanted, ended.count(0)
    tally.wrong = ["a process read other numbers"] * ended.count(WRONG)
    tally.lost = ["a process could not read"] * ended.count(REFUSED)
    others = [status for status in ended if status not in (0, WRONG, REFUSED)]
    tally.unsaid = [f"a process ended with {status}" for status in others]
    return {f"{wanted} readers of one small cache": tally}


def _read_all(at: str, cache: Path, root: Path, times: int) -> None:
    whole = Store(root)
    bound = 2 * max(file.bytes for file in whole.files().values())
    try:
        for _ in range(times):
            remote = RemoteStore(at, cache, bound)
            for shard in range(len(whole.records)):
                rows = whole.manifest.rows_of_shard(shard)
                if not np.array_equal(remote.read(HOOK, *rows), whole.read(HOOK, *rows)):
                    raise SystemExit(WRONG)
            remote.statistics(HOOK)
    except RkstoreError:
        raise SystemExit(REFUSED) from None
