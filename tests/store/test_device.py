"""Batches that are decoded on a device have the bits of those that are decoded here."""

import itertools

import numpy as np
import pytest
import torch

from rkstore.errors import BadInput
from rkstore.store.batches.assemble import read_batches
from rkstore.store.batches.device import read_to_device
from rkstore.store.batches.plan import BatchPlan
from rkstore.store.batches.slots import Slots
from rkstore.store.codecs import CODECS, SCHEMA_1, Encoded

SITES = ["blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out"]
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def plan_of(store, batch_size=20):
    return BatchPlan(tuple(store.rows_of_chunk(c) for c in range(store.chunks)), batch_size, 3, 48)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_on_a_device_is_bit_for_bit_that_of_the_processor(
    make_store, codec, batch_size, device
):
    store, _ = make_store(codec=codec)
    plan = plan_of(store, batch_size)
    there = read_to_device(store, SITES, plan, device, start=1)
    here = read_batches(store, SITES, plan, start=1)
    for found, expected in itertools.islice(
        zip(there, here, strict=False), plan.batches_per_epoch + 1
    ):
        np.testing.assert_array_equal(found.rows, expected.rows)
        for name in SITES:
            assert found.x[name].device.type == device
            np.testing.assert_array_equal(found.x[name].cpu().numpy(), expected.x[name])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "codec", [*CODECS.values(), SCHEMA_1["int8"]], ids=lambda c: type(c).__name__
)
def test_every_bit_pattern_decodes_alike(codec, device):
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (300, 64 * codec.dtype.itemsize), np.uint8)
    values = values.view(codec.dtype)
    if codec.dtype.kind == "f":  # a store has finite values only
        values = np.where(np.isfinite(values), values, 0).astype(codec.dtype)
    side = {
        name: generator.standard_normal(values.shape[1], np.float32) * 10.0 ** (i - 3)
        for i, name in enumerate(codec.side)
    }
    side = {name: vector.astype(np.float32) for name, vector in side.items()}
    found = codec.decode_tensor(
        torch.from_numpy(values).to(device),
        {name: torch.from_numpy(vector[None]).to(device) for name, vector in side.items()},
    )
    expected = codec.decode(Encoded(values, side)).view(np.uint32)
    np.testing.assert_array_equal(found.cpu().numpy().view(np.uint32), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_that_is_held_is_never_written_over(make_store, device):
    store, _ = make_store(rows=400)
    held, copies = [], []
    for batch in itertools.islice(read_to_device(store, SITES, plan_of(store), device), 60):
        held.append(batch.x[SITES[0]])
        copies.append(held[-1].cpu().clone())
    for kept, copy in zip(held, copies, strict=True):
        assert torch.equal(kept.cpu(), copy)


def test_an_unknown_site_is_refused(make_store):
    store, _ = make_store()
    with pytest.raises(BadInput, match=r"blocks\.9"):
        next(read_to_device(store, ["blocks.9"], plan_of(store), "cpu"))


def test_a_slot_comes_back_when_its_last_view_is_gone():
    slots = Slots(2)
    first = slots.take((4, 3), np.float32)
    place, view = first.ctypes.data, first[1:, ::2]
    del first
    assert slots.take((4, 3), np.float32).ctypes.data != place
    tensor = torch.from_numpy(view)
    del view
    assert slots.take((4, 3), np.float32).ctypes.data != place
    del tensor
    assert place in {slots.take((4, 3), np.float32).ctypes.data for _ in range(3)}


def test_slots_of_another_shape_or_type_are_apart():
    slots = Slots(2)
    slots.take((4, 3), np.float32)
    assert slots.take((3, 4), np.float32).shape == (3, 4)
    assert slots.take((4, 3), np.uint8).dtype == np.uint8


def test_no_more_memory_is_kept_than_asked_for():
    made = []
    slots = Slots(2, lambda shape, dtype: made.append(shape) or np.empty(shape, dtype))
    held = [slots.take((2, 2), np.float32) for _ in range(5)]
    del held
    again = [slots.take((2, 2), np.float32) for _ in range(3)]
    assert (len(made), len(again)) == (6, 3)
