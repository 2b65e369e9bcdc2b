"""Which rows are read: special tokens are left out, and every other row comes exactly once."""

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import evaluate
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.rkcnn import StoreSite
from rkstore.rkcnn.mine import probe
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.store.batches.assemble import read_batches, read_rows
from rkstore.store.batches.kept import left_out, special_ids
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.0.mlp.hook_post"
BOS, PAD = 7, 9
SOURCE = {"tokenizer": {"bos_token_id": BOS, "special_token_ids": [BOS, PAD]}}


def tokens(rows=216):
    ids = np.random.default_rng(1).integers(10, 300, rows).astype(np.int32)
    ids[::8], ids[[13, 101]] = BOS, PAD
    return ids


@pytest.fixture
def store(make_store):
    """Blocks of 8 rows that begin with a BOS row a hundred times as long as others."""
    x = np.random.default_rng(0).standard_normal((216, 12)).astype(np.float32)
    x[::8] = 100 * x[0]
    return make_store(source=SOURCE, values={"token_id": tokens(), SITE: x}, codec="float32")[0]


def kept_rows():
    return np.flatnonzero(~np.isin(tokens(), [BOS, PAD]))


def every(store):
    return list(store.chunk_range)


def test_special_tokens_are_those_of_the_tokenizer_and_before_schema_2_bos_alone(make_store):
    assert special_ids(make_store(source=SOURCE)[0]) == (BOS, PAD)
    old = {"tokenizer": {"bos_token_id": BOS}}
    assert special_ids(make_store("old", source=old)[0]) == (BOS,)
    assert special_ids(make_store("import", source={})[0]) == ()


def test_the_model_says_which_tokens_are_special(model):
    assert model.special_tokens == sorted(model.tokenizer.all_special_ids) == [model.bos]
    assert model.describe()["tokenizer"]["special_token_ids"] == [model.bos]


@pytest.mark.parametrize("batch_size", [1, 7, 20, 500])
def test_an_epoch_visits_every_kept_row_exactly_once(store, batch_size):
    out = left_out(store, SITE, every(store))
    plan = plan_batches(store, every(store), batch_size, seed=3, left_out=out)
    seen = np.concatenate(list(plan.batches(epoch=0)))
    np.testing.assert_array_equal(np.sort(seen), kept_rows())
    assert plan.rows == len(seen)
    assert plan.batches_per_epoch == -(-len(seen) // batch_size)


def test_batches_hold_the_values_of_their_rows(store):
    out = left_out(store, SITE, every(store))
    plan = plan_batches(store, every(store), 20, left_out=out)
    x = store.read(SITE)
    for batch, _ in zip(read_batches(store, [SITE], plan), range(20), strict=False):
        np.testing.assert_array_equal(batch.x[SITE], x[batch.rows])
        assert not np.isin(tokens()[batch.rows], [BOS, PAD]).any()


def test_rows_in_order_pass_over_what_is_left_out(store):
    out = left_out(store, SITE, every(store))
    batches = list(read_rows(store, [SITE], every(store), 50, out))
    np.testing.assert_array_equal(np.concatenate([b.rows for b in batches]), kept_rows())
    x = np.concatenate([b.x[SITE] for b in batches])
    np.testing.assert_array_equal(x, store.read(SITE)[kept_rows()])


def test_with_special_tokens_nothing_is_left_out(store):
    assert not len(left_out(store, SITE, every(store), special_tokens=True).rows)


def test_a_norm_above_so_many_medians_is_left_out_too(store):
    np.testing.assert_array_equal(
        left_out(store, SITE, every(store), special_tokens=True, max_norm=10.0).rows,
        np.arange(0, 216, 8),
    )


def test_a_site_of_which_nothing_would_be_left_is_refused(make_store):
    ids = np.full(216, BOS, np.int32)
    store, _ = make_store(source=SOURCE, values={"token_id": ids})
    with pytest.raises(BadInput, match=r"every row of .* is of a special token"):
        left_out(store, SITE, every(store))


def test_a_probes_rows_and_columns_are_those_kept(store):
    out = left_out(store, SITE, every(store))
    site = StoreSite(store, SITE, left_out=out)
    kept = kept_rows()
    assert site.rows == len(kept)
    np.testing.assert_array_equal(np.concatenate(list(site.parts())), store.read(SITE)[kept])
    wanted = np.array([0, 5, 50, len(kept) - 1])
    np.testing.assert_array_equal(site.column("token_id", wanted), tokens()[kept][wanted])
    assert site.describe()["left_out"] == 216 - len(kept)


def test_probe_leaves_special_tokens_out_unless_asked(store, tmp_path):
    def rows(**given):
        settings = ProbeSettings(
            store=str(store.root), layer=0, m=3, h=20, r=5, out=str(tmp_path / "probe"), **given
        )
        return probe(settings)[0].source["rows"]

    chunks, _ = split_chunks(store)
    total = sum(len(range(*store.rows_of_chunk(chunk))) for chunk in chunks)
    assert rows(special_tokens=True) == total
    assert rows() == total - len(left_out(store, SITE, chunks).rows)


def settings_of(store, tmp_path, **given):
    sizes = {"layer": 0, "d_sae": 24, "k": 4, "steps": 40, "batch_size": 32, "warmup": 5}
    return TrainSettings(store=str(store.root), out=str(tmp_path / "made"), **(sizes | given))


def test_training_begins_with_what_the_kept_rows_are_like(store, tmp_path):
    """Its scale and centre are not those of the massive rows."""
    run = prepare(settings_of(store, tmp_path))
    x = store.read(SITE)[kept_rows()].astype(np.float64)
    assert run.reading.scales[SITE] == pytest.approx(
        (12 / np.square(x).sum(1).mean()) ** 0.5, rel=0.05
    )
    everything = prepare(settings_of(store, tmp_path, special_tokens=True))
    assert everything.reading.scales[SITE] < run.reading.scales[SITE] / 10


def test_what_is_left_out_makes_another_run(store, tmp_path):
    runs = [
        prepare(settings_of(store, tmp_path, **given))
        for given in ({}, {"special_tokens": True}, {"max_norm": 10.0})
    ]
    assert len({run.name for run in runs}) == 3


def test_evaluate_measures_the_kept_rows_and_reports_the_others(store, tmp_path):
    path = train(settings_of(store, tmp_path))
    found = {
        special: evaluate([path], EvaluateSettings(store=str(store.root), special_tokens=special))[
            0
        ]
        for special in (False, True)
    }
    _, held_out = split_chunks(store)
    out = left_out(store, SITE, held_out)
    assert found[False].left_out == len(out.rows) > 0
    assert found[True].left_out == 0
    assert found[False].rows + len(out.rows) == found[True].rows
    # The massive rows are nearly all of the error, and hide what happens to the others.
    assert found[True].mse > 10 * found[False].mse
