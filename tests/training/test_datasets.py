"""Rows for PyTorch's DataLoader: each once, whatever the workers, ranks and ways to start them."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

import rkstore
from rkstore.errors import BadInput
from rkstore.store.batches.plan import split_chunks
from rkstore.training.datasets import BatchDataset, RowDataset

SITE, OTHER = "blocks.1.hook_mlp_out", "blocks.0.mlp.hook_post"


def read(loader):
    """The batches of a loader: rows and activations."""
    found = [(rows.numpy(), x.numpy()) for rows, x in loader]
    return [np.concatenate(all) for all in zip(*found, strict=True)]


def test_the_datasets_are_names_of_the_package():
    assert rkstore.BatchDataset is BatchDataset
    assert rkstore.RowDataset is RowDataset


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "spawn"), (2, "fork")])
def test_every_row_comes_once_with_its_activations(make_store, workers, start):
    store, _ = make_store(codec="int8")
    options = {"num_workers": workers, "multiprocessing_context": start}
    order = torch.Generator().manual_seed(0)
    for loader in (
        DataLoader(RowDataset(store, SITE), 32, shuffle=True, generator=order, **options),
        DataLoader(BatchDataset(store, SITE, 20), batch_size=None, **options),
    ):
        rows, x = read(loader)
        assert sorted(rows.tolist()) == list(range(216))
        assert rows.tolist() != list(range(216))
        np.testing.assert_array_equal(x, store[SITE, rows])
        assert x.dtype == np.float32


def batches(dataset, workers):
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    return [rows.tolist() for rows, _ in loader]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_loader_has_the_same_batches_in_the_same_order_for_any_workers(make_store, workers):
    store, _ = make_store()
    dataset = BatchDataset(store, SITE, 20)
    assert batches(dataset, workers) == batches(dataset, 0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_ranks_share_the_batches_of_one(make_store, workers, world):
    store, _ = make_store()
    alone = batches(BatchDataset(store, SITE, 20), 0)
    shares = [BatchDataset(store, SITE, 20, rank=r, world_size=world) for r in range(world)]
    found = [batches(share, workers if world < 20 else 0) for share in shares]
    assert [len(share) for share in shares] == [len(share) for share in found]
    assert found == [alone[rank::world] for rank in range(world)]


def test_ranks_are_those_of_torch_distributed(make_store, monkeypatch):
    store, _ = make_store()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    dataset = BatchDataset(store, SITE, 20)
    assert (dataset.rank, dataset.world_size) == (1, 4)


def test_an_epoch_has_its_own_order_of_the_same_rows(make_store):
    store, _ = make_store()
    dataset = BatchDataset(store, SITE, 20)
    orders = []
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        assert batches(dataset, 2) == batches(dataset, 0) == batches(dataset, 0)
        orders.append([row for rows in batches(dataset, 0) for row in rows])
    assert all(sorted(order) == list(range(216)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_several_sites_come_by_name_and_chunks_can_be_chosen(make_store):
    store, _ = make_store()
    train, _ = split_chunks(store)
    for rows, x in DataLoader(
        BatchDataset(store, [SITE, OTHER], 50, chunks=train), batch_size=None
    ):
        for name in (SITE, OTHER):
            np.testing.assert_array_equal(x[name], store[name, rows.numpy()])
    rows, x = RowDataset(store, [SITE, OTHER], slice(100, 120))[3]
    assert rows == 103
    np.testing.assert_array_equal(x[OTHER], store[OTHER, 103])


def test_rows_can_be_chosen_and_shared_by_pytorchs_own_sampler(make_store):
    store, _ = make_store()
    dataset = RowDataset(store, SITE, np.arange(216) % 2 == 1)
    seen = []
    for rank in range(3):
        sampler = DistributedSampler(dataset, num_replicas=3, rank=rank)
        seen += read(DataLoader(dataset, 8, sampler=sampler))[0].tolist()
    assert sorted(seen) == list(range(1, 216, 2))
    with pytest.raises(IndexError):
        dataset[108]


@pytest.mark.parametrize(
    "wrong",
    [
        {"site": "none"},
        {"site": []},
        {"site": [SITE, SITE]},
        {"rank": 0},
        {"world_size": 2},
        {"rank": 2, "world_size": 2},
        {"batch_size": 0},
        {"chunks": []},
    ],
)
def test_what_cannot_be_read_is_refused(make_store, wrong):
    store, _ = make_store()
    with pytest.raises(BadInput):
        BatchDataset(store, **({"site": SITE} | wrong))
