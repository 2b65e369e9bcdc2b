"""Rows that are encoded on an accelerator become the store that the processor would write."""

import numpy as np
import pytest
import torch
from conftest import SITES, make_manifest, make_values, shard_of, tree

from rkstore.errors import BadInput, RkstoreError
from rkstore.store.codecs import CODECS
from rkstore.store.files import JOURNAL
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.whole import fill_missing
from rkstore.store.writing.writer import StoreWriter

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def planted(manifest):
    """Rows as after a GELU, with values out of range, massive rows, and constant dimensions."""
    generator = np.random.default_rng(0)
    values = make_values(manifest)
    for site in manifest.sites:
        x = generator.standard_normal((manifest.rows, site.width), np.float32)
        x = np.where(x > 0, x, 0.1 * x) * generator.uniform(0.1, 3, site.width).astype(np.float32)
        x[3::7, 2] *= 30
        x[5::11] *= 60
        x[:, 0], x[:, 1] = 0.25, 0
        values[site.hook_name] = x.astype(np.float32)
    return values


def write(root, manifest, values, *, device=None, batch=24):
    """Write rows in batches, as arrays or as tensors on a device."""
    with StoreWriter(root, manifest) as writer:
        for number in range(manifest.shards):
            shard = writer.begin_shard()
            x, columns = shard_of(manifest, values, number)
            rows = len(columns["position"])
            for start in range(0, rows, batch):
                some = slice(start, start + batch)
                part = {name: given[some] for name, given in x.items()}
                if device is not None:
                    part = {
                        n: torch.from_numpy(given.copy()).to(device) for n, given in part.items()
                    }
                shard.add(part, {name: given[some] for name, given in columns.items()})
            writer.finish_shard(shard)
    return Store(root)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [5, 24, 1000])
@pytest.mark.parametrize("codec", CODECS)
def test_codes_and_what_is_kept_apart_have_the_same_bytes(tmp_path, codec, batch, device):
    manifest = make_manifest(codec=codec)
    values = planted(manifest)
    here = write(tmp_path / "here", manifest, values, batch=batch)
    there = write(tmp_path / "there", manifest, values, device=device, batch=batch)
    assert list(verify(there)) == []
    found, expected = tree(there.root), tree(here.root)
    assert found.keys() == expected.keys()
    summed = {path for path in found if "statistics" in path or path == JOURNAL}
    assert {p: d for p, d in found.items() if p not in summed} == {
        p: d for p, d in expected.items() if p not in summed
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("massive", [True, False])
def test_statistics_and_errors_differ_by_rounding_alone(tmp_path, massive, device):
    manifest = make_manifest(codec="int8")
    values = planted(manifest)
    if not massive:
        values |= {name: np.clip(values[name], -5, 5) for name in SITES}
    here = write(tmp_path / "here", manifest, values)
    there = write(tmp_path / "there", manifest, values, device=device)
    for name in SITES:
        assert there.codec_fvu(name) == pytest.approx(here.codec_fvu(name), rel=1e-5)
        assert there.massive_error(name) == pytest.approx(here.massive_error(name), rel=1e-9)
        for of in ("statistics", "ordinary_statistics"):
            found, expected = getattr(there, of)(name), getattr(here, of)(name)
            assert found.count == expected.count
            for field in ("min", "max", "positive"):
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-9, atol=1e-12)
        if not massive:
            assert there.statistics(name).m2[0] == 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_value_that_is_not_finite_is_refused_by_row_and_dimension(tmp_path, device):
    manifest = make_manifest(codec="int8")
    values = planted(manifest)
    name = list(SITES)[1]
    values[name][37, 4] = np.inf
    with pytest.raises(BadInput, match=rf"{name}: row 37 has inf in dimension 4"):
        write(tmp_path / "store", manifest, values, device=device)
    assert not (tmp_path / "store").exists()


def filled(manifest, values):
    """What fills a shard with its rows."""

    def fill(shard, advance):
        x, columns = shard_of(manifest, values, shard.shard)
        shard.add(x, columns)
        advance(len(columns["position"]))

    return fill


def written(root, manifest, fill, *, ahead):
    """Write what is missing of a store; returns the numbers of its shards as they were recorded."""
    with StoreWriter(root, manifest) as writer:
        return list(fill_missing(writer, lambda shard: fill(shard, lambda _: None), ahead=ahead))


def test_shards_that_are_written_while_later_ones_are_filled_are_the_same(tmp_path):
    manifest = make_manifest(codec="int8")
    values, seen = planted(manifest), []
    for name, ahead in (("serial", False), ("ahead", True)):
        seen.append(written(tmp_path / name, manifest, filled(manifest, values), ahead=ahead))
    assert seen == [list(range(manifest.shards))] * 2
    assert tree(tmp_path / "ahead") == tree(tmp_path / "serial")


def test_what_comes_after_a_shard_that_cannot_be_written_is_not_recorded(tmp_path, monkeypatch):
    manifest = make_manifest(codec="int8")
    fill, real = filled(manifest, planted(manifest)), StoreWriter.make

    def failing(writer, shard):
        if shard.shard == 1:
            raise RkstoreError("the disk is full")
        return real(writer, shard)

    monkeypatch.setattr(StoreWriter, "make", failing)
    with pytest.raises(RkstoreError, match="is full"):
        written(tmp_path / "store", manifest, fill, ahead=True)
    monkeypatch.undo()
    assert len(Store(tmp_path / "store").records) == 1
    written(tmp_path / "store", manifest, fill, ahead=True)
    written(tmp_path / "whole", manifest, fill, ahead=False)
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")
