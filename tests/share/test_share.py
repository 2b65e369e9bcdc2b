"""Pushing, pulling, reading in place and repairing, over real protocols on loopback."""

import os
import subprocess
import sys
import textwrap
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import flip, make_manifest, make_values, tree, write_store

import rkstore as package
from rkstore.errors import BadInput, DamagedStore, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.repair import repair
from rkstore.share.settings import PullSettings
from rkstore.store.batches.assemble import read_batches
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.files import JOURNAL, MANIFEST, PART
from rkstore.store.manifest import COLUMNS
from rkstore.store.places import retry, url
from rkstore.store.places.remote import RemoteStore
from rkstore.store.places.url import Location
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.destination import Destination
from rkstore.store.writing.writer import StoreWriter
from rkstore.training.settings import TrainSettings

SITE, OTHER, SMALL = "blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"


@pytest.fixture(autouse=True)
def _no_waiting_before_another_try(monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))


def pulled(url, out, **options):
    """The store that a pull leaves, and what it moved."""
    return pull(str(url), PullSettings(out=str(out), **options))


def problems(root):
    return [f"{problem.path} {problem.what}" for problem in verify(Store(root))]


def test_pushed_and_pulled_through_a_directory_the_bytes_are_the_same(make_store, tmp_path):
    store, _ = make_store()
    push(store.root, str(tmp_path / "remote"))
    assert tree(tmp_path / "remote") == tree(store.root)
    pulled(tmp_path / "remote", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_pushed_and_pulled_through_s3_the_bytes_are_the_same(make_store, tmp_path, bucket, format):
    store, _ = make_store(format=format, codec="int8")
    push(store.root, bucket)
    pulled(bucket, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


def test_pushed_and_pulled_through_sftp_the_bytes_are_the_same(make_store, tmp_path, sftp):
    store, _ = make_store()
    push(store.root, sftp)
    assert tree(tmp_path / "remote") == tree(store.root)
    pulled(sftp, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


def test_pulled_over_http_the_bytes_are_the_same(make_store, tmp_path, web):
    store, _ = make_store()
    pulled(f"{web.url}/store/", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


def test_one_layer_of_several_moves_its_share_of_the_bytes(make_store, tmp_path, web):
    store, values = make_store()
    part, moved = pulled(f"{web.url}/store", tmp_path / "copy", layers="0")
    served = sum(count for _, count in web.served)
    overhead = sum((store.root / name).stat().st_size for name in (MANIFEST, JOURNAL))
    assert served == moved.bytes + overhead
    assert moved.bytes == store.stored_bytes() - sum(
        file.bytes
        for path, file in store.files().items()
        if path.startswith((f"{OTHER}/", f"{SMALL}/"))
    )
    assert part.hook_names == [SITE]
    np.testing.assert_array_equal(part.read(SITE), values[SITE])
    assert problems(tmp_path / "copy") == []


def test_a_dictionary_trained_from_a_url_is_the_one_trained_from_a_directory(
    make_store, tmp_path, web, monkeypatch
):
    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train

    monkeypatch.setenv("RKSTORE_CACHE", str(tmp_path / "cache"))
    store, _ = make_store(rows=400)
    wanted = {"layer": 0, "steps": 5, "batch_size": 64, "d_sae": 24, "k": 4}
    weights = [
        (train(TrainSettings(store=at, out=str(tmp_path / name), **wanted))).joinpath(
            "sae_weights.safetensors"
        )
        for name, at in (("here", str(store.root)), ("there", f"{web.url}/store"))
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    # One layer was asked for, and no other was fetched.
    assert not any(OTHER in path for path, _ in web.served)


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_part_keeps_the_numbers_of_the_whole(make_store, tmp_path, format):
    store, values = make_store(format=format, codec="int8")
    part, _ = pulled(store.root, tmp_path / "copy", hook=("mlp.hook_post",), rows="70:130")
    assert part.hook_names == [SITE, OTHER]
    assert (part.first_row, part.stop_row, part.rows) == (64, 192, 216)
    assert part.manifest.fingerprint == store.manifest.fingerprint
    np.testing.assert_array_equal(part.read(SITE), store.read(SITE, 64, 192))
    np.testing.assert_array_equal(part.read(SITE, 100, 150), store.read(SITE, 100, 150))
    np.testing.assert_array_equal(part.chunk(OTHER, 5), store.chunk(OTHER, 5))
    for name in COLUMNS:
        np.testing.assert_array_equal(part.column(name), values[name][64:192])
    assert part.statistics(SITE).count == 128
    np.testing.assert_allclose(
        part.statistics(SITE).mean, values[SITE][64:192].mean(axis=0), rtol=1e-5
    )
    assert 0 < part.codec_fvu(SITE) < 1
    arrays = part.open_array(SITE)
    assert len(arrays) == 2 if format == "hdf5" else arrays.shape == (192, 12)
    assert problems(part.root) == []


def test_blocks_of_another_name_have_layers_too(make_store, tmp_path):
    sites = {"L_blocks.0.mlp": 4, "L_blocks.1.mlp": 4, "H_blocks.1.mlp": 4, "embed.hook_out": 4}
    store, _ = make_store(sites=sites)
    part, _ = pulled(store.root, tmp_path / "layer", layers="1")
    assert part.hook_names == ["L_blocks.1.mlp", "H_blocks.1.mlp"]
    part, _ = pulled(store.root, tmp_path / "hook", hook="mlp")
    assert part.hook_names == [name for name in sites if name != "embed.hook_out"]


def test_of_several_hooks_each_must_be_in_the_store(make_store, tmp_path):
    store, _ = make_store()
    with pytest.raises(BadInput, match=r"hook mlp\.hook_pots is not in the store"):
        pulled(store.root, tmp_path / "copy", hook=("mlp.hook_post", "mlp.hook_pots"))
    assert not (tmp_path / "copy").exists()


def test_what_a_part_lacks_is_refused_with_a_way_to_get_it(make_store, tmp_path):
    store, _ = make_store()
    part, _ = pulled(store.root, tmp_path / "copy", layers="0", rows="64:128")
    has = f"is a part, with {SITE} and rows 64:128 of 216: 'rkstore pull URL --out {part.root}'"
    for refused in (
        lambda: part.read(OTHER),
        lambda: part.site(layer=1),
        lambda: part.read(SITE, 0, 70),
        lambda: part.column("document", 100, 129),
        lambda: part.chunk(SITE, 8),
    ):
        with pytest.raises(BadInput, match=has):
            refused()
    with pytest.raises(BadInput, match="is a part of a store: complete it"):
        StoreWriter(part.root, store.manifest)


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_completing_a_part_gives_the_bytes_of_the_whole(make_store, tmp_path, format):
    store, _ = make_store(format=format)
    copy = tmp_path / "copy"
    pulled(store.root, copy, layers="1", hook=("mlp.hook_post",), rows="192:")
    said = []
    settings = PullSettings(out=str(copy), layers="0", rows="64:128")
    part, _ = pull(str(store.root), settings, said.append)
    assert (part.hook_names, part.shards) == ([SITE, OTHER], range(1, 4))
    assert "every site of a part has the same rows" in said[0]
    assert problems(copy) == []
    before = part.stored_bytes()
    whole, moved = pulled(store.root, copy)
    assert moved.bytes == store.stored_bytes() - before
    assert whole.part is None
    assert tree(copy) == tree(store.root)
    assert pulled(store.root, copy)[1].files == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"layers": "2"}, [2, 3]),
        ({"layers": "0,2"}, [0, 1, 2, 3]),
        ({"hook": ("hook_a",)}, [0, 1, 2]),
        ({"hook": ("hook_*",)}, [0, 1, 2, 3]),
        ({"hook": ("hook_a", "hook_b")}, [0, 1, 2, 3]),
        ({"hook": ("H_blocks.0.*", "ln_final.hook_scale")}, [1, 4]),
        ({"hook": ("hook_b", "hook_a"), "layers": "2"}, [2, 3]),
    ],
)
def test_sites_are_pulled_by_layer_and_hook_whatever_their_blocks_are_called(
    make_store, tmp_path, options, expected
):
    names = [
        "blocks.0.hook_a",
        "H_blocks.0.hook_a",
        "encoder.layers.2.hook_a",
        "encoder.layers.2.hook_b",
        "ln_final.hook_scale",
    ]
    store, _ = make_store(rows=64, sites=dict.fromkeys(names, 3))
    part, _ = pulled(store.root, tmp_path / "copy", **options)
    assert part.hook_names == [names[i] for i in expected]


def test_a_layer_between_others_that_is_not_there_is_refused(make_store, tmp_path):
    store, _ = make_store(rows=64, sites={"blocks.0.hook_a": 3, "blocks.2.hook_a": 3})
    with pytest.raises(
        BadInput, match=r"layer 1 is not in the store .*, whose layers are 0,2: it has blocks\.0"
    ):
        pulled(store.root, tmp_path / "copy", layers="0-2")
    assert not (tmp_path / "copy").exists()


def test_rows_are_rounded_outward_and_it_is_said(make_store, tmp_path):
    store, _ = make_store()
    said = []
    settings = PullSettings(out=str(tmp_path / "copy"), rows="70:100")
    part, _ = pull(str(store.root), settings, said.append)
    assert said == ["rows 70:100 are in shards with rows 64:128, which are pulled whole"]
    assert part.shards == range(1, 2)


def test_a_part_holds_out_the_chunks_that_the_whole_holds_out(make_store, tmp_path):
    store, _ = make_store(rows=64 * 10)
    train, held_out = split_chunks(store)
    part, _ = pulled(store.root, tmp_path / "copy", rows="64:320")
    here = set(part.chunk_range)
    assert here == set(range(4, 20))
    assert split_chunks(part) == (
        [chunk for chunk in train if chunk in here],
        [chunk for chunk in held_out if chunk in here],
    )
    plan = plan_batches(part, split_chunks(part)[0], 32)
    batch = next(read_batches(part, [SITE], plan))
    np.testing.assert_array_equal(batch.x[SITE], store.read(SITE)[batch.rows])


def test_a_pull_that_failed_leaves_a_valid_part_and_fetches_nothing_twice(
    make_store, tmp_path, web
):
    store, _ = make_store()
    copy = tmp_path / "copy"
    pulled(store.root, copy, layers="0")
    lost = store.root / OTHER / "c" / "2" / "0"
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(RkstoreError, match=f"{OTHER}/c/2/0 does not exist"):
        pulled(f"{web.url}/store", copy)
    assert Store(copy).hook_names == [SITE]
    assert Store(copy).read(SITE).shape == (216, 12)
    assert not (copy / ".writing").exists()
    present = set(tree(copy))
    lost.write_bytes(content)
    web.served.clear()
    pulled(f"{web.url}/store", copy)
    again = {path.removeprefix("store/") for path, _ in web.served} - {MANIFEST, JOURNAL}
    assert f"{OTHER}/c/2/0" in again
    assert not again & present
    assert tree(copy) == tree(store.root)


def test_a_pull_that_was_killed_goes_on(make_store, tmp_path):
    store, _ = make_store()
    program = textwrap.dedent("""
        import os, sys
        from rkstore.share.settings import PullSettings
        from rkstore.store import files
        from rkstore.store.places import fetch
        from rkstore.share.pull import pull
        url, limit = sys.argv[1:]
        plain, calls = files.into_place, []
        def into_place(*words):
            calls.append(words)
            if len(calls) > int(limit):
                os._exit(9)
            plain(*words)
        files.into_place = fetch.into_place = into_place
        pull(url, PullSettings(out="copy"))
    """)
    for limit in (0, 1, 2, 9, 30):
        done = subprocess.run(
            [sys.executable, "-c", program, str(store.root), str(limit)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 9, done.stderr
        if (tmp_path / "copy" / MANIFEST).exists():
            assert Store(tmp_path / "copy").held.files(store.manifest, store.records) == {}
    pulled(store.root, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


@pytest.fixture
def large(tmp_path):
    """A file of which some has arrived when the line is cut."""
    content = np.random.default_rng(0).bytes(3 * 2**20)
    (tmp_path / "large").write_bytes(content)
    return content


def test_over_http_a_file_goes_on_where_the_line_was_cut(web, bad_line, large):
    port, line = bad_line(web.server_port)
    assert b"".join(Location(f"http://127.0.0.1:{port}").blocks("large")) == large
    assert line.cuts == 0
    first, second, third = (count for _, count in web.served)
    assert len(large) == first > second > third


def test_a_server_that_knows_no_ranges_sends_it_again(web, bad_line, large):
    web.ranges = False
    port, line = bad_line(web.server_port)
    assert b"".join(Location(f"http://127.0.0.1:{port}").blocks("large")) == large
    assert (line.cuts, len(web.served)) == (0, 3)


def test_over_s3_a_file_goes_on_where_the_line_was_cut(bucket, bad_line, large, tmp_path):
    import s3fs

    Destination(bucket).put("large", tmp_path / "large")
    with pytest.MonkeyPatch.context() as patch:
        port, line = bad_line(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        s3fs.S3FileSystem.clear_instance_cache()  # those that have the other address
        assert b"".join(Location(bucket).blocks("large")) == large
    s3fs.S3FileSystem.clear_instance_cache()
    assert line.cuts == 0


# Paramiko's thread that reads ahead dies loudly when its line is cut.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_over_sftp_a_file_goes_on_where_the_line_was_cut(sftp, bad_line, large, tmp_path):
    there = urlsplit(sftp)
    port, line = bad_line(there.port)
    known = tmp_path / "home" / ".ssh" / "known_hosts"
    known.write_text(known.read_text().replace(str(there.port), str(port)))
    location = Destination(f"sftp://me:secret@127.0.0.1:{port}{tmp_path}")
    assert b"".join(location.blocks("large")) == large
    assert line.cuts == 0
    line.cuts, line.after = 1, 0
    location.put("copy", tmp_path / "large")
    assert (line.cuts, (tmp_path / "copy").read_bytes()) == (0, large)


def test_a_server_that_is_busy_for_a_moment_is_asked_again(make_store, tmp_path, web):
    store, _ = make_store()
    web.failures = [503, 429, 500]
    pulled(f"{web.url}/store", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


def test_a_server_that_stays_busy_is_one_sentence(make_store, tmp_path, web):
    make_store()
    web.failures = [503] * 4
    with pytest.raises(RkstoreError, match=r"cannot read http.*manifest.json: 503.* to continue"):
        pulled(f"{web.url}/store", tmp_path / "copy")
    assert web.failures == []


def test_a_file_that_was_changed_at_the_url_is_refused_and_not_kept(make_store, tmp_path, web):
    store, _ = make_store()
    changed = store.root / OTHER / "c" / "1" / "0"
    for damage in (
        lambda: flip(changed, 5),
        lambda: changed.write_bytes(changed.read_bytes() + b"more" * 100_000),
        lambda: changed.write_bytes(b""),
    ):
        damage()
        with pytest.raises(DamagedStore, match=rf"{OTHER}/c/1/0 at .* not what was recorded"):
            pulled(f"{web.url}/store", tmp_path / "copy")
        assert not (tmp_path / "copy" / OTHER / "c" / "1" / "0").exists()


def test_a_store_that_lies_about_its_paths_is_refused(make_store, tmp_path, web):
    store, _ = make_store()
    for name, old in ((MANIFEST, SITE), (JOURNAL, f"{SITE}/c/0/0"), (PART, None)):
        path = store.root / name
        before = path.read_bytes() if path.exists() else None
        lie = before.replace(old.encode(), b"../../outside") if before else b'{"sites": ["../x"]}'
        path.write_bytes(lie)
        with pytest.raises(DamagedStore):
            pulled(f"{web.url}/store", tmp_path / "copy")
        path.unlink() if before is None else path.write_bytes(before)
    assert not (tmp_path / "copy").exists()
    (store.root / MANIFEST).write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(DamagedStore, match="larger than 16 MiB"):
        pulled(f"{web.url}/store", tmp_path / "copy")


def test_a_push_sends_what_is_missing_and_data_before_what_lists_it(tmp_path, monkeypatch):
    manifest = make_manifest()
    values = make_values(manifest)
    root, remote = tmp_path / "store", tmp_path / "remote"
    write_store(root, manifest, values, 2)
    sent = []
    plain = Destination.put
    monkeypatch.setattr(
        Destination, "put", lambda self, path, file: (sent.append(path), plain(self, path, file))
    )
    push(root, str(remote))
    assert sent[-2:] == [JOURNAL, MANIFEST]
    assert tree(remote) == tree(root)
    sent.clear()
    assert push(root, str(remote)).files == 0
    assert sent == []
    write_store(root, manifest, values)
    push(root, str(remote))
    assert sent[-1] == JOURNAL
    assert not any(path.endswith(("c/0/0", "c/1/0")) for path in sent)
    assert tree(remote) == tree(root)
    (remote / SITE / "c" / "0" / "0").write_bytes(b"half")
    sent.clear()
    push(root, str(remote))
    assert sent == [f"{SITE}/c/0/0"]


def test_a_push_that_failed_goes_on_and_shows_no_store_before_it_is_one(
    make_store, tmp_path, bucket, monkeypatch
):
    store, _ = make_store()
    plain, calls, cut = Destination.put, [], [f"{OTHER}/c/2/0"]

    def put(self, path, file):
        calls.append(path)
        if path in cut:
            cut.remove(path)
            raise RkstoreError("the line was cut")
        plain(self, path, file)

    monkeypatch.setattr(Destination, "put", put)
    monkeypatch.setattr(Destination, "journal_seconds", 0.0)
    with pytest.raises(RkstoreError, match="the line was cut"):
        push(store.root, bucket)
    with pytest.raises(BadInput, match="there is no store at s3://"):
        pulled(bucket, tmp_path / "copy")
    calls.clear()
    push(store.root, bucket)
    assert not any(path.endswith(("c/0/0", "c/1/0")) for path in calls)
    pulled(bucket, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(store.root)


def test_a_push_over_something_else_is_refused(make_store, tmp_path):
    store, _ = make_store()
    other, _ = make_store("other", codec="int8")
    same, _ = make_store("same", seed=1)
    before = tree(other.root)
    with pytest.raises(BadInput, match=r"another store .*codec: int8 there, float32 here"):
        push(store.root, str(other.root))
    with pytest.raises(BadInput, match="was written by another run"):
        push(store.root, str(same.root))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"not empty and holds no store \(mine.txt is there\)"):
        push(store.root, str(tmp_path / "notes"))
    assert tree(other.root) == before


def test_a_push_of_a_damaged_file_is_refused(make_store, tmp_path):
    store, _ = make_store()
    flip(store.root / SITE / "c" / "1" / "0", 5)
    with pytest.raises(DamagedStore, match=f"{SITE}/c/1/0 of .* was not pushed"):
        push(store.root, str(tmp_path / "remote"))
    assert not (tmp_path / "remote" / MANIFEST).exists()


def test_a_part_can_be_pushed_grown_and_completed_but_not_over_more(make_store, tmp_path):
    store, _ = make_store()
    remote = tmp_path / "remote"
    small, _ = pulled(store.root, tmp_path / "small", layers="0")
    large, _ = pulled(store.root, tmp_path / "large", hook=("mlp.hook_post",))
    push(small.root, str(remote))
    assert tree(remote) == tree(small.root)
    third, _ = pulled(store.root, tmp_path / "third", layers="1", rows="0:64")
    with pytest.raises(BadInput, match=r"is a part of a store and lacks \d+ files"):
        pulled(remote, third.root, rows="64:128")
    push(large.root, str(remote))
    assert tree(remote) == tree(large.root)
    with pytest.raises(BadInput, match="has what this part lacks"):
        push(small.root, str(remote))
    push(store.root, str(remote))
    assert tree(remote) == tree(store.root)
    with pytest.raises(BadInput, match="is whole: complete it first"):
        push(large.root, str(remote))


def test_a_store_that_is_being_written_is_left_alone(make_store, tmp_path):
    store, _ = make_store()
    copy = tmp_path / "copy"
    write_store(copy, store.manifest, make_values(store.manifest), 1)
    with StoreWriter(copy, store.manifest):
        with pytest.raises(BadInput, match="is being written by process"):
            pulled(store.root, copy)
        with pytest.raises(BadInput, match="is being written by process"):
            push(store.root, str(copy))
    pulled(store.root, copy)
    assert tree(copy) == tree(store.root)


def test_a_store_that_grew_is_pulled_as_far_as_it_is_new(make_store, tmp_path):
    store, values = make_store(shards=2)
    copy = tmp_path / "copy"
    pulled(store.root, copy)
    write_store(store.root, store.manifest, values)
    assert pulled(store.root, copy, rows="0:64")[1].files == 0
    assert pulled(store.root, copy)[1].present == 2 * 9
    assert tree(copy) == tree(store.root)


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_reading_in_place_equals_reading_here(make_store, tmp_path, web, codec):
    store, _ = make_store(codec=codec)
    remote = package.open(f"{web.url}/store", cache=tmp_path / "cache")
    assert isinstance(remote, RemoteStore)
    assert not [path for path, _ in web.served if "/c/" in path]
    np.testing.assert_array_equal(remote.read(SITE, 70, 80), store.read(SITE, 70, 80))
    fetched = {path for path, _ in web.served if "/c/" in path}
    assert (fetched and all(f"store/{SITE}" in path and "/1/0" in path for path in fetched)) or (
        codec == "int8"
    )
    for name in store.hook_names:
        np.testing.assert_array_equal(remote.read(name), store.read(name))
        np.testing.assert_array_equal(remote.statistics(name).m2, store.statistics(name).m2)
    np.testing.assert_array_equal(remote.column("document"), store.column("document"))
    count = len(web.served)
    again = package.open(f"{web.url}/store", cache=tmp_path / "cache")
    again.read(SITE)
    assert len(web.served) - count <= 3  # manifest, journal: the cache has the rest
    with pytest.raises(BadInput, match="cannot be opened remotely"):
        remote.open_array(SITE)


def test_the_cache_stays_under_its_bound_and_keeps_what_was_used_last(make_store, tmp_path, web):
    store, _ = make_store()
    largest = max(file.bytes for file in store.files().values())
    bound = 3 * largest
    cache = tmp_path / "cache"
    remote = RemoteStore(f"{web.url}/store", cache, bound)
    for name in store.hook_names:
        for chunk in range(store.chunks):
            np.testing.assert_array_equal(remote.chunk(name, chunk), store.chunk(name, chunk))
            assert sum(map(len, tree(cache).values())) <= bound
    last = f"{store.manifest.fingerprint}/{store.hook_names[-1]}/c/3/0"
    assert last in tree(cache)
    with pytest.raises(BadInput, match="give a larger cache_bytes"):
        RemoteStore(f"{web.url}/store", tmp_path / "tiny", 10).read(SITE)


def test_while_a_shard_is_decoded_the_next_is_fetched(make_store, tmp_path, web, monkeypatch):
    _, values = make_store()
    plain, seen = Store.read, []

    def read(self, name, first, last):
        following, until = f"store/{SITE}/c/{last // 64}/0", time.monotonic() + 10
        while last < 192 and following not in dict(web.served):
            assert time.monotonic() < until
        seen.append((first, last))
        return plain(self, name, first, last)

    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    monkeypatch.setattr(Store, "read", read)
    np.testing.assert_array_equal(remote.read(SITE, 10, 192), values[SITE][10:192])
    assert seen == [(10, 64), (64, 128), (128, 192)]
    assert not any(f"{SITE}/c/3/0" in path for path, _ in web.served)  # not asked for


def test_what_another_process_is_fetching_is_left_alone(make_store, tmp_path, web):
    store, _ = make_store()
    cache = tmp_path / "cache"
    largest = max(file.bytes for file in store.files().values())
    fetching, left = (cache / "other" / ".writing" / name for name in ("a.1", "b.2"))
    fetching.parent.mkdir(parents=True)
    for file in (fetching, left):
        file.write_bytes(bytes(largest))
    os.utime(left, (0, 0))
    RemoteStore(f"{web.url}/store", cache, largest).read(SITE)
    assert fetching.exists()
    assert not left.exists()


def test_what_was_removed_between_fetching_and_opening_is_fetched_again(
    make_store, tmp_path, web, monkeypatch
):
    store, values = make_store(codec="int8")
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache")
    real, removed = remote._present, set()

    def removed_once(path, recorded):
        file = real(path, recorded)
        if path not in removed:
            removed.add(path)
            file.unlink()
        return file

    monkeypatch.setattr(remote, "_present", removed_once)
    np.testing.assert_array_equal(remote.read(SITE), store.read(SITE))
    assert remote.statistics(SITE).count == len(values[SITE])
    assert len(removed) > 8


READ_ALL = """
import sys
from rkstore.store.places.remote import RemoteStore
url, cache, bound, site = sys.argv[1:]
for _ in range(3):
    remote = RemoteStore(url, cache, int(bound))
    for start in range(0, remote.rows, 64):
        remote.read(site, start, min(start + 64, remote.rows))
    remote.statistics(site)
"""


def test_processes_that_share_a_small_cache_all_read_everything(make_store, tmp_path, web):
    store, _ = make_store(codec="int8")
    bound = 2 * max(file.bytes for file in store.files().values())
    command = [sys.executable, "-c", READ_ALL, f"{web.url}/store", tmp_path / "cache", bound, SITE]
    readers = [
        subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [reader.communicate()[1] for reader in readers] == [""] * 4


def test_nothing_is_fetched_ahead_that_the_cache_has_no_room_for(make_store, tmp_path, web):
    store, values = make_store()
    bound = max(file.bytes for file in store.files().values())
    remote = RemoteStore(f"{web.url}/store", tmp_path / "cache", bound)
    np.testing.assert_array_equal(remote.read(SITE), values[SITE])
    fetched = [path for path, _ in web.served if "/c/" in path]
    assert fetched == [f"store/{SITE}/c/{shard}/0" for shard in range(4)]


def test_what_changed_in_the_cache_or_at_the_url_is_noticed(make_store, tmp_path, web):
    store, _ = make_store()
    cache = tmp_path / "cache"
    RemoteStore(f"{web.url}/store", cache).read(SITE)
    flip(cache / store.manifest.fingerprint / SITE / "c" / "1" / "0", 5)
    again = RemoteStore(f"{web.url}/store", cache)
    np.testing.assert_array_equal(again.read(SITE), store.read(SITE))
    flip(store.root / OTHER / "c" / "1" / "0", 5)
    with pytest.raises(DamagedStore, match=f"{OTHER}/c/1/0 at http"):
        again.read(OTHER)


def test_a_repair_fetches_the_damaged_files_alone(make_store, tmp_path, web):
    store, _ = make_store()
    whole = tree(store.root)
    copy, _ = pulled(store.root, tmp_path / "copy")
    flip(copy.root / SITE / "c" / "1" / "0", 5)
    (copy.root / "token_id" / "c" / "2").unlink()
    (copy.root / OTHER / "zarr.json").write_text("{}")
    (copy.root / "notes.txt").write_text("mine")
    [left] = repair(copy, list(verify(copy)), f"{web.url}/store")
    assert (left.path, left.what) == ("notes.txt", "is not recorded")
    assert {path for path, _ in web.served} == {
        f"store/{name}" for name in (MANIFEST, JOURNAL, f"{SITE}/c/1/0", "token_id/c/2")
    }
    (copy.root / "notes.txt").unlink()
    assert tree(copy.root) == whole


def test_a_repair_keeps_what_a_writer_recorded_after_the_store_was_verified(make_store):
    whole, _ = make_store("whole")
    store, values = make_store(shards=2)
    (store.root / OTHER / "zarr.json").write_text("{}")
    (store.root / OTHER / "c" / "0" / "0").unlink()
    found = list(verify(store))
    write_store(store.root, store.manifest, values)
    (store.root / OTHER / "c" / "0" / "0").unlink(missing_ok=True)
    assert repair(store, found, str(whole.root)) == []
    assert tree(store.root) == tree(whole.root)


def test_a_repair_from_another_store_or_too_small_a_part_is_refused(make_store, tmp_path):
    store, _ = make_store()
    other, _ = make_store("other", codec="int8")
    part, _ = pulled(store.root, tmp_path / "part", layers="0")
    (store.root / OTHER / "c" / "1" / "0").unlink()
    found = list(verify(store))
    with pytest.raises(BadInput, match="is another store than"):
        repair(store, found, str(other.root))
    with pytest.raises(BadInput, match=f"lacks {OTHER}/c/1/0: repair from the whole"):
        repair(store, found, str(part.root))
    assert problems(store.root) == [f"{OTHER}/c/1/0 is missing"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": "7"}, "layer 7 is not in the store at .*, whose layers are 0-1"),
        ({"layers": "first"}, "give 'all' or a list such as 0-3,8"),
        (
            {"layers": "0", "hook": ("hook_mlp_out",)},
            "layer 0 and hook hook_mlp_out is not in",
        ),
        ({"hook": ("mlp.hook_pst",)}, f"which has {SITE}, {OTHER}, {SMALL}"),
        ({"hook": ("mlp.hook_post", "hook_q")}, "hook hook_q is not in the store"),
        ({"rows": "many"}, "rows is 'many': give a range such as 0:100000"),
        ({"rows": "10:5"}, "has rows 0:216"),
        ({"rows": "0:217"}, "has rows 0:216"),
        ({"out": "taken"}, r"taken is not empty and holds no store \(mine.txt is there\)"),
        ({"out": "file"}, "file is a file: choose another out"),
        ({"out": "other"}, "is another store than other"),
    ],
)
def test_a_pull_that_cannot_be_is_refused(make_store, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    store, _ = make_store()
    make_store("other", codec="int8")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(BadInput, match=said):
        pull(str(store.root), PullSettings(**({"out": "copy"} | options)))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nowhere", "there is no store at nowhere"),
        (
            "ftp://host/store",
            "'ftp://host/store' is not a valid place for a store: give a directory, or",
        ),
        ("zip::http://host/a.zip", "is not a valid place for a store"),
        ("https://host/store?token=1", "is not a valid place for a store"),
    ],
)
def test_a_url_that_cannot_be_is_refused(tmp_path, monkeypatch, url, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as refused:
        pull(url, PullSettings(out="copy"))
    assert said in str(refused.value)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("package", "url"),
    [
        ("s3fs", "s3://bucket/store"),
        ("aiohttp", "https://host/store"),
        ("paramiko", "sftp://me@host/store"),
    ],
)
def test_a_missing_backend_says_what_to_install(package, url):
    absent = f"import sys; sys.modules[{package!r}] = None"
    program = f"{absent}; from rkstore.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "pull", url], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"needs {package}: pip install {package}, or 'rkstore[share]' for all" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_reached_or_written_is_one_sentence(make_store, tmp_path, web, bucket):
    store, _ = make_store()
    with pytest.raises(BadInput, match="can be read only: push to s3://"):
        push(store.root, f"{web.url}/new")
    with pytest.raises(BadInput, match="no dataset: push to hf://datasets/USER/NAME"):
        push(store.root, "hf://me/model")
    with pytest.raises(RkstoreError, match=r"cannot read http://127.0.0.1:9/store"):
        pulled("http://127.0.0.1:9/store", tmp_path / "copy")
    with pytest.raises(RkstoreError, match="s3://no-such-bucket"):
        push(store.root, "s3://no-such-bucket-here/store")
    with pytest.raises(BadInput, match="there is no store at s3://"):
        pulled(bucket, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["bucket", "sftp"])
def test_what_arrives_damaged_is_asked_for_again(make_store, tmp_path, kind, request, monkeypatch):
    """S3's library and SFTP's notice it themselves, and raise errors of their own."""
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))
    place = request.getfixturevalue(kind)
    store, _ = make_store()
    push(store.root, place)
    opened, asked = Location._open, set()

    def damaged_first(self, path, at, tag):
        if path not in asked:
            asked.add(path)
            raise RuntimeError("expected checksum AAAA, calculated BBBB")
        return opened(self, path, at, tag)

    monkeypatch.setattr(Location, "_open", damaged_first)
    copy, _ = pulled(place, tmp_path / "copy")
    assert tree(copy.root) == tree(store.root)


def test_an_sftp_server_that_refuses_the_first_connection_is_asked_again(sftp, monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))
    real, tried = url._file_system, []

    def refused_first(scheme, at):
        tried.append(at)
        if len(tried) == 1:
            raise ConnectionRefusedError("refused")
        return real(scheme, at)

    monkeypatch.setattr(url, "_file_system", refused_first)
    Location(sftp)
    assert len(tried) == 2


def test_a_wrong_password_is_tried_once(sftp, monkeypatch):
    real, tried = url._file_system, []
    monkeypatch.setattr(url, "_file_system", lambda *at: tried.append(at) or real(*at))
    with pytest.raises(RkstoreError, match="Authentication failed"):
        Location(sftp.replace("secret", "guessed"))
    assert len(tried) == 1


def test_an_sftp_server_whose_key_is_not_known_is_refused(sftp, tmp_path):
    (tmp_path / "home" / ".ssh" / "known_hosts").write_text("")
    with pytest.raises(BadInput, match=r"is not in .*known_hosts: connect to it once") as refused:
        Location(sftp)
    assert "secret" not in str(refused.value)


def test_train_and_evaluate_work_on_a_part(make_store, tmp_path, monkeypatch):
    from rkstore.evaluation.evaluate import evaluate
    from rkstore.evaluation.settings import EvaluateSettings
    from rkstore.rkcnn.mine import probe
    from rkstore.rkcnn.settings import ProbeSettings
    from rkstore.training.train import train

    monkeypatch.chdir(tmp_path)
    store, _ = make_store(rows=64 * 10)
    part, _ = pulled(store.root, tmp_path / "part", layers="0", rows="64:320")
    options = {"layer": 0, "d_sae": 24, "k": 4, "steps": 12, "batch_size": 32}
    checkpoint = train(TrainSettings(store=str(part.root), init="rkcnn", **options))
    [result] = evaluate([checkpoint], EvaluateSettings(store=str(part.root)))
    assert result.rows == 32  # chunks 9 and 19
    probe(ProbeSettings(store=str(part.root), layer=0, m=3, h=20, r=5))
    # Of the whole it is another run, under another name.
    assert train(TrainSettings(store=str(store.root), init="rkcnn", **options)) != checkpoint
    small, _ = pulled(store.root, tmp_path / "small", rows="0:64")
    with pytest.raises(BadInput, match="has no held-out rows"):
        evaluate([checkpoint], EvaluateSettings(store=str(small.root)))


def test_from_the_command_line(make_store, tmp_path, rkstore):
    store, _ = make_store()
    assert rkstore("push", "store", "remote")[:2] == (0, "remote: 36 files, " + run_size(store))
    status, out, err = rkstore("pull", "remote", "--layers", "0", "--rows", "70:100")
    assert status == 0
    assert "stores/remote: 5 files" in out
    assert "part    1 of 3 sites, rows 64:128 of 216" in out
    assert "rows 70:100 are in shards with rows 64:128" in err
    status, out, _ = rkstore("verify")
    assert (status, "5 files in 1 shards" in out) == (0, True)
    status, out, _ = rkstore("info")
    assert "part    1 of 3 sites, rows 64:128 of 216" in out
    assert rkstore("pull", "remote")[0] == 0
    assert tree(tmp_path / "stores" / "remote") == tree(store.root)
    flip(tmp_path / "stores" / "remote" / SITE / "c" / "1" / "0", 5)
    status, out, err = rkstore("verify", "stores/remote", "--repair-from", "remote")
    assert status == 0, err
    assert "1 files repaired from remote" in err
    (tmp_path / "stores" / "remote" / "notes.txt").write_text("mine")
    assert rkstore("verify", "stores/remote", "--repair-from", "remote")[0] == 1
    assert rkstore("pull", "nowhere")[0] == 2


def run_size(store):
    from rkstore.errors import size

    return f"{size(store.stored_bytes())}; 0 were there\n"
