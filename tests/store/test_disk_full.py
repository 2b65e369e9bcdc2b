"""A disk that is really full: a file system of a few pages, filled at every size it can have."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SITES, make_manifest, make_values, tree, write_store
from faults import full_at_each_write

from rkstore.cli import cli
from rkstore.errors import RkstoreError
from rkstore.evaluation.record import Runs
from rkstore.evaluation.report.figures import panels
from rkstore.share.exchange import EXPORTERS, exporting
from rkstore.share.settings import ExportSettings
from rkstore.store.formats import FORMATS
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"
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


def what_it_says(write: Callable[[], object]) -> str | None:
    """The sentence with which a write gives up; None if it does not."""
    try:
        write()
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
        said = what_it_says(partial(write_store, root, manifest, values))
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


# What is written beside a store.


@pytest.fixture
def run(make_store, tmp_path, monkeypatch) -> Callable[..., TrainSettings]:
    """Call it for settings of a small run; the test runs in an empty directory."""
    store, _ = make_store(rows=400)
    monkeypatch.chdir(tmp_path)

    def make(**given: Any) -> TrainSettings:
        usual = {"store": str(store.root), "hook": SITE, "name": "k", "d_sae": 24, "k": 4}
        short = {"steps": 20, "batch_size": 32, "checkpoint_every": 10}
        return TrainSettings(**(usual | short | given))

    return make


def evaluated(seed: int, make: Callable[..., TrainSettings]) -> Callable[[], object]:
    path = train(make(seed=seed, out=f"checkpoints-{seed}"))
    return partial(call, "evaluate", path, "--store", make().store, "--out", "out")


def probed(seed: int, make: Callable[..., TrainSettings]) -> Callable[[], object]:
    small = ["--h", 8, "--m", 2, "--r", 2, "--seed", seed]
    return partial(call, "probe", make().store, "--hook", SITE, *small, "--out", "out")


def recorded(seed: int, _: object) -> Callable[[], object]:
    return Runs(Path("out/runs.json"), {"seed": 0}, [{"seed": seed}]).write


def drawn(seed: int, _: object) -> Callable[[], object]:
    results = import_module("results")  # of pipelines/
    figure, _axes = panels(1 + seed, 1)
    return partial(results.show, "", Path("out/study.json"), figure, {"seed": seed})


def call(*words: object) -> None:
    """Run a command; a failure is what it raises."""
    cli(list(map(str, words)), standalone_mode=False)


@pytest.mark.parametrize("writes", [evaluated, probed, recorded, drawn])
def test_on_a_full_disk_every_result_of_before_is_whole(run, writes, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "pipelines")
    before, again = writes(0, run), writes(1, run)
    before()
    old, seen = tree(Path("out")), []
    for error in full_at_each_write(again):
        assert isinstance(error, RkstoreError)
        assert "the disk is full; what was there before is intact" in str(error)
        seen.append(tree(Path("out")))
    new = tree(Path("out"))
    assert new != old
    assert len(seen) >= 2
    for found in seen:
        assert found.keys() == old.keys()
        assert all(found[name] in (old[name], new[name]) for name in old)
    assert seen[0] == old


def test_a_run_is_finished_when_its_full_disk_is_enlarged(disk, run, tmp_path):
    through = train(run(out=str(tmp_path / "through")))
    refused, kept = 0, set()
    for pages in range(1, 100, 2):
        mount(disk, f"remount,size={pages * PAGE // 1024}k")
        out = disk / f"out-{pages}"
        said = what_it_says(partial(train, run(out=str(out))))
        if said is None:
            assert tree(out / "sae" / "random" / "k_20") == tree(through)
            break
        assert "the disk is full" in said
        refused += 1
        left = {path.name for path in out.glob("sae/random/*")}
        assert left in (set(), {"k_10"})
        kept |= left
        mount(disk, "remount,size=64m")
        assert tree(train(run(out=str(out)))) == tree(through)
        subprocess.run(["rm", "-r", str(out)], check=True)
    assert refused > 5
    assert kept == {"k_10"}


@pytest.mark.parametrize("kind", EXPORTERS)
def test_on_a_full_disk_nothing_is_left_of_an_export(disk, make_store, monkeypatch, kind):
    store, _ = make_store(rows=400)
    monkeypatch.setattr(exporting, "_check_room", lambda *_: None)
    settings = ExportSettings(to=kind, out=str(disk / "out"))
    refused = 0
    for pages in range(1, 100, 2):
        mount(disk, f"remount,size={pages * PAGE // 1024}k")
        said = what_it_says(partial(exporting.export_store, store, settings))
        if said is None:
            break
        assert "the disk is full; the store is intact" in said
        assert not list(disk.iterdir())
        refused += 1
    assert refused > 5
    assert [path.name for path in disk.iterdir()] == ["out"]
