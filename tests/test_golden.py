"""Stores that an earlier rkstore wrote: they stay readable, to the last value."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from conftest import tree

from rkstore.codecs import CODECS
from rkstore.formats import FORMATS
from rkstore.store import Store, verify

GOLDEN = Path(__file__).parent / "golden"

_spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

every_store = pytest.mark.parametrize("name", golden.STORES)


def test_every_golden_store_is_there_and_each_is_known():
    there = {path.name for path in GOLDEN.iterdir() if (path / "manifest.json").exists()}
    assert there == golden.STORES.keys()


def test_every_format_codec_and_compression_has_a_golden_store():
    manifests = [Store(GOLDEN / name).manifest for name in golden.STORES]
    assert {(m.format, m.codec) for m in manifests} == {(f, c) for f in FORMATS for c in CODECS}
    compressed = {(name, c) for name, format in FORMATS.items() for c in format.compressions}
    assert {(m.format, m.compression) for m in manifests} == compressed


@every_store
def test_a_golden_store_is_intact(name):
    store = Store(GOLDEN / name)
    assert store.complete
    format, codec, compression = golden.STORES[name]
    assert (store.manifest.format, store.manifest.codec) == (format, codec)
    assert store.manifest.compression == (compression or FORMATS[format].compressions[0])
    assert list(verify(store)) == []


@every_store
def test_a_golden_store_reads_as_its_formula_within_the_error_of_its_codec(name):
    store = Store(GOLDEN / name)
    x = golden.values(store.rows).astype(np.float64)
    error = store.read(golden.HOOK) - x
    # The error that was recorded when it was written is the error that is read today.
    recorded = sum(record.squared_error[golden.HOOK] for record in store.records)
    assert np.square(error).sum() == pytest.approx(recorded, rel=1e-6, abs=0)
    assert np.abs(error).max() <= 0.02 * np.abs(x).max()
    for name, expected in golden.columns(store.rows).items():
        np.testing.assert_array_equal(store.column(name), expected)


@every_store
def test_a_golden_store_has_the_statistics_of_its_formula(name):
    store = Store(GOLDEN / name)
    x, found = golden.values(store.rows).astype(np.float64), store.statistics(golden.HOOK)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), 1e-12, 1e-12)
    np.testing.assert_allclose(found.variance, x.var(0), 1e-12)
    np.testing.assert_array_equal(found.min, x.min(0))
    np.testing.assert_array_equal(found.max, x.max(0))
    np.testing.assert_array_equal(found.positive, (x > 0).sum(0))


@every_store
def test_a_golden_store_that_is_made_again_has_the_same_bytes(tmp_path, name):
    old = GOLDEN / name
    if Store(old).manifest != golden.manifest(*golden.STORES[name]):
        pytest.skip("it was made with other versions of the libraries that write it")
    golden.make(tmp_path / "again", *golden.STORES[name])
    assert tree(tmp_path / "again") == tree(old)
