"""A harvest on a CUDA device. Skipped where there is none."""

import numpy as np
import pytest
import torch

from rkstore.cli.terminal import describe_plan
from rkstore.harvest.cost import plan
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.codecs import CODECS
from rkstore.store.verify import verify

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def settings(tmp_path, name, **options):
    usual = {"model": "demo", "dataset": "python", "tokens": 4096, "shard_rows": 1024}
    return HarvestSettings(**usual, out=str(tmp_path / name), **options)


@pytest.mark.parametrize("codec", CODECS)
def test_a_store_from_there_is_whole_and_near_that_of_the_cpu(tmp_path, codec):
    here = run(prepare(settings(tmp_path, "here", codec=codec)))
    there = run(prepare(settings(tmp_path, "there", codec=codec, device="cuda")))
    assert list(verify(there)) == []
    for name in here.hook_names:
        expected, found = here.read(name), there.read(name)
        away = np.linalg.norm(found - expected) / np.linalg.norm(expected - expected.mean(axis=0))
        assert away < 0.02 + np.sqrt(2 * here.codec_fvu(name))
        assert there.statistics(name).count == here.statistics(name).count


@pytest.mark.parametrize("codec", ["int8", "bfloat16"])
def test_a_second_harvest_in_bfloat16_gives_the_same_bytes(tmp_path, codec):
    first, second = (
        run(prepare(settings(tmp_path, name, codec=codec, device="cuda", dtype="bfloat16")))
        for name in ("first", "second")
    )
    for name in first.hook_names:
        np.testing.assert_array_equal(first.read(name), second.read(name))
    assert first.records[-1].chain == second.records[-1].chain


def test_a_plan_is_measured_there(tmp_path):
    cost = plan(prepare(settings(tmp_path, "planned", device="cuda")))
    assert cost.model_seconds_per_token > 0
    assert cost.device.total_bytes > cost.device.needed_bytes > 0
    assert torch.cuda.get_device_name() in describe_plan(cost)
