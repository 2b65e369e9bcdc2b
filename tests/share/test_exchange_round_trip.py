"""Exchange: a store that goes out and comes in again knows what it knew."""

import json
from dataclasses import fields

import h5py
import numpy as np
import pytest
from conftest import make_manifest, make_values, write_store
from foreign_files import EXPORTED, export

from rkstore.cli.terminal import describe_store
from rkstore.errors import DamagedStore
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.share.exchange.facts import FILE, Facts
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.store.codecs import CODECS
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store

BOTH = [kind for kind in EXPORTERS if kind in IMPORTERS]
SITE = "blocks.0.mlp.hook_post"

SOURCE = {
    "model": {"name": "gpt2", "revision": "main", "dtype": "float32", "weights_sha256": "a" * 64},
    "tokenizer": {"sha256": "b" * 64, "tokens": 300, "bos_token_id": 0},
    "text": {"dataset": "wikitext", "config": None, "split": "train"},
    "tokens": {"prepend_bos": True, "seed": 0, "sha256": "c" * 64},
    "run": {"batch_size": 32, "device": "cpu"},
    "libraries": {"torch": "2.0"},
}


@pytest.fixture
def round_trip(bring, make_store, tmp_path):
    """Call it with a format and options of a store; returns the store, its values, and itself
    back from an export."""

    def run(kind, *, dtype="float32", back=None, **options):
        store, values = make_store(source=SOURCE, **options)
        out = export(store, kind, tmp_path / "out", dtype=dtype)
        return store, values, bring(out / EXPORTED[kind], kind, **(back or {}))

    return run


def actual_fvu(store, name, values):
    """The error of what a store holds of the values it was once made of."""
    x = values[name].astype(np.float64)
    return float(((store.read(name) - x) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum())


def edit(kind, out, change):
    """Change the facts of an export in place; ``change`` takes and may replace the document."""
    if kind != "hdf5":
        path = out / FILE
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return
    with h5py.File(out / EXPORTED[kind], "a") as file:
        document = change(json.loads(file["rkstore"][()]))
        del file["rkstore"]
        file["rkstore"] = np.bytes_(json.dumps(document).encode())


@pytest.mark.parametrize("kind", BOTH)
def test_blocks_and_columns_come_back(round_trip, kind):
    store, _, back = round_trip(kind)
    assert back.manifest.context_size == store.manifest.context_size
    for name in COLUMNS:
        np.testing.assert_array_equal(back.column(name), store.column(name))


@pytest.mark.parametrize("kind", BOTH)
def test_the_directory_of_an_export_is_imported_as_it_is(make_store, bring, tmp_path, kind):
    store, _ = make_store(source=SOURCE)
    assert bring(export(store, kind, tmp_path / "out"), kind).rows == store.rows


@pytest.mark.parametrize("kind", BOTH)
def test_the_next_token_labels_rows_as_before(round_trip, kind):
    from rkstore.rkcnn.source import StoreSite

    store, _, back = round_trip(kind)
    labels = [StoreSite(s, SITE).column("next_token", np.arange(s.rows)) for s in (store, back)]
    np.testing.assert_array_equal(*labels)
    assert (labels[0] >= 0).any()


@pytest.mark.parametrize("kind", BOTH)
def test_where_the_values_came_from_comes_back(round_trip, kind):
    store, _, back = round_trip(kind)
    source = back.manifest.source
    for key in ("model", "tokenizer", "text", "tokens", "run"):
        assert source[key] == SOURCE[key]
    assert source["imported_from"] == kind
    assert source["stored_before"]["fingerprint"] == store.manifest.fingerprint
    assert source["stored_before"]["libraries"] == SOURCE["libraries"]
    told = describe_store(back)
    for said in ("gpt2, float32, weights aaaaaaaaaaaa", "wikitext", f"from    {kind}"):
        assert said in told
    assert f"before  float32 in store {store.manifest.fingerprint}" in told


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("codec", CODECS)
def test_the_error_of_the_codec_comes_back(round_trip, kind, codec):
    store, values, back = round_trip(kind, codec=codec)
    for name in store.hook_names:
        assert back.codec_fvu(name) == store.codec_fvu(name)
        assert back.codec_fvu(name) == pytest.approx(actual_fvu(back, name, values), rel=1e-4)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("codec", ["int8", "int6", "float16"])
def test_the_errors_of_two_codecs_add_up(round_trip, kind, codec):
    # Other chunks than before: in the same, what was rounded would not be rounded again.
    options = {"codec": codec, "shard_rows": 200}
    store, values, back = round_trip(kind, codec="int6", back=options)
    for name in store.hook_names:
        fvu = back.codec_fvu(name)
        assert fvu > store.codec_fvu(name)
        assert fvu == pytest.approx(actual_fvu(back, name, values), rel=0.3)


def test_what_massive_rows_lose_in_float16_is_not_counted_for_the_others(tmp_path):
    manifest = make_manifest(sites={SITE: 6})
    values = make_values(manifest)
    values[SITE][::32] = 1001.3  # a thousand times what float16 rounds away elsewhere
    write_store(tmp_path / "store", manifest, values)
    outgoing = Outgoing(Store(tmp_path / "store"), [SITE], np.dtype(np.float16))
    for span in outgoing.spans:
        outgoing.values(SITE, *span)
    x = np.delete(values[SITE], np.s_[::32], axis=0).astype(np.float64)
    expected = np.square(x.astype(np.float16) - x).sum() / np.square(x - x.mean(axis=0)).sum()
    assert outgoing.facts().codec_fvu[SITE] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_the_error_of_an_export_in_float16_is_counted(round_trip, kind):
    store, values, back = round_trip(kind, dtype="float16")
    for name in store.hook_names:
        assert store.codec_fvu(name) == 0
        assert back.codec_fvu(name) == pytest.approx(actual_fvu(back, name, values), rel=1e-4)


@pytest.mark.parametrize("kind", BOTH)
def test_twice_around_nothing_is_lost(round_trip, bring, tmp_path, kind):
    store, _, once = round_trip(kind, codec="int8")
    out = export(once, kind, tmp_path / "again")
    twice = bring(out / EXPORTED[kind], kind, out="twice")
    assert twice.codec_fvu(SITE) == store.codec_fvu(SITE)
    assert twice.manifest.source["model"] == SOURCE["model"]
    before = twice.manifest.source["stored_before"]
    assert before["fingerprint"] == once.manifest.fingerprint
    assert before["stored_before"]["fingerprint"] == store.manifest.fingerprint


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
def test_a_site_under_another_name_keeps_its_error(bring, make_store, tmp_path, kind):
    store, _ = make_store(codec="int8")
    out = export(store, kind, tmp_path / "out", hook=(SITE,))
    back = bring(out / EXPORTED[kind], kind, hook_name=("mine",))
    assert back.codec_fvu("mine") == store.codec_fvu(SITE)


def test_one_npy_file_of_an_export_knows_what_all_do(bring, make_store, tmp_path):
    store, _ = make_store(codec="int8")
    back = bring(export(store, "npy", tmp_path / "out") / f"{SITE}.npy", "npy")
    assert back.codec_fvu(SITE) == store.codec_fvu(SITE)
    assert back.manifest.context_size == store.manifest.context_size
    np.testing.assert_array_equal(back.column("document"), store.column("document"))


def test_an_npy_file_beside_an_export_is_none_of_it(bring, make_store, tmp_path):
    out = export(make_store(codec="int8")[0], "npy", tmp_path / "out")
    np.save(out / "mine.npy", np.ones((10, 3), np.float32))
    assert "stored_before" not in bring(out / "mine.npy", "npy").manifest.source


@pytest.mark.parametrize("kind", BOTH)
def test_bare_numbers_are_imported_as_such(bring, make_store, tmp_path, kind):
    store, _ = make_store(codec="int8")
    out = export(store, kind, tmp_path / "out", hook=(SITE,))
    if kind == "hdf5":
        with h5py.File(out / EXPORTED[kind], "a") as file:
            del file["rkstore"]
    else:
        (out / FILE).unlink()
    back = bring(out / EXPORTED[kind], kind)
    assert "stored_before" not in back.manifest.source
    assert back.codec_fvu(SITE) == 0


def test_an_hdf5_export_of_before_keeps_its_blocks(bring, make_store, tmp_path):
    store, _ = make_store()
    path = export(store, "hdf5", tmp_path / "out") / "activations.h5"
    with h5py.File(path, "a") as file:
        del file["rkstore"]
    assert bring(path, "hdf5").manifest.context_size == store.manifest.context_size


@pytest.mark.parametrize("kind", BOTH)
def test_part_of_a_store_does_not_claim_the_digest_of_all_tokens(round_trip, kind):
    _, _, back = round_trip(kind, shards=2)
    assert back.manifest.source["tokens"] == {"prepend_bos": True, "seed": 0}


# Files of an export may have been anybody's since.

BAD = {
    "fingerprint": [None, 7],
    "rows": [0, 7, True, 216.0, None],
    "context_size": [0, -8, "8", True, 2**50, 16],
    "codec": [None, 1],
    "codec_fvu": [None, {}, {SITE: -1.0}, {SITE: "0"}, {SITE: float("nan")}, {SITE: 1e400}],
    "source": [None, [], {"model": "gpt2"}, {"text": []}, {"tokens": 1}, {"a": "\ud800"}],
}


def test_every_fact_is_tried():
    assert list(BAD) == [field.name for field in fields(Facts)]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("key", "value"), [(key, value) for key in BAD for value in BAD[key]])
def test_a_fact_that_cannot_be_is_refused(refused, make_store, tmp_path, kind, key, value):
    out = export(make_store()[0], kind, tmp_path / "out", hook=(SITE,))
    edit(kind, out, lambda document: document | {key: value})
    assert str(tmp_path / "out") in refused(out / EXPORTED[kind], kind)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document | {"rkstore_export": 2}, "newer rkstore"),
        (lambda document: document | {"unknown": 1}, "not what an rkstore export writes"),
        (lambda document: [document], "not what an rkstore export writes"),
        (lambda _: {}, "not what an rkstore export writes"),
    ],
)
def test_facts_of_another_kind_are_refused(refused, make_store, tmp_path, kind, change, said):
    out = export(make_store()[0], kind, tmp_path / "out")
    edit(kind, out, change)
    assert said in refused(out / EXPORTED[kind], kind)


def test_an_array_put_into_an_export_is_refused_by_name(refused, make_store, tmp_path):
    out = export(make_store()[0], "npy", tmp_path / "out")
    np.save(out / "mine.npy", np.ones((216, 3), np.float32))
    assert f"{FILE} does not mention mine" in refused(out, "npy")


@pytest.mark.parametrize("kind", BOTH)
def test_another_model_than_the_files_are_of_is_refused(bring, refused, make_store, tmp_path, kind):
    out = export(make_store(source=SOURCE)[0], kind, tmp_path / "out") / EXPORTED[kind]
    assert "exported from a store of gpt2" in refused(out, kind, model_name="pythia")
    assert bring(out, kind, model_name="gpt2").manifest.source["model"] == SOURCE["model"]


@pytest.mark.parametrize("kind", BOTH)
def test_a_model_that_the_files_do_not_name_can_be_given(bring, make_store, tmp_path, kind):
    out = export(make_store(source={})[0], kind, tmp_path / "out") / EXPORTED[kind]
    assert bring(out, kind, model_name="gpt2").manifest.source["model"] == {"name": "gpt2"}


@pytest.mark.parametrize("before", [None, {}, {"codec_fvu": {SITE: -1.0}}, {"codec_fvu": 1}])
def test_a_store_whose_error_before_cannot_be_is_damaged(make_store, before):
    store, _ = make_store()
    text = make_manifest(source={"stored_before": before}).to_bytes()
    (store.root / "manifest.json").write_bytes(text)
    with pytest.raises(DamagedStore, match="not a valid manifest"):
        Store(store.root)


def test_a_memmap_export_is_the_cache_of_dictionary_learning(make_store, tmp_path, monkeypatch):
    import torch

    from rkstore.share.exchange import memmap

    monkeypatch.setattr(memmap, "SHARD_ROWS", 100)
    store, values = make_store()
    root = export(store, "memmap", tmp_path / "out")
    shards = sorted((root / SITE).glob("shard_*.memmap"))
    parts = []
    for shard in shards:
        meta = json.loads(shard.with_suffix(".meta").read_text())
        assert meta["dtype"] == "torch.float32"
        parts.append(np.memmap(shard, np.float32, mode="r", shape=tuple(meta["shape"])))
    assert len(parts) == 2
    np.testing.assert_array_equal(np.concatenate(parts), values[SITE])
    config = json.loads((root / SITE / "config.json").read_text())
    assert (config["shard_count"], config["total_size"], config["d_model"]) == (2, 216, 12)
    tokens = torch.load(root / "tokens.pt", weights_only=True)
    np.testing.assert_array_equal(tokens.numpy(), values["token_id"])


def test_one_submodule_of_a_memmap_export_knows_what_all_do(bring, make_store, tmp_path):
    store, _ = make_store(codec="int8")
    back = bring(export(store, "memmap", tmp_path / "out") / SITE, "memmap")
    assert back.codec_fvu(SITE) == store.codec_fvu(SITE)
    assert back.manifest.context_size == store.manifest.context_size
    np.testing.assert_array_equal(back.column("document"), store.column("document"))
