"""What a store takes of memory does not grow with its rows."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_manifest, write_store
from memory import MIB, memory_of, where_it_is_counted

from rkstore.store.formats import FORMATS
from rkstore.store.manifest import Manifest
from rkstore.store.store import Store

HOOK, WIDTH = "blocks.0.mlp.hook_post", 8

READ_ALL = f"""
from rkstore.store.verify import verify
from rkstore.store.store import Store


def measured(root):
    store = Store(root)
    assert not list(verify(store))
    rows = 0
    for chunk in range(store.chunks):
        x = store.chunk({HOOK!r}, chunk)
        tokens = store.column("token_id", *store.rows_of_chunk(chunk))
        rows += len(x)
        seen.append(own_memory())
        assert (x[:, 0] == tokens % 512).all()
    assert rows == store.rows
    store.statistics({HOOK!r})
"""


def large_manifest(format: str, rows: int) -> Manifest:
    return make_manifest(
        codec="float16",
        format=format,
        rows=rows,
        shard_rows=65_536,
        chunk_rows=16_384,
        sites={HOOK: WIDTH},
    )


def write_large(root: Path, format: str, rows: int) -> Store:
    """A store of rows that hold their number, as far as float16 can."""
    manifest = large_manifest(format, rows)
    row = np.arange(rows, dtype=np.int32)
    x = np.repeat((row % 512).astype(np.float32)[:, None], WIDTH, axis=1)
    values = {HOOK: x, "token_id": row, "document": row // 1000, "position": row % 8}
    write_store(root, manifest, values)
    return Store(root)


@where_it_is_counted
@pytest.mark.parametrize("format", FORMATS)
def test_reading_a_million_rows_takes_no_more_memory_than_a_hundred_thousand(tmp_path, format):
    small = write_large(tmp_path / "small", format, 100_000)
    large = write_large(tmp_path / "large", format, 1_000_000)
    taken = [memory_of(READ_ALL, small.root, store.root)[0] for store in (small, large)]
    # Decoded, the rows between them are 29 MB.
    assert taken[1] < taken[0] + 4 * MIB
    # And both take a few chunks of 0.5 MB, as they are stored and as they are decoded.
    assert max(taken) < 8 * MIB
