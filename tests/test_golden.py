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

every_store = pytest.mark.parametrize(
    ("format", "codec"), [(format, codec) for format in FORMATS for codec in CODECS]
)


def test_every_format_and_codec_has_its_golden_store_and_each_is_known():
    there = {path.name for path in GOLDEN.iterdir() if (path / "manifest.json").exists()}
    assert there == {f"{format}-{codec}" for format in FORMATS for codec in CODECS}


@every_store
def test_a_golden_store_is_intact(format, codec):
    store = Store(GOLDEN / f"{format}-{codec}")
    assert store.complete
    assert (store.manifest.format, store.manifest.codec) == (format, codec)
    assert list(verify(store)) == []


@every_store
def test_a_golden_store_reads_as_its_formula_within_the_error_of_its_codec(format, codec):
    store = Store(GOLDEN / f"{format}-{codec}")
    x = golden.values(store.rows).astype(np.float64)
    error = store.read(golden.HOOK) - x
    # The error that was recorded when it was written is the error that is read today.
    recorded = sum(record.squared_error[golden.HOOK] for record in store.records)
    assert np.square(error).sum() == pytest.approx(recorded, rel=1e-6, abs=0)
    assert np.abs(error).max() <= 0.02 * np.abs(x).max()
    for name, expected in golden.columns(store.rows).items():
        np.testing.assert_array_equal(store.column(name), expected)


@every_store
def test_a_golden_store_has_the_statistics_of_its_formula(format, codec):
    store = Store(GOLDEN / f"{format}-{codec}")
    x, found = golden.values(store.rows).astype(np.float64), store.statistics(golden.HOOK)
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), 1e-12, 1e-12)
    np.testing.assert_allclose(found.variance, x.var(0), 1e-12)
    np.testing.assert_array_equal(found.min, x.min(0))
    np.testing.assert_array_equal(found.max, x.max(0))
    np.testing.assert_array_equal(found.positive, (x > 0).sum(0))


@every_store
def test_a_golden_store_that_is_made_again_has_the_same_bytes(tmp_path, format, codec):
    old = GOLDEN / f"{format}-{codec}"
    if Store(old).manifest != golden.manifest(format, codec):
        pytest.skip("it was made with other versions of the libraries that write it")
    golden.make(tmp_path / "again", format, codec)
    assert tree(tmp_path / "again") == tree(old)
