"""On a CUDA device a step gives what it gives on the CPU. Skipped where there is none."""

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "dictionaries"))

from test_banks import SELECTS, WIRINGS, make_dictionary, make_rows

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.planted.settings import PlantSettings
from rkstore.planted.store import plant
from rkstore.training import fast
from rkstore.training.fast import Scratch
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.objective import Objective
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NESTED = Prefixes((0.25, 0.5, 1.0))


def gradients(dictionary, rows, objective):
    dead = (torch.arange(dictionary.d_sae) % 3 == 0).to(dictionary.b_dec.device)
    if fast.covers(dictionary, objective):
        fast.gradients(dictionary, rows, Scratch(), objective, dead)
    else:
        losses, _ = objective(dictionary, rows, dead)
        sum(losses.values()).backward()
    return {name: p.grad for name, p in dictionary.named_parameters()}


@pytest.mark.parametrize("prefixes", [WHOLE, NESTED], ids=["plain", "nested"])
@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)
def test_gradients_are_those_of_the_cpu(wiring, select, prefixes):
    dictionary, rows = make_dictionary(wiring, select), make_rows()
    objective = Objective(prefixes, [AuxK(auxk=2)])
    there = copy.deepcopy(dictionary).cuda()
    found = gradients(there, {name: x.cuda() for name, x in rows.items()}, objective)
    for name, expected in gradients(dictionary, rows, objective).items():
        distance = (found[name].cpu() - expected).norm() / expected.norm().clamp_min(1e-6)
        assert distance < 1e-4, name


@pytest.mark.parametrize("select", SELECTS)
def test_a_dictionary_that_is_trained_there_is_loaded_here(select, tmp_path):
    (store,) = plant(PlantSettings(rows=4096, easy=True, out=str(tmp_path / "store")))
    fvu = {}
    for device in ("cpu", "cuda"):
        settings = TrainSettings(
            store=store.where,
            dictionary=select,
            k=3,
            d_sae=128,
            steps=60,
            batch_size=128,
            device=device,
            out=str(tmp_path / device),
        )
        dictionary, _ = load_dictionary(train(settings))
        x = torch.from_numpy(store.read(store.site()))
        fvu[device] = ((dictionary(x) - x).square().sum() / (x - x.mean(0)).square().sum()).item()
    assert fvu["cuda"] == pytest.approx(fvu["cpu"], rel=0.05, abs=0.01)
