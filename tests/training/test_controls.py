"""Control arms: what is frozen does not change by a bit, in any wiring; the rest learns."""

import json

import pytest
import torch
from safetensors.torch import load_file
from stopped import assert_goes_on_to_the_same_bytes
from test_every_wiring import KINDS
from test_every_wiring import settings as settings  # a fixture
from torch.nn.functional import cosine_similarity, normalize

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.training import train as module
from rkstore.training.average import dictionary_for_use
from rkstore.training.checkpoint import STATE
from rkstore.training.controls import CONTROLS, PLAIN, RANDOM, arms, turn_back
from rkstore.training.inits import INITS
from rkstore.training.run import prepare
from rkstore.training.step import step
from rkstore.training.train import train, train_all

SAE = {"layer": "1", "hook": "mlp.hook_in"}
ALL = {"sae": SAE} | KINDS
every_kind = pytest.mark.parametrize("kind", ALL.values(), ids=ALL)
SELECTS = ("relu", "topk", "batchtopk", "jumprelu", "gated", "abstopk")


def random_init(kind):
    return "random" if kind.get("wiring") in ("transcoder", "per-layer", "clt") else "tied"


def stepped(run, steps=8):
    batches = run.reading.batches(32, 0)
    for _ in range(steps):
        step(run, run.reading.rows(next(batches), "cpu"))
    return run


def matrices(run, name):
    return [getattr(weights, name).detach().clone() for _, weights in run.dictionary.banks]


@every_kind
@pytest.mark.parametrize(
    ("control", "frozen", "free"),
    [("frozen-decoder", "W_dec", "W_enc"), ("frozen-encoder", "W_enc", "W_dec")],
)
def test_what_is_frozen_does_not_change_by_a_bit_and_the_rest_learns(
    settings, kind, control, frozen, free
):
    run = prepare(settings(**kind, control=control, init=random_init(kind), auxk=2, ema=0.9))
    begun, other = matrices(run, frozen), matrices(run, free)
    stepped(run)
    for before, after in zip(begun, matrices(run, frozen), strict=True):
        assert torch.equal(before, after)
    for before, after in zip(other, matrices(run, free), strict=True):
        assert not torch.equal(before, after)


@pytest.mark.parametrize("control", ["frozen-decoder", "frozen-encoder"])
@pytest.mark.parametrize("dictionary", SELECTS)
def test_nor_with_any_select(settings, control, dictionary):
    run = prepare(settings(**SAE, control=control, init="tied", dictionary=dictionary, clip=1.0))
    frozen = run.control.frozen
    (before,) = matrices(run, frozen)
    stepped(run)
    assert torch.equal(matrices(run, frozen)[0], before)
    assert {name for name, _ in run.trained} == {
        name for name, _ in run.dictionary.named_parameters() if name != frozen
    }


def test_a_frozen_matrix_is_saved_as_it_began(settings):
    chosen = settings(**SAE, control="frozen-decoder", init="tied", ema=0.9, norm="none")
    (begun,) = matrices(prepare(chosen), "W_dec")
    path = train(chosen)
    assert torch.equal(load_dictionary(path)[0].W_dec, begun)
    assert torch.equal(load_file(path / STATE)["W_dec"], begun)
    assert "W_dec.exp_avg" not in load_file(path / STATE)


@every_kind
def test_rows_stay_as_near_to_their_start_as_the_bound_says(settings, kind):
    run = prepare(
        settings(**kind, control="soft-frozen-decoder", init=random_init(kind), lr=0.3, warmup=0)
    )
    begun, least = matrices(run, "W_dec"), []
    batches = run.reading.batches(32, 0)
    for _ in range(8):
        step(run, run.reading.rows(next(batches), "cpu"))
        for before, after in zip(begun, matrices(run, "W_dec"), strict=True):
            cosines = cosine_similarity(before.double(), after.double(), dim=1)
            least.append(cosines.min().item())
            torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))
    assert min(least) >= 0.8
    assert min(least) < 0.81


def test_a_row_is_turned_to_the_nearest_one_of_its_norm():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, 6, generator=generator)
    rows = 3 * torch.randn(50, 6, generator=generator)
    rows[0], rows[1] = start[0], -start[1]
    before = rows.clone()
    turn_back(rows, start, 0.8)
    cosines = cosine_similarity(rows.double(), start.double(), dim=1)
    near = cosine_similarity(before, start, dim=1) > 0.81
    assert torch.equal(rows[near], before[near])
    assert (cosines[2:] >= 0.8).all()
    torch.testing.assert_close(rows[2:].norm(dim=1), before[2:].norm(dim=1))
    # In the plane of the row and its start, on the side of the row.
    unit = normalize(start, dim=1)
    across = before - (before * unit).sum(dim=1, keepdim=True) * unit
    expected = 0.8 * unit + 0.6 * normalize(across, dim=1)
    torch.testing.assert_close(
        normalize(rows, dim=1)[~near][1:], expected[~near][1:], rtol=0, atol=1e-4
    )
    assert cosines[1] >= 0.8


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("kind", [SAE, KINDS["clt"]], ids=["sae", "clt"])
def test_a_stopped_arm_goes_on_to_the_same_bytes(settings, tmp_path, kind, control):
    chosen = kind | {"control": control, "init": random_init(kind), "lr": 0.05, "ema": 0.9}
    assert_goes_on_to_the_same_bytes(settings, chosen, tmp_path / "through")


@pytest.mark.parametrize("kind", [SAE, KINDS["transcoder"]], ids=["sae", "transcoder"])
def test_a_dictionary_and_its_arms_are_trained_on_one_reading(settings, monkeypatch, kind):
    started, real = [], module._train

    def looking(runs, *others):
        started.append([run.settings.control for run in runs])
        real(runs, *others)

    monkeypatch.setattr(module, "_train", looking)
    paths = train_all([settings(**kind, controls=True, name="mine")])
    assert started == [[PLAIN.name, *CONTROLS]]
    ends = ["", *(f"-{name}" for name in CONTROLS)]
    assert [path.name for path in paths] == [f"mine{end}_60" for end in ends]
    assert paths[0] == train(settings(**kind, name="mine"))


def test_the_dictionary_beside_its_arms_is_the_one_without_them(settings, tmp_path):
    beside = train_all([settings(**SAE, controls=True)])
    alone = train(settings(**SAE, out=str(tmp_path / "alone")))
    assert (beside[0] / STATE).read_bytes() == (alone / STATE).read_bytes()
    assert len({path.name for path in beside}) == 4
    assert "tied-frozen-encoder" in beside[3].name


def test_an_arm_says_which_it_is_and_a_dictionary_that_it_is_none(settings):
    identities = [
        json.loads((path / "training.json").read_text())["identity"]
        for path in train_all([settings(**SAE, controls=True)])
    ]
    assert [one.get("control") for one in identities] == [None, *CONTROLS]
    assert all("controls" not in one for one in identities)
    assert [one["init"] for one in identities] == ["datapoint", "tied", "tied", "tied"]


def test_arms_keep_a_start_that_is_random_and_every_other_option(settings):
    one = settings(**SAE, init="random", lr=0.5, controls=True)
    assert {arm.init for arm in arms(one)} == {"random"}
    assert {arm.lr for arm in arms(one)} == {0.5}
    assert set(RANDOM) <= set(INITS)
    assert arms(settings(**SAE)) == [settings(**SAE)]


def test_arms_of_a_run_that_starts_from_a_dictionary_do_not(settings):
    one = settings(**SAE, from_="trained", directions="probe.json", controls=True)
    assert [arm.from_ for arm in arms(one)] == ["trained", None, None, None]
    assert [arm.directions for arm in arms(one)][1:] == [None] * 3


@pytest.mark.parametrize("control", CONTROLS)
def test_the_average_of_an_arm_is_an_arm(settings, control):
    run = stepped(prepare(settings(**SAE, control=control, init="tied", lr=0.3, ema=0.6, warmup=0)))
    (begun,) = matrices(prepare(settings(**SAE, control=control, init="tied")), "W_dec")
    used = dictionary_for_use(run)
    frozen = run.control.frozen
    if frozen is not None:
        assert torch.equal(used.get_parameter(frozen), run.dictionary.get_parameter(frozen))
    else:
        cosines = cosine_similarity(used.W_dec.double(), begun.double(), dim=1)
        assert (cosines >= 0.8).all()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"control": "frozen-decoder"}, "init datapoint starts at what the data say: choose init"),
        ({"control": "frozen-encoder", "init": "tied", "resample_every": 9}, "leave it out"),
        ({"controls": True, "resample_every": 9}, "must not have: leave it out"),
        ({"control": "frozen-encoder", "init": "tied", "controls": True}, "leave out control"),
    ],
)
def test_an_arm_that_would_be_none_is_refused(settings, chosen, said):
    with pytest.raises(BadInput, match=said):
        train_all([settings(**SAE, **chosen)])


def test_several_dictionaries_are_not_one(settings):
    with pytest.raises(BadInput, match="use train_all"):
        train(settings(**SAE, controls=True))
