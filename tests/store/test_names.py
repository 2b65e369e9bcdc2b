"""A directory may be called anything: only ``://`` makes a URL, and ``~`` is the user's own."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_manifest, make_values, tree, write_store

import rkstore as package
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.repair import repair
from rkstore.share.settings import PullSettings
from rkstore.store.formats import FORMATS
from rkstore.store.open import find_store, open_store
from rkstore.store.places.remote import RemoteStore
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.writer import StoreWriter

HOOK = "blocks.1.mlp.hook_post"

# What fsspec, glob, URLs, shells and HDF5 give a meaning to.
NAMES = [
    "what?",
    "a*b",
    "k[8]",
    "{a,b}",
    "a#b",
    "100%",
    "%3F",
    "%d",
    "a::b",
    "simplecache::x",
    "s3:x",
    "two words",
    "~no-such-user",
    "-x",
    "a@b;c=d&e",
    "über-日本語",
    "'quoted\"",
    "back\\slash",
    "$HOME",
    "new\nline",
]


@pytest.fixture
def named(tmp_path, monkeypatch, request):
    """A store in a directory of that name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    name = request.param
    manifest = make_manifest(rows=64, codec="int8")
    write_store(Path("stores") / name, manifest, make_values(manifest))
    return name


# Whatever takes the directory of a store. Each gets its path and gives the store.
READ = {
    "Store": Store,
    "rkstore.open": package.open,
    "open_store": open_store,
    "find_store": lambda path: Store(find_store(path)),
    "the only one": lambda _: open_store(None),
    "StoreWriter": lambda path: _written(path),
    "pull": lambda path: pull(path, PullSettings(out="pulled"))[0],
    "push": lambda path: _pushed(path),
}

# Whatever takes a directory to write a store to. Each gets a whole store and the path.
WRITE = {
    "StoreWriter": lambda store, path: write_store(
        path, store.manifest, make_values(store.manifest)
    ),
    "push": lambda store, path: push(store.root, path),
    "pull": lambda store, path: pull(str(store.root), PullSettings(out=str(path))),
    "cache": lambda store, path: _cached(store, path),
}


def _written(path):
    with StoreWriter(path, make_manifest(rows=64, codec="int8")):
        return Store(path)


def _pushed(path):
    push(path, "pushed")
    return Store("pushed")


def _cached(store, path):
    remote = RemoteStore(store.root.resolve().as_uri(), cache=path)
    remote.read(HOOK)
    assert remote.root.parent == Path(path).expanduser()


@pytest.mark.parametrize("reads", READ)
@pytest.mark.parametrize("named", NAMES, indirect=True)
def test_a_store_is_read_from_a_directory_of_any_name(named, reads):
    store = READ[reads](f"stores/{named}")
    assert store.rows == len(store.read(HOOK)) == 64
    assert list(verify(store)) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_its_arrays_are_opened_by_their_own_library(make_store, name, format):
    store, _ = make_store(name, format=format, rows=64)
    array = store.open_array(HOOK)
    found = array[0] if isinstance(array, list) else array
    np.testing.assert_array_equal(found[:], store.read(HOOK))


@pytest.mark.parametrize("writes", [name for name in WRITE if name != "cache"])
@pytest.mark.parametrize("name", NAMES)
def test_a_store_is_written_to_a_directory_of_any_name(
    make_store, monkeypatch, tmp_path, name, writes
):
    store, _ = make_store("plain", rows=64)
    monkeypatch.chdir(tmp_path)
    WRITE[writes](store, f"stores/{name}")
    assert tree(tmp_path / "stores" / name) == tree(store.root)
    assert [path.name for path in (tmp_path / "stores").iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_store_is_mended_from_a_directory_of_any_name(make_store, tmp_path, monkeypatch, name):
    store, _ = make_store(name, rows=64)
    make_store("damaged", rows=64)
    damaged = Store(tmp_path / "damaged")
    monkeypatch.chdir(tmp_path)
    (damaged.root / next(iter(damaged.files()))).unlink()
    assert repair(damaged, list(verify(damaged)), name) == []
    assert tree(damaged.root) == tree(store.root)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_is_pulled_to_a_directory_called_as_where_it_came_from(
    make_store, tmp_path, monkeypatch, name
):
    make_store(f"there/{name}", rows=64)
    monkeypatch.chdir(tmp_path)
    store, _ = pull(f"there/{name}", PullSettings())
    assert store.root == Path("stores") / name
    remote = package.open((tmp_path / "there" / name).as_uri(), cache="cache")
    np.testing.assert_array_equal(remote.read(HOOK), store.read(HOOK))


@pytest.mark.parametrize("reads", [name for name in READ if name != "the only one"])
def test_a_store_at_home_is_read(make_store, tmp_path, monkeypatch, reads):
    make_store("mine", rows=64, codec="int8")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert READ[reads]("~/mine").rows == 64
    assert not Path("~").exists()


@pytest.mark.parametrize("writes", WRITE)
def test_a_store_is_written_at_home(make_store, tmp_path, monkeypatch, writes):
    store, _ = make_store("plain", rows=64)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    WRITE[writes](store, "~/mine")
    assert tree(tmp_path / "home" / "mine")
    assert not Path("~").exists()


def test_the_only_store_under_a_directory_at_home_is_found(make_store, tmp_path, monkeypatch):
    store, _ = make_store("stores/mine", rows=64)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_store(None, "~/stores") == store.root
