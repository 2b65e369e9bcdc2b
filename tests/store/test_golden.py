"""Stores that an earlier rkstore wrote: they stay readable, to the last value."""

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tree

from rkstore.errors import BadInput
from rkstore.store.codecs import CODECS
from rkstore.store.files import JOURNAL
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import SCHEMA
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.writer import StoreWriter

GOLDEN = Path(__file__).parents[1] / "golden"

_spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

STORES = sorted(path.parent for path in GOLDEN.glob("schema-*/*/manifest.json"))
every_store = pytest.mark.parametrize("root", STORES, ids=lambda p: "/".join(p.parts[-2:]))


def schema_of(root):
    return int(root.parent.name.removeprefix("schema-"))


def test_every_golden_store_is_there():
    assert {path.name for path in STORES if path.parent == golden.NOW} == golden.STORES.keys()
    assert len([path for path in STORES if path.parent == golden.FIRST]) == 16


def test_every_format_codec_and_compression_has_a_golden_store():
    manifests = [Store(golden.NOW / name).manifest for name in golden.STORES]
    assert {(m.format, m.codec) for m in manifests} == {(f, c) for f in FORMATS for c in CODECS}
    compressed = {(name, c) for name, format in FORMATS.items() for c in format.compressions}
    assert {(m.format, m.compression) for m in manifests} == compressed


@every_store
def test_a_golden_store_is_intact(root):
    store = Store(root)
    assert store.complete
    assert store.manifest.schema == schema_of(root)
    format, codec, *compression = root.name.split("-", 2)
    assert (store.manifest.format, store.manifest.codec) == (format, codec)
    assert store.manifest.compression in (compression or FORMATS[format].compressions)
    assert list(verify(store)) == []


@every_store
def test_a_golden_store_reads_as_its_formula_within_the_error_of_its_codec(root):
    store = Store(root)
    x = golden.values(store.rows, schema_of(root)).astype(np.float64)
    error = store.read(golden.HOOK) - x
    # The error that was recorded when it was written is the error that is read today.
    recorded = [record.squared_error[golden.HOOK] for record in store.records]
    recorded += [(record.massive_error or {}).get(golden.HOOK, 0) for record in store.records]
    assert np.square(error).sum() == pytest.approx(sum(recorded), rel=1e-6, abs=0)
    assert (np.abs(error).max(axis=0) <= 0.3 * x.std(axis=0)).all()
    for name, expected in golden.columns(store.rows).items():
        np.testing.assert_array_equal(store.column(name), expected)


@every_store
def test_a_golden_store_has_the_statistics_of_its_formula(root):
    store = Store(root)
    x = golden.values(store.rows, schema_of(root)).astype(np.float64)
    found = store.statistics(golden.HOOK)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), 1e-12, 1e-12)
    np.testing.assert_allclose(found.variance, x.var(0), 1e-12)
    np.testing.assert_array_equal(found.min, x.min(0))
    np.testing.assert_array_equal(found.max, x.max(0))
    np.testing.assert_array_equal(found.positive, (x > 0).sum(0))


@every_store
def test_a_golden_store_knows_its_massive_rows(root):
    assert Store(root).massive_rows(golden.HOOK) == (2 if schema_of(root) > 1 else 0)


@every_store
def test_an_unfinished_store_of_an_earlier_schema_is_not_gone_on_with(root, tmp_path):
    """Its first shards would mean one thing and its last another."""
    begun = shutil.copytree(root, tmp_path / "begun")
    journal = begun / JOURNAL
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    before, now = tree(begun), replace(Store(begun).manifest, schema=SCHEMA)
    if schema_of(root) == SCHEMA:
        with StoreWriter(begun, now) as writer:
            assert writer.next_shard == 1
        return
    with pytest.raises(BadInput, match=f"rkstore_schema: {schema_of(root)} there, {SCHEMA} here"):
        StoreWriter(begun, now).__enter__()
    assert tree(begun) == before


@pytest.mark.parametrize("name", golden.STORES)
def test_a_golden_store_that_is_made_again_has_the_same_bytes(tmp_path, name):
    old = golden.NOW / name
    if Store(old).manifest != golden.manifest(*golden.STORES[name]):
        pytest.skip("it was made with other versions of the libraries that write it")
    golden.make(tmp_path / "again", *golden.STORES[name])
    assert tree(tmp_path / "again") == tree(old)
