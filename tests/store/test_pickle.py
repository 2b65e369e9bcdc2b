"""A store in another process: it can be pickled and copied, and the copy sees the same shards."""

import copy
import pickle
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from conftest import write_store

import rkstore
from rkstore.share.pull import pull
from rkstore.share.settings import PullSettings
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.verify import verify

HOOK = "blocks.1.mlp.hook_post"


def pickled(store, protocol):
    return pickle.loads(pickle.dumps(store, protocol))


PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy} | {
    f"pickle-{protocol}": partial(pickled, protocol=protocol) for protocol in PROTOCOLS
}


def assert_same(found: Store, store: Store) -> None:
    """Another store of the same shards, which opens files of its own."""
    assert type(found) is type(store)
    assert found is not store
    assert found._shards == {}
    assert (found.manifest, found.records, found.part) == (
        store.manifest,
        store.records,
        store.part,
    )
    for name in store.hook_names:
        np.testing.assert_array_equal(found.read(name), store.read(name))
        np.testing.assert_array_equal(found.statistics(name).m2, store.statistics(name).m2)
    for name in COLUMNS:
        np.testing.assert_array_equal(found.column(name), store.column(name))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_copy_of_a_store_reads_what_the_store_does(make_store, format, how):
    store, _ = make_store(codec="int8", format=format)
    store.read(HOOK)
    assert store._shards  # with files open
    found = COPIES[how](store)
    assert_same(found, store)
    assert list(verify(found)) == []


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_sees_the_shards_that_were_recorded_when_the_store_was_opened(make_store, how):
    store, values = make_store(shards=2)
    found = COPIES[how](store)
    write_store(store.root, store.manifest, values)
    assert found.rows == 128
    assert_same(found, store)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_part_is_that_part(make_store, tmp_path, how):
    store, _ = make_store()
    settings = PullSettings(out=str(tmp_path / "part"), layers="1", rows="64:128")
    part, _ = pull(str(store.root), settings)
    found = COPIES[how](part)
    assert (found.first_row, found.stop_row) == (64, 128)
    assert_same(found, part)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_store_at_a_url_is_one(make_store, tmp_path, how):
    make_store()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/store"
        remote = rkstore.open(url, cache=tmp_path / "cache", cache_bytes=10**6)
        found = COPIES[how](remote)
        assert_same(found, remote)
        assert (found._cache, found._cache_bytes) == (tmp_path / "cache", 10**6)
    finally:
        server.shutdown()
        server.server_close()


def test_a_pickled_store_is_found_from_another_directory(make_store, tmp_path, monkeypatch):
    store, _ = make_store()
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(rkstore.open("store"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same(pickle.loads(content), store)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_site_of_a_store_is_the_same_source(make_store, how):
    from rkstore.rkcnn import StoreSite

    store, _ = make_store()
    site = StoreSite(store, HOOK, range(2, 9))
    found = COPIES[how](site)
    assert found.describe() == site.describe()
    rows = np.arange(0, site.rows, 3)
    for name in ("token_id", "next_token"):
        np.testing.assert_array_equal(found.column(name, rows), site.column(name, rows))
    for mine, theirs in zip(site.parts(), found.parts(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


CHECK = """
    found = list(loader)
    rows, x = (torch.cat(parts) for parts in zip(*found))
    assert sorted(rows.tolist()) == list(range(store.rows))
    assert torch.equal(x, torch.from_numpy(store.read("blocks.6.mlp.hook_post"))[rows])
"""


def test_a_data_loader_with_spawned_workers_brings_each_row_once(make_store, tmp_path):
    """As the page on the format shows it."""
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    make_store("stores/demo", codec="int8", sites={"blocks.6.mlp.hook_post": 12})
    # A module, because a spawned process imports what it is to run.
    (tmp_path / "loader.py").write_text(page.split("```py\n")[1].split("```")[0] + CHECK)
    result = subprocess.run(
        [sys.executable, "loader.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
