"""Every row exactly once an epoch, in an order that seed and position alone decide."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from rkstore.errors import BadInput, DamagedStore
from rkstore.store.batches.assemble import read_batches, read_rows
from rkstore.store.batches.plan import BatchPlan, plan_batches, split_chunks
from rkstore.store.codecs import CODECS

SITES = ["blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out"]


def make_plan(seed=0, batch_size=10, window_rows=32):
    ranges = ((0, 16), (32, 48), (48, 64), (64, 71))
    return BatchPlan(ranges, batch_size, seed, window_rows)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 55, 1000])
def test_an_epoch_visits_every_row_exactly_once(batch_size):
    plan = make_plan(batch_size=batch_size)
    rows = np.concatenate(list(plan.batches(0)))
    assert sorted(rows) == [*range(16), *range(32, 71)]


def test_every_batch_but_the_last_is_full():
    sizes = [len(rows) for rows in make_plan().batches(0)]
    assert sizes == [10, 10, 10, 10, 10, 5]
    assert make_plan().batches_per_epoch == 6


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(np.concatenate(list(make_plan(seed).batches(epoch))))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(np.concatenate(list(make_plan(0).batches(0))))


def test_every_row_is_equally_likely_in_every_batch_and_beside_every_other():
    """Over the epochs of one seed: χ² of rows by batches, and of the pairs that meet in one."""
    plan, epochs = BatchPlan(((0, 16), (16, 32), (32, 48), (48, 64)), 8, window_rows=64), 800
    places, pairs = np.zeros((64, 8)), np.zeros((64, 64))
    for epoch in range(epochs):
        for batch, rows in enumerate(plan.batches(epoch)):
            places[rows, batch] += 1
            pairs[np.ix_(rows, rows)] += 1
    met = pairs[np.triu_indices(64, 1)]
    # Each row is in one of 8 batches, with 7 of the 63 others.
    for counts, share, free in ((places, 1 / 8, 63 * 7), (met, 1 / 9, 64 * 63 / 2 - 64)):
        chi2 = ((counts - epochs * share) ** 2 / (epochs * share)).sum()
        assert abs(chi2 / free - 1) < 0.25


def test_rows_of_different_chunks_meet_in_a_batch():
    plan = make_plan(batch_size=16, window_rows=64)
    first = next(plan.batches(0))
    chunks = {int(np.searchsorted([16, 48, 64], row, side="right")) for row in first}
    assert len(chunks) >= 3


def test_a_batch_holds_the_rows_it_names_at_every_site(make_store):
    store, values = make_store()
    train, _ = split_chunks(store)
    plan = plan_batches(store, train, batch_size=20)
    for batch in itertools.islice(read_batches(store, SITES, plan), 12):
        for name in SITES:
            np.testing.assert_array_equal(batch.x[name], values[name][batch.rows])


def test_the_reader_follows_the_plan(make_store):
    store, _ = make_store()
    plan = BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), 20, 3, 48)
    planned = [*plan.batches(0), *plan.batches(1)]
    for rows, batch in zip(planned, read_batches(store, SITES[:1], plan), strict=False):
        np.testing.assert_array_equal(batch.rows, rows)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("batch_size", [1, 7, 48, 500])
def test_a_row_of_a_batch_is_what_reading_it_alone_gives(make_store, codec, batch_size):
    store, _ = make_store(codec=codec)
    plan = BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), batch_size, 3, 48)
    for batch in itertools.islice(read_batches(store, SITES, plan), plan.batches_per_epoch + 2):
        for name in SITES:
            alone = [store.read(name, int(row), int(row) + 1)[0] for row in batch.rows]
            np.testing.assert_array_equal(batch.x[name], alone)


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: x[3:5, ::2], torch.from_numpy, memoryview])
def test_a_batch_that_someone_holds_is_never_written_over(make_store, hold):
    store, _ = make_store()
    plan = BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), 20, 3, 48)
    held, copies = [], []
    for batch in itertools.islice(read_batches(store, SITES, plan), 60):
        held.append(hold(batch.x[SITES[0]]))
        copies.append(np.asarray(held[-1]).copy())
        held = held[-7:]
    for kept, copy in zip(held, copies[-7:], strict=True):
        np.testing.assert_array_equal(np.asarray(kept), copy)


def test_parts_of_chunks_can_be_drawn_from(make_store):
    store, values = make_store()
    plan = BatchPlan(((3, 9), (20, 32), (213, 216)), batch_size=5)
    batches = list(itertools.islice(read_batches(store, SITES, plan), plan.batches_per_epoch))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows) == [*range(3, 9), *range(20, 32), *range(213, 216)]
    for batch in batches:
        np.testing.assert_array_equal(batch.x[SITES[0]], values[SITES[0]][batch.rows])


def test_a_plan_of_more_than_chunks_is_refused(make_store):
    store, _ = make_store()
    with pytest.raises(BadInput, match=r"chunks of 16: use plan_batches\(\)"):
        next(read_batches(store, SITES, BatchPlan(((0, 17),), batch_size=5)))


def test_damage_met_by_a_thread_is_told_to_whoever_reads(make_store):
    store, _ = make_store()
    path = store.root / SITES[0] / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    plan = BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), 20)
    with pytest.raises(DamagedStore, match="shard 1"):
        list(itertools.islice(read_batches(store, SITES, plan), plan.batches_per_epoch))


@pytest.mark.parametrize("start", [0, 1, 4, 10, 11, 12, 25])
def test_reading_can_be_taken_up_at_any_batch(make_store, start):
    store, _ = make_store()
    plan = BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), 20, 3, 48)
    through = itertools.islice(read_batches(store, SITES[:1], plan), start, start + 3)
    taken_up = itertools.islice(read_batches(store, SITES[:1], plan, start=start), 3)
    for expected, batch in zip(through, taken_up, strict=True):
        np.testing.assert_array_equal(batch.rows, expected.rows)
        np.testing.assert_array_equal(batch.x[SITES[0]], expected.x[SITES[0]])


def test_training_and_held_out_rows_share_nothing_and_miss_nothing(make_store):
    store, _ = make_store()
    train, held_out = split_chunks(store)
    assert sorted(train + held_out) == list(range(store.chunks))
    assert len(held_out) == store.chunks // 10


def test_a_small_store_holds_out_one_chunk(make_store):
    store, _ = make_store(rows=48)
    assert split_chunks(store) == ([0, 1], [2])


def test_a_store_of_one_chunk_cannot_hold_any_out(make_store):
    store, _ = make_store(rows=16)
    with pytest.raises(BadInput, match="harvest more than 16 tokens"):
        split_chunks(store)


def test_reading_in_order_gives_the_rows_of_the_chunks(make_store):
    store, values = make_store()
    batches = list(read_rows(store, SITES, [1, 3, 13], batch_size=20))
    rows = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(rows, [*range(16, 32), *range(48, 64), *range(208, 216)])
    for name in SITES:
        x = np.concatenate([batch.x[name] for batch in batches])
        np.testing.assert_array_equal(x, values[name][rows])


def test_an_unknown_site_is_refused_before_anything_is_read(make_store):
    store, _ = make_store()
    with pytest.raises(BadInput, match=r"blocks\.9.*blocks\.0\.mlp\.hook_post"):
        next(read_batches(store, ["blocks.9"], make_plan()))


def test_a_program_that_ends_with_batches_left_says_nothing(make_store):
    store, _ = make_store(rows=400)
    program = (
        "import sys, torch, rkstore\n"
        "store = rkstore.open(sys.argv[1])\n"
        "plan = rkstore.plan_batches(store, range(store.chunks), 16, 0)\n"
        "batches = rkstore.read_batches(store, [store.site(layer=0)], plan)\n"
        "first = next(batches)\n"
    )
    words = [sys.executable, "-c", program, str(store.root)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
