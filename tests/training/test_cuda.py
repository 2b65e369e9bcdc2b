"""On a CUDA device a step gives what it gives on the CPU. Skipped where there is none."""

import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "dictionaries"))

from test_banks import SELECTS, WIRINGS, make_dictionary, make_rows

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.prefixes import WHOLE, Prefixes
from rkstore.dictionaries.selects import SELECTS as RULES
from rkstore.dictionaries.sparse import ByLatent, SparseCode
from rkstore.planted.settings import PlantSettings
from rkstore.planted.store import plant
from rkstore.training import fast
from rkstore.training.fast import Scratch
from rkstore.training.fast.graph import COMPILED_FROM
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.objective import Objective
from rkstore.training.optim import Adam
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 100, 3072])
def test_sums_over_a_list_are_those_of_the_dense_product(width, dtype):
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(70, 300, generator=generator).cuda()
    f *= f > 0.97
    f[3] = 0
    f[:, 7] = 1  # a latent that is on for every token
    code = SparseCode.of(f)
    W = torch.randn(300, width, generator=generator).cuda().to(dtype)
    g = torch.randn(70, width, generator=generator).cuda().to(dtype)
    with torch.no_grad():
        found = code.times(W), ByLatent.of(code).times(code.values, g), code.dots(g, W)
        again = code.times(W), ByLatent.of(code).times(code.values, g), code.dots(g, W)
    dense = (g.double() @ W.double().T)[code.tokens, code.latents]
    for x, same, expected in zip(
        found, again, (f.double() @ W.double(), f.double().T @ g.double(), dense), strict=True
    ):
        assert ((x - expected).norm() / expected.norm()).item() < 1e-6
        assert torch.equal(x, same)


def test_decoder_rows_are_normalised_and_their_gradients_projected_as_on_the_cpu():
    here = Dictionary.of_site(3000, 50, RULES["topk"](k=4))
    here.W_dec.data.normal_(generator=torch.Generator().manual_seed(0))
    here.W_dec.data[3] = 0
    there = copy.deepcopy(here).cuda()
    for dictionary in (here, there):
        dictionary.normalise_decoder()
        dictionary.W_dec.grad = torch.ones_like(dictionary.W_dec)
        dictionary.project_decoder_gradient()
    torch.testing.assert_close(there.W_dec.cpu(), here.W_dec, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(there.W_dec.grad.cpu(), here.W_dec.grad, atol=1e-5, rtol=1e-5)


def test_adam_gives_the_numbers_of_the_cpu_and_keeps_decoder_rows_at_norm_1():
    generator = torch.Generator().manual_seed(0)
    begun = torch.nn.functional.normalize(torch.randn(60, 3000, generator=generator), dim=1)
    given = [begun, torch.randn(60, 3000, generator=generator).T, torch.randn(60)]
    here, there = (
        [torch.nn.Parameter(x.clone().to(device)) for x in given] for device in ("cpu", "cuda")
    )
    ours, theirs = Adam(there, 0.01, unit=there[:1]), torch.optim.Adam(here, 0.01)
    assert ours.keeps_unit
    assert not Adam(there, 0.01).keeps_unit
    for _ in range(4):
        for a, b in zip(there, here, strict=True):
            b.grad = torch.randn(b.shape, generator=generator)
            a.grad = b.grad.cuda()
        here[0].grad -= (here[0].grad * here[0]).sum(1, keepdim=True) * here[0].detach()
        theirs.step()
        here[0].data /= here[0].data.norm(dim=1, keepdim=True)
        ours.step()
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-5, rtol=1e-4)
        assert a.stride() == b.stride()
        for name, moment in ours.state[a].items():
            torch.testing.assert_close(moment.cpu(), theirs.state[b][name], atol=1e-5, rtol=1e-4)


def test_a_run_goes_on_there_from_its_checkpoint(tmp_path):
    (store,) = plant(PlantSettings(rows=4096, easy=True, out=str(tmp_path / "store")))
    settings = TrainSettings(
        store=store.where,
        k=3,
        d_sae=128,
        steps=40,
        checkpoint_every=20,
        batch_size=128,
        device="cuda",
        out=str(tmp_path / "runs"),
    )
    last = train(settings)
    expected = load_dictionary(last)[0].state_dict()
    shutil.rmtree(last)
    for name, tensor in load_dictionary(train(settings))[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("select", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_gradients_of_a_large_code_in_bfloat16_are_near_those_of_the_cpu(select):
    """Large enough to be compiled, where the select has no formula."""
    latents, width = 8192, 48
    dictionary = Dictionary.of_site(width, latents, RULES[select]())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in dictionary.named_parameters():
        if not name.startswith("select"):
            parameter.data.normal_(std=0.3, generator=generator)
    rows = {"x": torch.randn(COMPILED_FROM // latents, width, generator=generator)}
    found, dead = {}, torch.zeros(latents, dtype=torch.bool)
    for device in ("cpu", "cuda"):
        there = copy.deepcopy(dictionary).to(device)
        on = {"x": rows["x"].to(device)}
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        fast.gradients(there, on, Scratch(), Objective(), dead.to(device), 0.5, None, dtype)
        found[device] = {name: p.grad.cpu() for name, p in there.named_parameters()}
    for name, expected in found["cpu"].items():
        # Of a topk code bfloat16 chooses a few other latents.
        near = 0.2 if "topk" in select or "select" in name else 0.03
        assert (found["cuda"][name] - expected).norm() < near * expected.norm(), name
