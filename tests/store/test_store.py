"""Reading a store: what comes out is what went in, and what is broken is found."""

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import SITES, flip, make_manifest, shard_of, stored, tree, write_store

import rkstore
from rkstore.errors import BadInput, DamagedStore
from rkstore.share.repair import repair
from rkstore.store import descriptors, files
from rkstore.store.codecs import CODECS
from rkstore.store.files import FileRecord, sha256
from rkstore.store.formats import FORMATS
from rkstore.store.journal import ShardRecord
from rkstore.store.manifest import COLUMNS
from rkstore.store.open import find_store
from rkstore.store.statistics import Statistics
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.writer import StoreWriter

HOOK = "blocks.1.mlp.hook_post"

# With 16 rows a chunk and 64 a shard: inside one, to their edges, across them, to the end.
RANGES = [(0, 216), (0, 1), (3, 9), (0, 16), (15, 17), (16, 64), (60, 70), (63, 193), (200, 216)]


def shard_path(store: Store, hook_name: str, shard: int) -> str:
    spec = store.manifest.specs(hook_name)[""]
    return FORMATS[store.manifest.format].shard_path(spec, shard)


def problems(store: Store) -> dict[str, str]:
    return {problem.path: problem.what for problem in verify(Store(store.root))}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_rows_read_are_the_rows_written_as_their_codec_gives_them_back(make_store, format, codec):
    store, values = make_store(codec=codec, format=format)
    for hook_name, width in SITES.items():
        expected = stored(store.manifest, values[hook_name])
        for start, stop in RANGES:
            x = store.read(hook_name, start, stop)
            assert x.dtype == np.float32
            assert x.shape == (stop - start, width)
            np.testing.assert_array_equal(x, expected[start:stop])


def test_float32_rows_are_those_of_the_model_bit_for_bit(make_store):
    store, values = make_store(codec="float32")
    np.testing.assert_array_equal(store.read(HOOK), values[HOOK])


def test_all_rows_are_read_if_none_are_asked_for_and_none_if_none_are_meant(make_store):
    store, _ = make_store()
    assert store.read(HOOK).shape == (216, 12)
    assert store.read(HOOK, 100).shape == (116, 12)
    assert store.read(HOOK, 216).shape == (0, 12)
    assert store.read(HOOK, 7, 7).shape == (0, 12)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 217), (5, 4), (217, None), (300, 400)])
def test_rows_that_are_not_there_are_refused_with_the_number_there_is(make_store, start, stop):
    store, _ = make_store()
    for read in (store.read, store.column):
        with pytest.raises(BadInput, match="has 216"):
            read(HOOK if read == store.read else "position", start, stop)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(216, 64, 16), (8, 64, 64), (65, 64, 1), (64, 64, 8), (9, 3, 3)])
def test_any_number_of_rows_shards_and_chunks_reads_back(make_store, format, shape):
    rows, shard_rows, chunk_rows = shape
    store, values = make_store(
        codec="int8", format=format, rows=rows, shard_rows=shard_rows, chunk_rows=chunk_rows
    )
    assert store.complete
    np.testing.assert_array_equal(store.read(HOOK), stored(store.manifest, values[HOOK]))
    np.testing.assert_array_equal(store.column("token_id"), values["token_id"])
    assert problems(store) == {}


@pytest.mark.parametrize("format", FORMATS)
def test_chunks_put_together_are_all_rows(make_store, format):
    store, values = make_store(format=format)
    assert store.chunks == 14
    chunks = [store.chunk(HOOK, i) for i in range(store.chunks)]
    assert [len(chunk) for chunk in chunks] == [16] * 13 + [8]
    np.testing.assert_array_equal(np.concatenate(chunks), values[HOOK])
    assert store.rows_of_chunk(0) == (0, 16)
    assert store.rows_of_chunk(13) == (208, 216)


@pytest.mark.parametrize("chunk", [-1, 14, 16, 1000])
def test_a_chunk_that_is_not_there_is_refused(make_store, chunk):
    store, _ = make_store()
    with pytest.raises((BadInput, IndexError)):
        store.chunk(HOOK, chunk)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_read_are_the_columns_written(make_store, format, name):
    store, values = make_store(format=format)
    for start, stop in RANGES:
        column = store.column(name, start, stop)
        assert column.dtype == np.int32
        np.testing.assert_array_equal(column, values[name][start:stop])


def test_an_unknown_column_is_refused_with_the_names_of_all(make_store):
    store, _ = make_store()
    with pytest.raises(BadInput, match=r"'token'.*token_id, document, position"):
        store.column("token")


def test_an_unknown_site_is_refused_with_what_there_is(make_store):
    store, _ = make_store()
    for read in (
        store.read,
        store.statistics,
        store.codec_fvu,
        store.open_array,
        lambda name: store.chunk(name, 0),
    ):
        with pytest.raises(BadInput) as error:
            read("blocks.7.mlp.hook_post")
        assert all(name in str(error.value) for name in ("blocks.7.mlp.hook_post", *SITES))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_statistics_are_those_of_the_values_before_they_were_encoded(make_store, format, codec):
    store, values = make_store(codec=codec, format=format)
    for hook_name in SITES:
        x = values[hook_name].astype(np.float64)
        found = store.statistics(hook_name)
        assert found.count == 216
        np.testing.assert_allclose(found.mean, x.mean(0), 1e-12)
        np.testing.assert_allclose(found.variance, x.var(0), 1e-12)
        np.testing.assert_array_equal(found.min, x.min(0))
        np.testing.assert_array_equal(found.max, x.max(0))
        np.testing.assert_array_equal(found.positive, (x > 0).sum(0))


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_statistics_of_an_unfinished_store_are_those_of_its_rows(make_store, shards):
    store, values = make_store(shards=shards)
    x = values[HOOK][: shards * 64].astype(np.float64)
    assert store.statistics(HOOK).count == len(x)
    np.testing.assert_allclose(store.statistics(HOOK).mean, x.mean(0), 1e-12)


@pytest.mark.parametrize("codec", CODECS)
def test_the_error_of_the_codec_is_the_one_that_can_be_measured(make_store, codec):
    store, values = make_store(codec=codec)
    for hook_name in SITES:
        x = values[hook_name].astype(np.float64)
        error = ((store.read(hook_name) - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
        assert store.codec_fvu(hook_name) == pytest.approx(error, rel=1e-5, abs=0)
        assert (error > 0) == (codec != "float32")


def test_the_error_of_a_site_without_variance_is_none(make_store):
    constant = {HOOK: np.full((216, 12), 0.5, np.float32)}
    store, _ = make_store(codec="int8", values=constant)
    assert store.codec_fvu(HOOK) == 0.0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_stored_bytes_are_those_on_the_disk(make_store, format, codec):
    store, _ = make_store(codec=codec, format=format)
    sides = ["", *(f".{side}" for side in CODECS[codec].side)]
    sizes = {path: len(content) for path, content in tree(store.root).items()}
    derived = ("zarr.json", "manifest.json", "shards.jsonl")
    recorded = {path: size for path, size in sizes.items() if not path.endswith(derived)}
    assert store.stored_bytes() == sum(recorded.values())
    counted = {path: size for path, size in recorded.items() if "statistics" not in path}
    for hook_name in SITES:
        own = [s for p, s in counted.items() if p.split("/")[0] in [hook_name + s for s in sides]]
        assert store.stored_bytes(hook_name) == sum(own) > 0


@pytest.mark.parametrize("format", FORMATS)
def test_an_array_of_which_a_file_is_lost_is_not_opened_as_a_shorter_one(make_store, format):
    store, _ = make_store(format=format)
    (store.root / HOOK / ("zarr.json" if format == "zarr" else "00001.h5")).unlink()
    with pytest.raises(DamagedStore, match=HOOK):
        store.open_array(HOOK)


def test_an_unfinished_store_is_one_of_as_many_rows_as_are_recorded(make_store):
    store, values = make_store(shards=2)
    assert not store.complete
    assert store.rows == 128
    assert store.chunks == 8
    np.testing.assert_array_equal(store.read(HOOK), values[HOOK][:128])
    with pytest.raises(BadInput, match="has 128"):
        store.read(HOOK, 0, 129)


def test_a_store_without_shards_has_no_rows_and_says_how_to_go_on(make_store):
    store, _ = make_store(shards=0)
    assert (store.rows, store.chunks, store.complete) == (0, 0, False)
    assert store.read(HOOK).shape == (0, 12)
    assert problems(store) == {}
    with pytest.raises(BadInput, match="no rows yet"):
        store.statistics(HOOK)
    with pytest.raises(BadInput, match="no rows yet"):
        store.codec_fvu(HOOK)


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_sees_the_shards_that_were_recorded_when_it_was_opened(make_store, format):
    before, values = make_store(format=format, shards=2)
    write_store(before.root, before.manifest, values)
    assert before.rows == 128
    np.testing.assert_array_equal(before.read(HOOK), values[HOOK][:128])
    assert Store(before.root).rows == 216


def test_statistics_stay_readable_while_a_writer_goes_on(make_store):
    before, values = make_store(shards=2)
    write_store(before.root, before.manifest, values)
    statistics = before.statistics(HOOK)
    assert statistics.count == 128
    np.testing.assert_allclose(statistics.mean, values[HOOK][:128].mean(0, np.float64), 1e-12)


@pytest.mark.parametrize(
    ("layer", "hook", "expected"),
    [
        (0, None, "blocks.0.mlp.hook_post"),
        (0, "mlp.hook_post", "blocks.0.mlp.hook_post"),
        (1, "mlp.hook_post", "blocks.1.mlp.hook_post"),
        (1, "hook_mlp_out", "blocks.1.hook_mlp_out"),
        (None, "hook_mlp_out", "blocks.1.hook_mlp_out"),
        (None, "blocks.0.mlp.hook_post", "blocks.0.mlp.hook_post"),
        (1, "blocks.1.mlp.hook_post", "blocks.1.mlp.hook_post"),
    ],
)
def test_a_layer_and_a_hook_name_one_site(make_store, layer, hook, expected):
    store, _ = make_store()
    assert store.site(layer, hook) == expected


def test_the_only_site_need_not_be_named(make_store):
    store, _ = make_store(sites={HOOK: 12})
    assert store.site() == HOOK


def test_layer_1_is_not_layer_11(make_store):
    store, _ = make_store(sites={"blocks.1.mlp.hook_post": 4, "blocks.11.mlp.hook_post": 4})
    assert store.site(1) == "blocks.1.mlp.hook_post"


def test_a_layer_is_the_first_number_in_a_name_whatever_the_blocks_are_called(make_store):
    names = ["H_blocks.1.mlp.hook_post", "encoder.layers.2.experts.3.hook_post"]
    store, _ = make_store(sites=dict.fromkeys(names, 4), rows=64)
    assert store.site(1) == store.site(1, "mlp.hook_post") == names[0]
    assert store.site(2) == store.site(hook="experts.3.hook_post") == names[1]


def test_a_hook_outside_the_blocks_has_a_name_too(make_store):
    store, _ = make_store(sites={"ln_final.hook_normalized": 4, HOOK: 4})
    assert store.site(hook="ln_final.hook_normalized") == "ln_final.hook_normalized"


@pytest.mark.parametrize("stack", ["L_blocks", "decoder_blocks", "model.layers"])
def test_the_layer_of_a_site_is_its_number_whatever_the_blocks_are_called(make_store, stack):
    store, _ = make_store(sites={f"{stack}.{i}.mlp.hook_out": 4 for i in (1, 11)})
    assert store.site(1) == store.site(1, "mlp.hook_out") == f"{stack}.1.mlp.hook_out"


@pytest.mark.parametrize(
    ("layer", "hook", "asked"),
    [
        (5, None, "layer 5"),
        (None, "hook_resid_post", "hook hook_resid_post"),
        (0, "hook_mlp_out", "layer 0 and hook hook_mlp_out"),
        (0, "blocks.1.mlp.hook_post", "layer 0 and hook blocks.1.mlp.hook_post"),
    ],
)
def test_a_site_that_is_not_there_is_refused_with_what_there_is(make_store, layer, hook, asked):
    store, _ = make_store()
    with pytest.raises(BadInput) as error:
        store.site(layer, hook)
    assert str(error.value).startswith(f"{asked} is not in the store")
    assert all(name in str(error.value) for name in SITES)


@pytest.mark.parametrize(
    ("layer", "hook", "fitting"),
    [
        (None, None, list(SITES)),
        (1, None, ["blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"]),
        (None, "mlp.hook_post", ["blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"]),
    ],
)
def test_several_sites_that_fit_are_all_named(make_store, layer, hook, fitting):
    store, _ = make_store()
    with pytest.raises(BadInput, match=f"{len(fitting)} sites") as error:
        store.site(layer, hook)
    assert ", ".join(fitting) in str(error.value)


def test_where_there_is_no_store_none_is_opened(tmp_path):
    with pytest.raises(BadInput, match="no store at"):
        Store(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no store at"):
        rkstore.open(tmp_path)


def test_a_store_opens_by_the_name_of_its_directory(make_store):
    store, _ = make_store()
    assert rkstore.open(str(store.root)).manifest == store.manifest


def test_the_store_asked_for_is_the_one_that_is_found(tmp_path):
    assert find_store(tmp_path / "mine", tmp_path) == tmp_path / "mine"


def test_the_only_store_need_not_be_named(make_store, tmp_path):
    store, _ = make_store("only")
    (tmp_path / "not-a-store").mkdir()
    (tmp_path / "README.md").write_text("stores live here")
    assert find_store(None, tmp_path) == store.root


def test_no_store_is_found_where_there_is_none(tmp_path):
    for under in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInput, match=r"no store under.*rkstore harvest"):
            find_store(None, under)


def test_several_stores_are_all_named(make_store, tmp_path):
    make_store("a")
    make_store("b")
    with pytest.raises(BadInput, match=r"2 stores.*store") as error:
        find_store(None, tmp_path)
    assert all(str(tmp_path / name) in str(error.value) for name in ("a", "b"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_verify_finds_nothing_wrong_with_a_good_store(make_store, format, codec):
    store, _ = make_store(codec=codec, format=format)
    assert problems(store) == {}


def test_verify_tells_how_many_bytes_it_has_checked(make_store):
    store, _ = make_store()
    told = []
    assert list(verify(store, told.append)) == []
    sizes = {path: len(content) for path, content in tree(store.root).items()}
    not_summed = ("zarr.json", "manifest.json", "shards.jsonl")
    assert sum(told) == sum(n for path, n in sizes.items() if not path.endswith(not_summed))


@pytest.mark.parametrize("format", FORMATS)
def test_verify_finds_a_changed_a_cut_a_lost_and_an_added_file(make_store, format):
    store, _ = make_store(codec="int8", format=format)
    changed, cut, lost = (shard_path(store, HOOK, shard) for shard in (0, 1, 3))
    flip(store.root / changed, 30)
    whole = (store.root / cut).read_bytes()
    (store.root / cut).write_bytes(whole[:-5])
    (store.root / lost).unlink()
    (store.root / HOOK / "notes.txt").write_text("mine")
    assert problems(store) == {
        changed: "was changed",
        cut: f"has {len(whole) - 5:,} bytes where {len(whole):,} were written",
        lost: "is missing",
        f"{HOOK}/notes.txt": "is not recorded",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_verify_finds_damage_in_every_file_of_a_store(make_store, format):
    store, _ = make_store(codec="int8", format=format, sites={HOOK: 3}, rows=100)
    for path, content in tree(store.root).items():
        if path in ("manifest.json", "shards.jsonl"):
            continue  # without these there is no store to verify: it does not even open
        file = store.root / path
        flip(file, len(content) // 2)
        assert problems(store) == {path: "was changed"}
        file.unlink()
        assert problems(store) == {path: "is missing"}
        file.write_bytes(content)
    assert problems(store) == {}


@pytest.fixture
def unreadable(make_store, monkeypatch) -> tuple[Store, str]:
    """A store, and its file that a failing disk does not give."""
    store, _ = make_store(codec="int8")
    path = shard_path(store, HOOK, 1)
    real = files.sha256

    def failing(file: Path) -> str:
        # The one that is there; what is fetched in its place is another file.
        if file == store.root / path and file.stat().st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file)

    bad = (store.root / path).stat().st_ino
    for module in (files, sys.modules["rkstore.store.verify"]):
        monkeypatch.setattr(module, "sha256", failing)
    return store, path


def test_verify_goes_on_behind_a_file_that_cannot_be_read(unreadable):
    store, path = unreadable
    lost = shard_path(store, HOOK, 3)
    (store.root / lost).unlink()
    assert problems(store) == {
        path: "cannot be read: Input/output error",
        lost: "is missing",
    }


def test_a_file_that_cannot_be_read_is_repaired(unreadable, tmp_path):
    store, _ = unreadable
    shutil.copytree(store.root, tmp_path / "copy")
    assert repair(store, list(verify(store)), tmp_path / "copy") == []
    assert problems(store) == {}


def test_verify_finds_nothing_wrong_with_a_store_that_is_being_written(make_store, monkeypatch):
    store, values = make_store(shards=1)
    found = []

    def verified(*_: object) -> None:
        found.append(problems(store))

    real = os.fsync
    with StoreWriter(store.root, store.manifest) as writer:
        # At each moment at which a file, or a name in a directory, is made to last.
        monkeypatch.setattr(os, "fsync", lambda descriptor: (verified(), real(descriptor)))
        for shard in (1, 2):
            writer.write_shard(*shard_of(store.manifest, values, shard))
        flip(store.root / shard_path(store, HOOK, 0), 30)
        verified()
    assert len(found) > 20
    assert found.pop() == {shard_path(store, HOOK, 0): "was changed"}
    assert not any(found)


def test_verify_says_who_writes_the_store_meanwhile(make_store, rkstore):
    store, _ = make_store(shards=1)
    with StoreWriter(store.root, store.manifest):
        status, _, err = rkstore("verify", store.root)
    assert status == 0
    assert f"is being written by process {os.getpid()}: its 1 recorded shards are checked" in err
    assert "being written" not in rkstore("verify", store.root)[2]


def test_verify_finds_what_an_interrupted_write_left(make_store):
    store, _ = make_store()
    (store.root / ".writing").mkdir()
    (store.root / ".writing" / "half").write_bytes(b"12")
    assert problems(store) == {".writing/half": "was left by an interrupted write"}


def test_damaged_statistics_are_noticed(make_store):
    store, _ = make_store()
    path = store.root / HOOK / "statistics" / "00003.safetensors"
    flip(path, -1)
    with pytest.raises(DamagedStore, match="statistics/00003"):
        store.statistics(HOOK)
    path.unlink()
    with pytest.raises(DamagedStore, match="statistics/00003"):
        store.statistics(HOOK)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("open_shards", [1, 3, 256])
def test_many_threads_read_what_one_thread_reads(make_store, monkeypatch, format, open_shards):
    monkeypatch.setattr(descriptors, "OPEN_SHARDS", open_shards)
    store, values = make_store(codec="int8", format=format)
    expected = {name: stored(store.manifest, values[name]) for name in SITES}
    rng = np.random.default_rng(0)
    ranges = np.sort(rng.integers(0, 217, (60, 2)), axis=1)
    names = rng.choice(list(SITES), 60)

    def right(name, a, b):
        rows = np.array_equal(store.read(name, a, b), expected[name][a:b])
        return rows and np.array_equal(store.column("document", a, b), values["document"][a:b])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, names, *ranges.T.tolist()))


def test_more_shards_than_may_be_open_at_once_can_be_read(make_store, monkeypatch):
    monkeypatch.setattr(descriptors, "OPEN_SHARDS", 2)
    store, values = make_store()
    for _ in range(2):
        np.testing.assert_array_equal(store.read(HOOK), values[HOOK])
    assert len(store._shards) == 2


def test_one_layer_copied_alone_is_still_readable_where_it_is(make_store):
    store, values = make_store()
    other = [name for name in SITES if name != HOOK]
    for name in other:
        for path in sorted((store.root / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    alone = Store(store.root)
    np.testing.assert_array_equal(alone.read(HOOK), values[HOOK])
    np.testing.assert_array_equal(alone.column("token_id"), values["token_id"])
    with pytest.raises(DamagedStore, match=other[0]):
        alone.read(other[0])


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_is_read_without_torch_and_without_a_language_model(make_store, format):
    store, _ = make_store(codec="int8", format=format)
    code = f"""
import sys
for name in ("torch", "transformers", "transformer_lens", "datasets", "tokenizers"):
    sys.modules[name] = None
import rkstore
store = rkstore.open({str(store.root)!r})
for name in store.manifest.hook_names:
    assert store.read(name).shape[0] == store.rows == 216
    store.statistics(name), store.codec_fvu(name), store.column("token_id")
from rkstore.store.verify import verify
assert not list(verify(store))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# A store from a stranger: its journal agrees with its manifest, and is still only data.


def forge(root: Path, **change: object) -> Path:
    """Rewrite the last line of the journal with its chain in order, but other contents."""
    store = Store(root)
    kept, last = store.records[:-1], store.records[-1]
    contents = {
        "files": last.files,
        "squared_error": last.squared_error,
        "massive_error": last.massive_error,
    } | change
    previous = kept[-1].chain if kept else store.manifest.fingerprint
    record = ShardRecord.following(previous, last.shard, **contents)  # type: ignore[arg-type]
    (root / "shards.jsonl").write_bytes(b"".join(r.to_line() for r in (*kept, record)))
    return root


def opens_and_verifies(root: Path) -> bool:
    """Whether nothing at all is found to be wrong with a store."""
    try:
        return not list(verify(Store(root)))
    except DamagedStore:
        return False


@pytest.mark.parametrize("where", ["../outside", "{}", "blocks.1.mlp.hook_post/../../outside"])
def test_a_path_in_a_journal_never_leads_out_of_the_store(make_store, tmp_path, where):
    store, _ = make_store()
    outside = tmp_path / "outside"
    outside.write_bytes(b"a file of its own")
    path = where.format(outside)  # "{}": an absolute path
    record = FileRecord(outside.stat().st_size, sha256(outside))
    forge(store.root, files=store.records[-1].files | {path: record})
    assert not opens_and_verifies(store.root)


@pytest.mark.parametrize("lost", ["squared_error", "files"])
def test_a_shard_recorded_without_all_its_parts_is_a_damaged_store(make_store, lost):
    store, _ = make_store()
    forge(store.root, **{lost: {}})

    def use() -> None:
        damaged = Store(store.root)
        damaged.read(HOOK)
        damaged.statistics(HOOK)
        damaged.codec_fvu(HOOK)

    with pytest.raises(DamagedStore):
        use()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil\x94.",
        b"\xff" * 64,
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
    ],
    ids=["empty", "pickle", "noise", "no-arrays"],
)
def test_statistics_that_are_none_are_a_damaged_store(make_store, content):
    store, _ = make_store()
    path = store.root / HOOK / "statistics" / "00003.safetensors"
    path.write_bytes(content)
    recorded = {path.relative_to(store.root).as_posix(): FileRecord(len(content), sha256(path))}
    forge(store.root, files=store.records[-1].files | recorded)
    with pytest.raises(DamagedStore):
        Store(store.root).statistics(HOOK)


def test_the_writer_and_the_reader_agree_on_what_is_complete(make_store):
    store, values = make_store(rows=128)
    assert store.complete
    assert store.rows == 128
    with StoreWriter(store.root, make_manifest(rows=128)) as writer:
        assert writer.next_shard == store.manifest.shards
    whole = Statistics.of(values[HOOK])
    np.testing.assert_allclose(store.statistics(HOOK).m2, whole.m2, 1e-12)
