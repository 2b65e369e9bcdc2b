"""A store's files may be links, as caches make them; its directories may not, nor its files pipes.

A store from a stranger is only data: nothing it holds leads out of it, and nothing is written
through a link.
"""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import flip, tree, write_store

from rkstore.errors import DamagedStore, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.repair import repair
from rkstore.share.settings import PullSettings
from rkstore.store import files
from rkstore.store.files import ASIDE, JOURNAL, MANIFEST, sha256
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.verify import verify

HOOK = "blocks.1.mlp.hook_post"


def read_everything(store: Store) -> None:
    for name in store.hook_names:
        store.read(name)
        store.statistics(name)
    for name in COLUMNS:
        store.column(name)


def assert_found(root: Path, path: str, said: str) -> None:
    """Whoever opens, verifies and reads a store is told of a file or directory in it."""
    if path in (MANIFEST, JOURNAL):
        with pytest.raises(DamagedStore, match=said):
            Store(root)
        return
    opened = Store(root)
    assert [p for p in verify(opened) if p.path.startswith(path) and said in p.what], path
    if "zarr.json" not in path:  # for other tools: rkstore never reads it
        with pytest.raises(DamagedStore, match=said):
            read_everything(opened)


# What the Hub has in a repository besides, and a store never has.
BESIDE = (".gitattributes", "README.md")


def link_into_a_cache(root: Path, blobs: Path) -> None:
    """Move every file to ``blobs``, named by its digest, and leave a link, as on the Hub."""
    blobs.mkdir()
    for path in tree(root):
        file = root / path
        blob = blobs / sha256(file)
        file.replace(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))


@pytest.fixture
def snapshot(make_store, tmp_path):
    """A store as huggingface_hub leaves it: real directories, every file a link into blobs."""

    def make(**options):
        store, values = make_store("hub/snapshots/0123abcd", codec="int8", **options)
        for name in BESIDE:
            (store.root / name).write_text("of the repository")
        link_into_a_cache(store.root, tmp_path / "hub" / "blobs")
        return store.root, values

    return make


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_of_links_into_a_cache_is_a_store(make_store, snapshot, tmp_path, format):
    plain, _ = make_store("plain", codec="int8", format=format)
    root, _ = snapshot(format=format)
    store = Store(root)
    for name in store.hook_names:
        np.testing.assert_array_equal(store.read(name), plain.read(name))
        assert store.statistics(name).count == plain.rows
        arrays = store.open_array(name)
        shapes = [array.shape for array in (arrays if format == "hdf5" else [arrays])]
        assert sum(rows for rows, _ in shapes) == plain.rows
    assert list(verify(store)) == []
    push(root, str(tmp_path / "pushed"))
    pull(str(root), PullSettings(out=str(tmp_path / "pulled")))
    assert tree(tmp_path / "pushed") == tree(tmp_path / "pulled") == tree(plain.root)
    assert not any(path.is_symlink() for path in (tmp_path / "pulled").rglob("*"))


@pytest.mark.parametrize("format", FORMATS)
def test_behind_a_link_a_file_is_compared_with_what_was_recorded(snapshot, format):
    root, _ = snapshot(format=format)
    for path in [path for path in tree(root) if path not in (MANIFEST, JOURNAL, *BESIDE)]:
        blob = (root / path).resolve()
        whole = blob.read_bytes()
        flip(blob, len(whole) // 2)
        # Two files of the same bytes are one blob.
        assert path in [p.path for p in verify(Store(root)) if p.what == "was changed"]
        blob.write_bytes(whole)


def test_what_was_not_fetched_into_the_cache_is_missing(snapshot):
    """git-annex leaves a link that leads nowhere where it has not fetched the file."""
    root, _ = snapshot()
    for path in [path for path in tree(root) if path not in BESIDE]:
        blob = (root / path).resolve()
        away = blob.rename(blob.with_name("away"))
        assert_found(root, path, "is not a file")
        away.rename(blob)


def test_nothing_is_written_through_a_link(snapshot, make_store, tmp_path):
    """A writer refuses; a repair puts a file in place of the link."""
    root, values = snapshot(shards=2)
    blobs = tmp_path / "hub" / "blobs"
    before = tree(blobs)
    with pytest.raises(RkstoreError, match="symbolic link"):
        write_store(root, Store(root).manifest, values)
    assert tree(blobs) == before
    whole, _ = make_store("whole", codec="int8")
    damaged = Store(root)
    path = next(iter(damaged.files()))
    flip(root / path, 9)
    changed = tree(blobs)
    assert repair(damaged, list(verify(damaged)), str(whole.root)) == []
    assert not (root / path).is_symlink()
    pull(str(whole.root), PullSettings(out=str(root)))
    found = tree(root)
    assert {path: found[path] for path in found if path not in BESIDE} == tree(whole.root)
    assert tree(blobs) == changed


@pytest.mark.parametrize("format", FORMATS)
def test_a_linked_directory_anywhere_in_a_store_is_refused_and_found(make_store, tmp_path, format):
    store, _ = make_store(codec="int8", format=format, rows=64)
    whole, there = tree(store.root), tmp_path / "there"
    directories = {path for file in whole for path in Path(file).parents} - {Path()}
    for path in sorted(map(str, directories)):
        here = store.root / path
        here.rename(there)
        here.symlink_to(there)
        assert_found(store.root, path, "symbolic link")
        opened, before = Store(store.root), tree(there)
        with pytest.raises(DamagedStore, match="symbolic link"):
            repair(opened, list(verify(opened)), str(store.root))
        assert tree(there) == before
        here.unlink()
        there.rename(here)
    assert list(verify(Store(store.root))) == []


@pytest.mark.parametrize("asked", [ASIDE, "blocks.1.mlp.hook_post", "blocks.1.mlp.hook_post/c"])
@pytest.mark.parametrize("placed", [0, 5])
def test_a_directory_that_is_or_becomes_a_link_during_a_pull_is_refused(
    make_store, tmp_path, monkeypatch, asked, placed
):
    """After some files were placed, a directory of the copy is a link to one outside of it."""
    store, _ = make_store(rows=64 * 4)
    copy, outside = tmp_path / "copy", tmp_path / "outside"
    outside.mkdir()
    plain, calls, one_at_a_time = files._directory_of, [], threading.Lock()

    def directory_of(root, path):
        with one_at_a_time:
            calls.append(path)
            at = root / asked
            if len(calls) > 3 * placed and root == copy and not at.is_symlink():
                at.rename(tmp_path / "away") if at.exists() else at.parent.mkdir(exist_ok=True)
                at.symlink_to(outside)
        return plain(root, path)

    monkeypatch.setattr(files, "_directory_of", directory_of)
    with pytest.raises(RkstoreError, match="is reached by a symbolic link"):
        pull(str(store.root), PullSettings(out=str(copy)))
    assert tree(outside) == {}


def test_a_link_that_appears_between_looking_and_opening_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "outside").mkdir()
    plain = os.stat

    def swap(path, **options):
        found = plain(path, **options)
        if path == "site":
            (tmp_path / "store" / "site").rename(tmp_path / "away")
            (tmp_path / "store" / "site").symlink_to(tmp_path / "outside")
        return found

    (tmp_path / "store").mkdir()
    with files.open_aside(tmp_path / "store", "site/file") as file:
        file.write(b"1")
    monkeypatch.setattr(os, "stat", swap)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        files.into_place(tmp_path / "store", "site/file")
    assert tree(tmp_path / "outside") == {}


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_anywhere_in_a_store_is_refused_and_never_waited_for(make_store, tmp_path, linked):
    store, _ = make_store(codec="int8", rows=64)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in tree(store.root):
        here, there = store.root / path, tmp_path / "there"
        here.rename(there)
        here.symlink_to(pipe) if linked else os.mkfifo(here)
        assert_found(store.root, path, "is not a file")
        here.unlink()
        there.rename(here)


def test_a_file_that_states_no_size_is_not_read(make_store):
    """Some files of the system are regular, have no size, and never end."""
    store, _ = make_store()
    endless = Path("/proc/self/environ")
    if not endless.is_file():
        pytest.skip("there is no such file here")
    for name in (MANIFEST, JOURNAL):
        whole = (store.root / name).read_bytes()
        (store.root / name).unlink()
        (store.root / name).symlink_to(endless)
        if name == MANIFEST:
            with pytest.raises(DamagedStore, match="not a manifest"):
                Store(store.root)
        else:
            assert Store(store.root).rows == 0
        (store.root / name).unlink()
        (store.root / name).write_bytes(whole)
