"""A store at a URL read in a known order: fetched before it is needed, whole or in ranges."""

import itertools
import threading
import time
from collections import Counter

import numpy as np
import pytest
from conftest import flip, make_manifest, make_values, tree, write_store

from rkstore.errors import BadInput, DamagedStore
from rkstore.store.batches.assemble import read_batches, read_rows
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.paired import PairedStore
from rkstore.store.places import remote as remote_store
from rkstore.store.places import retry
from rkstore.store.places.ahead import Ahead
from rkstore.store.places.remote import RemoteStore
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE, OTHER = "blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"

# 16 shards of 8 chunks of 32 rows.
SIZES = {"rows": 4096, "shard_rows": 256, "chunk_rows": 32, "context_size": 16}
EPOCHS = 2


@pytest.fixture(autouse=True)
def _no_waiting_before_another_try(monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))


def values_file(path):
    return f"store/{SITE}/c/" in path or f"store/{SITE}/0" in path


def fetched(web):
    """Requests and bytes of the files of values, by path."""
    found = [(path, count) for path, count in web.served if values_file(path)]
    return Counter(path for path, _ in found), sum(count for _, count in found)


def size_of(store):
    return sum(file.bytes for path, file in store.files().items() if values_file(f"store/{path}"))


def read(store, sites=(SITE,), epochs=EPOCHS, window=256, order="rows"):
    """All batches of some epochs, in windows of eight chunks of as many shards."""
    plan = plan_batches(store, range(store.chunks), 64, order=order)
    object.__setattr__(plan, "window_rows", window)
    count = epochs * plan.batches_per_epoch
    return [
        (batch.rows.copy(), *(batch.x[site].copy() for site in sites))
        for batch in read_batches(store, list(sites), plan, stop=count)
    ]


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_a_cache_that_holds_an_epoch_fetches_each_file_once(make_store, tmp_path, web, codec):
    store, _ = make_store(codec=codec, **SIZES)
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    assert_same_batches(read(remote), read(store))
    requests, count = fetched(web)
    assert set(requests.values()) == {1}
    assert count == size_of(store)


@pytest.mark.parametrize(
    ("codec", "order"), [("int8", "rows"), ("int8", "pairs"), ("float16", "sequences")]
)
def test_a_cache_smaller_than_an_epoch_fetches_each_chunk_once_an_epoch(
    make_store, tmp_path, web, codec, order
):
    store, _ = make_store(codec=codec, **SIZES)
    bound = size_of(store) // 2
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache", bound)
    assert_same_batches(read(remote, order=order), read(store, order=order))
    _, count = fetched(web)
    again = 1.0 if order != "pairs" else 1.5  # a pair may reach into a chunk of another window
    assert count <= EPOCHS * again * size_of(store) + 16 * (8 * 16 + 4)
    assert not any(
        values_file(f"store/{path.partition('/')[2]}") for path in tree(tmp_path / "cache")
    )
    assert sum(map(len, tree(tmp_path / "cache").values())) <= bound


def test_what_is_fetched_ahead_is_bounded(make_store, tmp_path, web, monkeypatch):
    store, _ = make_store(codec="int8", **SIZES)
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache", size_of(store) // 2)
    chunk = 32 * store.manifest.width(SITE)
    monkeypatch.setattr(remote_store, "AHEAD_BYTES", 5 * chunk)
    with remote.ahead([SITE], range(store.chunks)) as near:
        coming = near._reading.ahead
        until = time.monotonic() + 10
        while coming._bytes < 5 * chunk:
            assert time.monotonic() < until
        time.sleep(0.1)
        assert sorted(coming._pending) == [(SITE, 0, number) for number in range(5)]
        for number in range(store.chunks):
            np.testing.assert_array_equal(near.chunk(SITE, number), store.chunk(SITE, number))
    assert not coming._bytes


def test_chunks_are_fetched_several_at_a_time_and_before_they_are_asked_for():
    together, most, lock = 0, 0, threading.Lock()

    def fetch(key):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.02)
        with lock:
            together -= 1
        return key * key

    ahead = Ahead(range(1, 100), fetch, lambda _: 1, 12)
    ahead.start(4)
    time.sleep(0.2)
    began = time.monotonic()
    assert [ahead.take(key) for key in range(1, 13)] == [key * key for key in range(1, 13)]
    assert time.monotonic() - began < 0.1
    ahead.close()
    assert most == 4


def test_what_was_read_before_it_was_begun_is_not_fetched_again():
    asked = []
    ahead = Ahead([1, 2, 1, 3], lambda key: asked.append(key) or key, lambda _: 1, 8)
    assert [ahead.take(2), ahead.take(1)] == [None, None]
    ahead.start(1)
    assert (ahead.take(1), ahead.take(3)) in {(None, None), (None, 3), (1, None), (1, 3)}
    time.sleep(0.05)
    assert asked.count(2) == 0
    assert asked.count(1) <= 1


def test_an_endless_order_over_few_chunks_waits_for_its_reader():
    asked = []
    ahead = Ahead(itertools.cycle([1, 2]), lambda key: asked.append(key) or key, lambda _: 1, 10**9)
    ahead.start(2)
    time.sleep(0.05)
    assert sorted(asked) == [1, 2]
    assert [ahead.take(1), ahead.take(2)] == [1, 2]
    time.sleep(0.05)
    assert sorted(asked) == [1, 1, 2, 2]
    ahead.close()


def test_of_few_chunks_only_these_are_fetched(make_store, tmp_path, web):
    store, _ = make_store(codec="int8", **SIZES)
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    _, held_out = split_chunks(store)
    for found, expected in zip(
        read_rows(remote, [SITE], held_out, 64), read_rows(store, [SITE], held_out, 64), strict=True
    ):
        np.testing.assert_array_equal(found.x[SITE], expected.x[SITE])
    _, count = fetched(web)
    assert count < size_of(store) / 4


@pytest.mark.parametrize(
    "made", [{"format": "hdf5", "codec": "int8"}, {"codec": "float32", "compression": "none"}]
)
def test_what_cannot_be_checked_chunk_by_chunk_is_fetched_whole(make_store, tmp_path, web, made):
    store, _ = make_store(**SIZES, **made)
    largest = max(file.bytes for file in store.files().values())
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache", 5 * largest)
    assert_same_batches(read(remote, epochs=1), read(store, epochs=1))
    sizes = {f"store/{path}": file.bytes for path, file in store.files().items()}
    assert all(count == sizes[path] for path, count in web.served if values_file(path))


def test_a_server_without_ranges_sends_whole_files(make_store, tmp_path, web):
    store, _ = make_store(codec="int8", **SIZES)
    web.ranges = False
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache", size_of(store) // 2)
    assert_same_batches(read(remote, epochs=1), read(store, epochs=1))


def in_ranges(store, tmp_path, web):
    return RemoteStore(f"{web.url}/store", tmp_path / "cache", size_of(store) // 2)


def test_a_chunk_that_stays_damaged_is_named(make_store, tmp_path, web):
    store, _ = make_store(codec="int8", **SIZES)
    flip(store.root / SITE / "c" / "3" / "0", 5)
    with pytest.raises(DamagedStore, match=f"{SITE}/c/3/0 at http.*chunk 0 has checksum"):
        read(in_ranges(store, tmp_path, web))


def test_an_index_that_stays_damaged_is_named(make_store, tmp_path, web):
    store, _ = make_store(codec="int8", **SIZES)
    flip(store.root / SITE / "c" / "3" / "0", -9)
    with pytest.raises(DamagedStore, match=f"{SITE}/c/3/0 at http.*index has checksum"):
        read(in_ranges(store, tmp_path, web))


def test_another_shard_in_the_place_of_one_is_refused(make_store, tmp_path, web):
    store, _ = make_store(codec="int8", **SIZES)
    one, other = (store.root / SITE / "c" / name / "0" for name in "34")
    assert one.stat().st_size != other.stat().st_size
    one.write_bytes(other.read_bytes())
    with pytest.raises(DamagedStore, match=f"{SITE}/c/3/0 at http.* bytes"):
        read(in_ranges(store, tmp_path, web))


def test_a_shard_that_is_replaced_while_it_is_read_is_read_anew(make_store, tmp_path, web):
    store, values = make_store(codec="int8", **SIZES)
    remote = in_ranges(store, tmp_path, web)
    file = store.root / SITE / "c" / "3" / "0"
    whole = file.read_bytes()
    with remote.ahead([SITE], []) as near:
        near.chunk(SITE, 24)
        file.write_bytes(whole[::-1])
        with pytest.raises(DamagedStore, match=r"replaced|checksum"):
            near.chunk(SITE, 25)
        file.write_bytes(whole)
        np.testing.assert_array_equal(near.chunk(SITE, 25), store.chunk(SITE, 25))
    assert len(values)


def test_a_pair_of_stores_at_urls_is_read_ahead_too(make_store, tmp_path, web):
    first, _ = make_store(codec="int8", **SIZES)
    second, _ = make_store("second", codec="float16", **SIZES)
    pair = PairedStore(first, second)
    bound = size_of(first) // 2
    there = PairedStore(
        *(
            RemoteStore(f"{web.url}/{name}", tmp_path / name[:1], bound)
            for name in ("store", "second")
        )
    )
    sites = (f"base:{SITE}", f"chat:{SITE}", f"base:{OTHER}")
    assert_same_batches(read(there, sites, epochs=1), read(pair, sites, epochs=1))
    _, count = fetched(web)
    assert count <= size_of(first) + 16 * (8 * 16 + 4)


def test_a_reader_of_a_store_that_grows_sees_whole_shards_alone(tmp_path, web):
    manifest = make_manifest(codec="int8", **SIZES)
    values = make_values(manifest)
    write_store(tmp_path / "store", manifest, values, shards=5)
    early = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    journal = tmp_path / "store" / "shards.jsonl"
    write_store(tmp_path / "store", manifest, values, shards=1)
    line = journal.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
    assert (early.rows, early.complete) == (5 * 256, False)
    assert len(early.read(SITE)) == 5 * 256  # what it saw when it was opened
    with pytest.raises(BadInput, match=r"rows 0:1536 are not in the store"):
        early.read(SITE, 0, 6 * 256)
    now = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    assert now.rows == 6 * 256
    journal.write_bytes(journal.read_bytes()[: -len(line) // 2])  # it is being written
    with pytest.raises(DamagedStore, match=r"the last line of .* has no end"):
        RemoteStore(f"{web.url}/store", tmp_path / "cache")


@pytest.mark.parametrize("cache_bytes", ["10e9", "4e4"])
def test_training_goes_through_if_one_request_in_twenty_is_dropped(
    make_store, tmp_path, dropping, monkeypatch, cache_bytes
):
    from rkstore.share.push import push

    store, _ = make_store(codec="int8", **SIZES)
    assert size_of(store) > 4e4
    monkeypatch.setenv("RKSTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RKSTORE_CACHE_BYTES", cache_bytes)
    wanted = {"layer": 0, "steps": 120, "batch_size": 64, "d_sae": 24, "k": 4}
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{dropping.port}")
    push(str(store.root), dropping.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{dropping.server_port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    weights = [
        train(TrainSettings(store=at, out=str(tmp_path / name), **wanted))
        .joinpath("sae_weights.safetensors")
        .read_bytes()
        for name, at in (("here", str(store.root)), ("there", dropping.url))
    ]
    assert weights[0] == weights[1]
    assert dropping.count > 40


@pytest.mark.parametrize("given", ["much", "0", "-1", "inf", "nan"])
def test_a_size_of_the_cache_that_is_none_is_refused(make_store, web, monkeypatch, given):
    make_store()
    monkeypatch.setenv("RKSTORE_CACHE_BYTES", given)
    with pytest.raises(BadInput, match=f"RKSTORE_CACHE_BYTES is '{given}': give a number of bytes"):
        RemoteStore(f"{web.url}/store")
