"""A disk that is really full: a file system of a few pages, filled at every size it can have."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import SITES, make_manifest, make_values, tree, write_store

from rkstore.errors import RkstoreError
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import Manifest
from rkstore.store.store import Store
from rkstore.store.verify import verify

PAGE = 4096


def mount(at: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "rkstore-test", str(at)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of its own; mount it again with another size to enlarge it."""
    at = tmp_path / "disk"
    at.mkdir()
    try:
        mount(at, f"size={PAGE}")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing may be mounted here: {error}")
    yield at
    # What a library still holds open does not keep it from going.
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def assert_whole_as_far_as_recorded(root: Path, values: dict[str, np.ndarray]) -> int:
    """Every recorded row reads right, and verify finds nothing; returns how many shards."""
    if not (root / "manifest.json").exists():
        return 0
    store = Store(root)
    for name in SITES if store.rows else ():
        np.testing.assert_array_equal(store.read(name), values[name][: store.rows])
        assert store.statistics(name).count == store.rows
    assert [problem for problem in verify(store) if problem.what != "is not recorded"] == []
    return len(store.records)


def what_a_write_says(root: Path, manifest: Manifest, values: dict[str, np.ndarray]) -> str | None:
    """The sentence with which a write gives up; None if it does not."""
    try:
        write_store(root, manifest, values)
    except RkstoreError as error:
        return str(error)
    return None


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_of_megabytes_is_finished_when_its_full_disk_is_enlarged(disk, tmp_path, format):
    sites = dict.fromkeys(SITES, 64)
    manifest = make_manifest(
        format=format, rows=16_384, shard_rows=2048, chunk_rows=512, sites=sites
    )
    values = make_values(manifest)
    write_store(tmp_path / "elsewhere", manifest, values)
    mount(disk, "remount,size=4m")
    with pytest.raises(RkstoreError, match="the disk is full; the shards recorded so far") as error:
        write_store(disk / "store", manifest, values)
    assert str(disk / "store") in str(error.value)
    assert 0 < assert_whole_as_far_as_recorded(disk / "store", values) < manifest.shards
    mount(disk, "remount,size=64m")
    write_store(disk / "store", manifest, values)
    assert tree(disk / "store") == tree(tmp_path / "elsewhere")


@pytest.mark.parametrize("scarce", ["pages", "files"])
@pytest.mark.parametrize("format", FORMATS)
def test_wherever_a_disk_is_full_the_write_says_so_and_can_go_on(disk, tmp_path, format, scarce):
    manifest = make_manifest(format=format, codec="int8", rows=128)
    values = make_values(manifest)
    write_store(tmp_path / "elsewhere", manifest, values)
    expected = tree(tmp_path / "elsewhere")
    decoded = {name: Store(tmp_path / "elsewhere").read(name) for name in SITES}
    refused, recorded = 0, set()
    for size in range(1, 400, 2):
        # One file takes a page at least, and one number: so each size ends at another file.
        limits = (size, 10_000) if scarce == "pages" else (10_000, size + 1)
        mount(disk, f"remount,size={limits[0] * PAGE // 1024}k,nr_inodes={limits[1]}")
        root = disk / f"store-{size}"
        said = what_a_write_says(root, manifest, values)
        if said is None:
            assert tree(root) == expected
            break
        assert "the disk is full" in said
        refused += 1
        recorded.add(assert_whole_as_far_as_recorded(root, decoded))
        mount(disk, "remount,size=64m,nr_inodes=10000")
        write_store(root, manifest, values)
        assert tree(root) == expected
        subprocess.run(["rm", "-r", str(root)], check=True)
    assert refused > 10
    assert recorded >= {0, 1}


def test_a_disk_without_room_for_a_manifest_is_named_as_full(disk):
    (disk / "filling").write_bytes(os.urandom(PAGE))
    with pytest.raises(RkstoreError, match="the disk is full"):
        write_store(disk / "store", make_manifest(), make_values(make_manifest()))
