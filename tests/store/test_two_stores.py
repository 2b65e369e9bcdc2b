"""Two stores of the same tokens are read as one."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from conftest import SITES, make_manifest, make_values

import rkstore
from rkstore.errors import BadInput, DamagedStore
from rkstore.store.batches.assemble import read_batches, read_rows
from rkstore.store.batches.kept import left_out
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.manifest import COLUMNS, MORE_COLUMNS_SCHEMA, PARTNER_ROW
from rkstore.store.paired import PairedStore
from rkstore.store.sites import Pair
from rkstore.store.statistics import Statistics
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

SITE = "blocks.1.hook_mlp_out"
BOTH = [f"base:{SITE}", f"chat:{SITE}"]
OTHER_SITES = {"blocks.0.mlp.hook_post": 7, SITE: 9}


@pytest.fixture
def pair(make_store):
    """Call it for two stores of the same tokens, paired, and the values of each."""

    def make(first=None, **second):
        base, values = make_store("base", **({"codec": "float32"} | (first or {})))
        same = {name: values[name] for name in COLUMNS}
        usual = {"seed": 1, "sites": OTHER_SITES, "codec": "int8", "values": same}
        chat, others = make_store("chat", **(usual | second))
        return PairedStore(base, chat), values, others

    return make


@pytest.fixture
def aligned(make_store, tmp_path):
    """Call it for a store aligned to every third row of another, paired with it."""

    def make(partner_rows=None, shard_rows=32, format="zarr", **options):
        base, values = make_store("base", **options)
        rows = np.arange(5, base.rows, 3) if partner_rows is None else partner_rows
        manifest = replace(
            make_manifest(
                sites=OTHER_SITES,
                rows=len(rows),
                shard_rows=shard_rows,
                context_size=1,
                format=format,
            ),
            source={"paired_with": {"fingerprint": base.manifest.fingerprint, "name": "x"}},
            more_columns=(PARTNER_ROW,),
            schema=MORE_COLUMNS_SCHEMA,
        )
        others = make_values(manifest, 1) | {PARTNER_ROW: rows}
        with StoreWriter(tmp_path / "aligned", manifest) as writer:
            for shard in range(manifest.shards):
                here = slice(*manifest.rows_of_shard(shard))
                writer.write_shard(
                    {name: others[name][here] for name in manifest.hook_names},
                    {name: others[name][here] for name in manifest.columns},
                )
        return PairedStore(base, Store(tmp_path / "aligned")), values, others, rows

    return make


def test_sites_are_named_after_their_store(pair):
    paired, *_ = pair()
    names = [*(f"base:{name}" for name in SITES), *(f"chat:{name}" for name in OTHER_SITES)]
    assert paired.hook_names == names
    assert paired.site(hook=BOTH[1]) == BOTH[1]
    assert paired.site(0, "chat:*") == "chat:blocks.0.mlp.hook_post"
    assert paired.sites("1", "hook_mlp_out") == BOTH


def test_other_names_can_be_given(make_store):
    make_store("one")
    store, _ = make_store("two")
    paired = rkstore.open_paired(store.root.parent / "one", store.root, names=("old", "new"))
    assert paired.site(hook=f"new:{SITE}") == f"new:{SITE}"


@pytest.mark.parametrize("chunk_rows", [16, 32])
@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_every_chunk_is_that_of_its_own_store(pair, chunk_rows, codec):
    paired, *_ = pair({"codec": codec}, chunk_rows=chunk_rows)
    for chunk in paired.chunk_range:
        first, stop = paired.rows_of_chunk(chunk)
        for name, store in zip(BOTH, (paired.first, paired.second), strict=True):
            here = store.read(SITE, first, stop)
            np.testing.assert_array_equal(paired.chunk(name, chunk), here)
            np.testing.assert_array_equal(paired.read(name, first, stop), here)


@pytest.mark.parametrize("chunk_rows", [16, 32])
def test_a_batch_holds_the_rows_it_names_of_both_stores(pair, chunk_rows):
    paired, *_ = pair(chunk_rows=chunk_rows)
    train, _ = split_chunks(paired)
    plan = plan_batches(paired, train, batch_size=20)
    for batch in itertools.islice(read_batches(paired, BOTH, plan), 12):
        for name, store in zip(BOTH, (paired.first, paired.second), strict=True):
            np.testing.assert_array_equal(batch.x[name], store.read(SITE)[batch.rows])


def test_an_epoch_visits_every_row_once_and_none_that_is_held_out(pair):
    paired, *_ = pair()
    train, held_out = split_chunks(paired)
    plan = plan_batches(paired, train, batch_size=20)
    batches = itertools.islice(read_batches(paired, BOTH, plan), plan.batches_per_epoch)
    seen = sorted(np.concatenate([batch.rows for batch in batches]).tolist())
    kept = [row for chunk in train for row in range(*paired.rows_of_chunk(chunk))]
    assert seen == kept
    rest = [batch.rows for batch in read_rows(paired, BOTH, held_out, 10)]
    assert sorted([*seen, *np.concatenate(rest)]) == list(range(paired.rows))


def test_a_run_that_is_resumed_at_a_batch_gets_the_same_ones(pair):
    paired, *_ = pair()
    plan = plan_batches(paired, split_chunks(paired)[0], batch_size=20)
    whole = list(itertools.islice(read_batches(paired, BOTH, plan), 8))
    resumed = list(itertools.islice(read_batches(paired, BOTH, plan, start=5), 3))
    for one, other in zip(whole[5:], resumed, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        for name in BOTH:
            np.testing.assert_array_equal(one.x[name], other.x[name])


def test_columns_are_the_first_stores_and_statistics_each_ones_own(pair):
    paired, values, _ = pair()
    np.testing.assert_array_equal(paired.column("token_id", 3, 50), values["token_id"][3:50])
    for name, store in zip(BOTH, (paired.first, paired.second), strict=True):
        np.testing.assert_array_equal(paired.statistics(name).m2, store.statistics(SITE).m2)
        assert paired.codec_fvu(name) == store.codec_fvu(SITE)


def test_the_special_tokens_of_the_first_store_are_left_out(make_store):
    source = {"tokenizer": {"special_token_ids": [7]}}
    tokens = np.arange(216) % 9
    for name in ("base", "chat"):
        store, _ = make_store(name, source=source, values={"token_id": tokens})
    paired = rkstore.open_paired(store.root.parent / "base", store.root)
    out = left_out(paired, BOTH[1], list(paired.chunk_range))
    np.testing.assert_array_equal(out.rows, np.flatnonzero(tokens == 7))


def test_the_identity_depends_on_both_stores_their_order_and_their_names(make_store):
    stores = [make_store(str(n), source={"run": n})[0] for n in range(3)]
    one, two, three = stores
    pairs = [PairedStore(one, two), PairedStore(two, one), PairedStore(one, three)]
    pairs += [PairedStore(three, two), PairedStore(one, two, ("base", "it"))]
    assert len({paired.manifest.fingerprint for paired in pairs}) == len(pairs)
    assert PairedStore(one, two).manifest.fingerprint == pairs[0].manifest.fingerprint


def test_a_pair_can_be_pickled(pair):
    paired, *_ = pair()
    again = pickle.loads(pickle.dumps(paired))
    np.testing.assert_array_equal(again.chunk(BOTH[1], 2), paired.chunk(BOTH[1], 2))
    assert again.manifest == paired.manifest


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "a"), "both stores of the pair are named a"),
        (("a.1", "b"), "'a.1' cannot name a store"),
        (("a", ""), "'' cannot name a store"),
        (("a",), "needs two names"),
        ("ab", "needs two names"),
    ],
)
def test_names_that_do_not_tell_the_stores_apart_are_refused(make_store, names, said):
    store, _ = make_store()
    with pytest.raises(BadInput, match=said):
        PairedStore(store, store, names)


def test_stores_of_different_length_are_refused(make_store):
    one, _ = make_store("one")
    two, _ = make_store("two", rows=208)
    with pytest.raises(BadInput, match=r"rows are 216 and 208: .*--paired-with"):
        PairedStore(one, two)


def test_stores_with_other_blocks_are_refused(make_store):
    one, _ = make_store("one")
    two, _ = make_store("two", context_size=4)
    with pytest.raises(BadInput, match="tokens in a block are 8 and 4"):
        PairedStore(one, two)


def test_stores_of_other_tokens_are_refused_at_the_row_where_they_part(make_store):
    one, values = make_store("one")
    tokens = values["token_id"].copy()
    tokens[150] += 1
    two, _ = make_store("two", values={"token_id": tokens})
    with pytest.raises(BadInput, match="not of the same tokens, from row 150 on"):
        PairedStore(one, two)


def test_the_digests_of_two_harvests_decide_without_reading(make_store, monkeypatch):
    stores = [
        make_store(str(n), source={"tokens": {"sha256": digest}})[0]
        for n, digest in enumerate(["a", "a", "b"])
    ]
    monkeypatch.setattr(Store, "column", lambda *_: pytest.fail("a column was read"))
    PairedStore(*stores[:2])
    with pytest.raises(BadInput, match="not of the same tokens"):
        PairedStore(*stores[1:])


def test_an_import_is_compared_by_its_rows_whatever_it_inherits(make_store):
    source = {"tokens": {"sha256": "a"}}
    one, values = make_store("one", source=source)
    tokens = np.roll(values["token_id"], 1)
    imported = source | {"imported_from": "npy"}
    two, _ = make_store("two", source=imported, values={"token_id": tokens})
    with pytest.raises(BadInput, match="not of the same tokens"):
        PairedStore(one, two)


def test_unknown_tokens_are_not_the_same_tokens(make_store):
    unknown = {"token_id": np.full(216, -1, np.int32)}
    one, _ = make_store("one", values=unknown)
    two, _ = make_store("two", values=unknown)
    with pytest.raises(BadInput, match=r"tokens of .* are not known"):
        PairedStore(one, two)


def test_a_site_without_its_store_is_refused_with_the_alternatives(pair):
    paired, *_ = pair()
    with pytest.raises(BadInput, match=f"'{SITE}' is not in .*base:blocks"):
        paired.check_site(SITE)
    with pytest.raises(BadInput, match=r"leaves 2 sites .*base:.*chat:"):
        paired.site(1, "hook_mlp_out")


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_an_aligned_store_meets_the_rows_it_was_aligned_to(aligned, format):
    paired, values, others, rows = aligned(format=format)
    assert paired.rows == len(rows) < paired.first.rows
    np.testing.assert_array_equal(paired.read(BOTH[0]), values[SITE][rows])
    np.testing.assert_array_equal(paired.read(BOTH[1]), others[SITE])
    for name in COLUMNS:
        np.testing.assert_array_equal(paired.column(name, 10, 50), values[name][rows[10:50]])
    np.testing.assert_array_equal(paired.column(PARTNER_ROW), rows)


def test_batches_of_an_aligned_pair_hold_the_rows_they_name(aligned):
    paired, values, others, rows = aligned(codec="float32")
    plan = plan_batches(paired, list(paired.chunk_range), batch_size=20)
    batches = list(itertools.islice(read_batches(paired, BOTH, plan), plan.batches_per_epoch))
    for batch in batches:
        np.testing.assert_array_equal(batch.x[BOTH[0]], values[SITE][rows[batch.rows]])
        np.testing.assert_array_equal(batch.x[BOTH[1]], others[SITE][batch.rows])
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(paired.rows))


def test_massive_rows_without_a_partner_do_not_count_in_an_aligned_pair(aligned):
    values = make_values(make_manifest())
    values[SITE][::8] = 10_000
    rows = np.delete(np.arange(216), np.arange(0, 216, 8))
    paired, *_ = aligned(rows, values={SITE: values[SITE]})
    ordinary = Statistics.of(values[SITE][rows])
    found = paired.statistics(BOTH[0])
    assert found.mean_square_norm == pytest.approx(ordinary.mean_square_norm)


def test_an_aligned_store_is_paired_with_its_own_partner_and_after_it(aligned, make_store):
    paired, *_ = aligned()
    other, _ = make_store("other", source={"model": {"name": "another"}})
    with pytest.raises(BadInput, match=r"is aligned to x .*give that one first"):
        PairedStore(other, paired.second)
    with pytest.raises(BadInput, match="give that one first, and this one second"):
        PairedStore(paired.second, paired.first)


@pytest.mark.parametrize("rows", [[3, 2, 5], [3, 3, 4], [-1, 0, 1], [0, 1, 216]])
def test_partner_rows_that_do_not_rise_within_the_first_store_are_refused(aligned, rows):
    paired, *_ = aligned(np.array(rows), shard_rows=16)
    with pytest.raises(DamagedStore, match=r"partner_row of .* does not rise within rows 0:216"):
        paired.read(BOTH[0])


def test_only_a_store_with_more_columns_states_a_newer_schema(aligned):
    paired, *_ = aligned()
    assert b'"rkstore_schema": 2' in paired.first.manifest.to_bytes()
    assert b"more_columns" not in paired.first.manifest.to_bytes()
    assert b'"rkstore_schema": 3' in paired.second.manifest.to_bytes()
    with pytest.raises(BadInput, match="unknown column 'partner_row'"):
        paired.first.column(PARTNER_ROW)


@pytest.mark.parametrize(
    "wrong",
    [{"schema": 2}, {"more_columns": ()}, {"more_columns": (PARTNER_ROW,) * 2}],
)
def test_more_columns_and_the_schema_go_together(aligned, tmp_path, wrong):
    paired, *_ = aligned()
    with pytest.raises(BadInput, match="such a store is not possible"):
        StoreWriter(tmp_path / "wrong", replace(paired.second.manifest, **wrong))


def test_a_pair_is_trained_on_and_evaluated_from_the_command_line(rkstore, pair):
    paired, *_ = pair()
    both = ["--store", paired.first.root, "--paired-with", paired.second.root]
    options = ["--layer", 1, "--d-sae", 16, "--k", 2, "--steps", 4, "--batch-size", 32]
    status, out, err = rkstore("train", *both, "--hook", "chat:*hook_mlp_out", *options)
    assert status == 0, err
    assert "checkpoints/sae/random+random/chat:blocks.1.hook_mlp_out-topk" in out
    status, out, err = rkstore("evaluate", *both)
    assert status == 0, err
    assert "chat:blocks.1.hook_mlp_out" in out
    status, _, err = rkstore("evaluate", "--store", paired.first.root)
    assert status == 2
    assert "no dictionary under checkpoints/ was trained on" in err


def test_a_run_on_a_pair_is_another_run_once_a_store_is_another(rkstore, pair, make_store):
    paired, values, _ = pair()
    same = {name: values[name] for name in COLUMNS}
    source = {"model": {"name": "random"}, "run": 2}
    other, _ = make_store("other", seed=2, sites=OTHER_SITES, values=same, source=source)
    words = ["--store", paired.first.root, "--hook", BOTH[0], "--name", "one", "--d-sae", 16]
    words += ["--k", 2, "--steps", 2, "--batch-size", 32]
    assert rkstore("train", *words, "--paired-with", paired.second.root)[0] == 0
    status, _, err = rkstore("train", *words, "--paired-with", other.root)
    assert status == 2
    assert "another run with this name (store_fingerprint was" in err


def test_the_pairs_of_both_stores_have_the_names_of_their_sites(make_store):
    stores = [make_store(name)[0] for name in ("one", "two")]
    stores[1].pairs = (Pair("mlp", 1, "blocks.1.mlp.hook_post", SITE),)
    assert PairedStore(*stores).pairs == (
        Pair("mlp", 1, "chat:blocks.1.mlp.hook_post", f"chat:{SITE}"),
    )
