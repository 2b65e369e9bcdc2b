"""Rows that stay together: every pair and every block once an epoch, whatever is left out."""

import itertools

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.store.batches.assemble import read_batches
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.orders import ORDERS
from rkstore.store.batches.plan import WINDOW_ROWS, plan_batches, split_chunks

SITES = ["blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out"]
CHUNK, ROWS = 16, 400

# Blocks that divide a chunk, that lie across two chunks, and that are longer than one.
BLOCKS = [8, 12, 40]
LEFT_OUT = {
    "all kept": ALL_KEPT,
    "first of each block of 8": LeftOut(np.arange(0, ROWS, 8)),
    "many": LeftOut(np.flatnonzero(np.random.default_rng(3).random(ROWS) < 0.3)),
    "most": LeftOut(np.flatnonzero(np.random.default_rng(3).random(ROWS) < 0.8)),
}
of_blocks = pytest.mark.parametrize("block", BLOCKS)
with_left_out = pytest.mark.parametrize("out", LEFT_OUT.values(), ids=LEFT_OUT)


@pytest.fixture
def make(make_store):
    """Call it for a store with blocks of so many rows; documents have 30."""
    made = {}

    def of(block):
        if block not in made:
            options = {"rows": ROWS, "context_size": block, "chunk_rows": CHUNK}
            made[block], _ = make_store(f"store-{block}", **options)
        return made[block]

    return of


def planned(store, order, size, out=ALL_KEPT, seed=0, window=WINDOW_ROWS):
    plan = plan_batches(store, split_chunks(store)[0], size, seed, out, order=order)
    object.__setattr__(plan, "window_rows", window)
    return plan


def size_of(order, block):
    """Rows in a batch: three pairs, or two blocks."""
    return {"rows": 7, "pairs": 6, "sequences": 2 * block}[order]


def drawn(store):
    """Which rows are in chunks to train on."""
    found = np.zeros(ROWS, bool)
    for chunk in split_chunks(store)[0]:
        found[slice(*store.rows_of_chunk(chunk))] = True
    return found


def pairs_in(store, block, out):
    """The second rows of all pairs, one by one."""
    document, position = store.column("document"), store.column("position")
    read = drawn(store)
    read[out.rows] = False
    return [
        t
        for t in range(1, ROWS)
        if read[t - 1] and read[t] and document[t - 1] == document[t]
        if position[t - 1] + 1 == position[t] and (t - 1) // block == t // block
    ]


def blocks_in(store, block, out):
    """The rows of all whole blocks that are read, one by one."""
    read, gone = drawn(store), set(out.rows.tolist())
    blocks = [range(first, first + block) for first in range(0, ROWS - block + 1, block)]
    found = [[r for r in rows if r not in gone] for rows in blocks if all(read[r] for r in rows)]
    return [rows for rows in found if rows]


@of_blocks
@with_left_out
@pytest.mark.parametrize("window", [32, WINDOW_ROWS])
def test_an_epoch_visits_every_pair_exactly_once(make, block, out, window):
    store = make(block)
    expected = pairs_in(store, block, out)
    plan = planned(store, "pairs", 6, out, window=window)
    for epoch in (0, 1):
        rows = np.concatenate(list(plan.batches(epoch)))
        assert sorted(rows[1::2]) == expected
        np.testing.assert_array_equal(rows[::2], rows[1::2] - 1)
    assert plan.rows == 2 * len(expected)


@of_blocks
@with_left_out
@pytest.mark.parametrize("window", [32, WINDOW_ROWS])
def test_an_epoch_visits_every_whole_block_exactly_once_with_its_rows_in_order(
    make, block, out, window
):
    store = make(block)
    expected = blocks_in(store, block, out)
    if not expected:
        with pytest.raises(BadInput, match="no whole block"):
            planned(store, "sequences", block, out)
        return
    plan = planned(store, "sequences", 2 * block, out, window=window)
    seen = []
    for rows in plan.batches(0):
        ends = np.flatnonzero(np.diff(rows // block)) + 1
        blocks = [part.tolist() for part in np.split(rows, ends)]
        assert len(blocks) <= 2
        seen += blocks
    assert sorted(seen) == expected
    assert plan.rows == sum(len(rows) for rows in expected)


@of_blocks
@with_left_out
@pytest.mark.parametrize("order", ORDERS)
def test_a_plan_counts_its_rows_and_batches(make, block, out, order):
    if order == "sequences" and not blocks_in(make(block), block, out):
        return
    plan = planned(make(block), order, size_of(order, block), out, window=32)
    sizes = [len(rows) for epoch in (0, 1) for rows in plan.batches(epoch)]
    assert plan.batches_per_epoch == len(sizes) / 2
    assert [plan.rows_before(n) for n in range(len(sizes) + 1)] == [0, *np.cumsum(sizes)]
    if order != "sequences":
        last = {len(sizes) // 2 - 1, len(sizes) - 1}
        assert {size for n, size in enumerate(sizes) if n not in last} == {plan.batch_size}


@of_blocks
@with_left_out
@pytest.mark.parametrize("order", ORDERS)
def test_batches_hold_their_rows_and_can_be_taken_up_anywhere(make, block, out, order):
    store = make(block)
    if order == "sequences" and not blocks_in(store, block, out):
        return
    plan = planned(store, order, size_of(order, block), out, window=32)
    count = plan.batches_per_epoch + 2
    through = list(itertools.islice(read_batches(store, SITES, plan), count))
    of_plan = itertools.chain(plan.batches(0), plan.batches(1))
    x = {name: store.read(name) for name in SITES}
    for batch, rows in zip(through, of_plan, strict=False):
        np.testing.assert_array_equal(batch.rows, rows)
        for name in SITES:
            np.testing.assert_array_equal(batch.x[name], x[name][rows])
    for start in (1, 3, plan.batches_per_epoch):
        [batch] = itertools.islice(read_batches(store, SITES, plan, start=start), 1)
        np.testing.assert_array_equal(batch.rows, through[start].rows)


@pytest.mark.parametrize("order", ORDERS)
def test_epochs_and_seeds_have_orders_of_their_own(make, order):
    def rows(seed, epoch):
        return tuple(np.concatenate(list(planned(make(8), order, 16, seed=seed).batches(epoch))))

    assert len({rows(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert rows(1, 1) == rows(1, 1)


@with_left_out
def test_rows_come_as_they_do_without_an_order(make, out):
    store = make(8)
    plain = plan_batches(store, split_chunks(store)[0], 7, 5, out)
    for a, b in zip(plain.batches(0), planned(store, "rows", 7, out, 5).batches(0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gap_in_a_block_is_no_pair(make_store):
    position = np.arange(ROWS, dtype=np.int32) % 8
    position[position >= 4] += 1
    store, _ = make_store(rows=ROWS, values={"position": position})
    rows = np.concatenate(list(planned(store, "pairs", 6).batches(0)))
    assert not (rows[1::2] % 8 == 4).any()
    assert (rows[1::2] % 8 == 5).any()


@pytest.mark.parametrize(
    ("order", "size", "block", "said"),
    [
        ("pairs", 7, 8, "batch_size is 7: with order pairs it must be even"),
        ("sequences", 20, 8, "must be a multiple of 8, the rows of a block"),
        ("pairs", 8, 1, "has no row with the row before it, of the same document"),
        ("sequences", 400, 200, "has no whole block of 200 rows"),
        ("triples", 8, 8, "order is 'triples': choose one of rows, pairs, sequences"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, order, size, block, said):
    with pytest.raises(BadInput, match=said) as error:
        planned(make(block), order, size)
    assert "\n" not in str(error.value)
