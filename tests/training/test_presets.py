"""Every preset in configs/ is a run that can be made: each is made here, at small size."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from rkstore.dictionaries import load_dictionary
from rkstore.settings import from_yaml, options_in
from rkstore.store.sites import Pair
from rkstore.training.ignored import unused
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = [
    path for path in sorted(CONFIGS.glob("*.yaml")) if "rkstore train --config" in path.read_text()
]
of_every_preset = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)

# The trainers of dictionary_learning, CLT-Forge and the rest, by the names that they have there.
NAMED = [
    *("standard", "gated", "topk", "p-anneal", "gated-anneal", "jumprelu", "batchtopk"),
    *("crosscoder", "batchtopk-crosscoder", "matryoshka", "clt", "t-sae"),
]

ROWS, STEPS = 400, 60
LAYERS = (0, 1, 8)
POST = {f"blocks.{n}.hook_resid_post": 8 for n in LAYERS}
IN = {f"blocks.{n}.mlp.hook_in": 8 for n in LAYERS}
OUT = {f"blocks.{n}.hook_mlp_out": 8 for n in LAYERS}
PAIRS = tuple(Pair("mlp", n, x, y) for n, x, y in zip(LAYERS, IN, OUT, strict=True))

# What of a preset is for a large run, and what it becomes in one of 60 steps.
SMALL = {
    "d_sae": 40,
    "expansion": 5.0,
    "batch_size": 32,
    "lr": 0.01,
    "k": 4,
    "auxk": 8,
    "target_l0": 4.0,
    "warmup": 4,
    "sparsity_warmup": 8,
    "anneal_steps": 10,
}


@pytest.fixture
def small(make_store, tmp_path):
    """Call it with the path of a preset for its settings, with what is in SMALL."""
    sites = POST | IN | OUT
    hidden = np.maximum(np.random.default_rng(0).standard_normal((ROWS, 5)), 0)
    for seed, name in enumerate(("base", "chat")):
        rng = np.random.default_rng(seed)
        values = {s: (hidden @ rng.standard_normal((5, 8))).astype(np.float32) for s in sites}
        values["token_id"] = np.arange(ROWS, dtype=np.int32) % 50
        source = {"model": {"name": name, "revision": None}}
        make_store(name, rows=ROWS, sites=sites, pairs=PAIRS, values=values, source=source)

    def settings(path):
        said = yaml.safe_load(path.read_text("utf-8"))
        given = {key: value for key, value in SMALL.items() if key in {*said, "batch_size", "lr"}}
        given |= {"d_sae": 40} if "wiring" not in said else {}
        given |= {"store": str(tmp_path / "base"), "out": str(tmp_path / "out"), "steps": STEPS}
        if "--paired-with" in path.read_text("utf-8"):
            given["paired_with"] = str(tmp_path / "chat")
        if "--layer 8" in path.read_text("utf-8"):
            given["layer"] = "8"
        if "hook" not in said and said.get("wiring", "sae") == "sae":
            given["hook"] = "hook_resid_post"
        return from_yaml(TrainSettings, path, given)

    return settings


def test_the_trainers_of_the_field_are_there_by_name():
    assert {*NAMED} <= {path.stem for path in PRESETS}


@of_every_preset
def test_a_preset_is_a_run_that_can_be_made(small, path):
    settings = small(path)
    checkpoint = train(settings)
    report = json.loads((checkpoint / "training.json").read_text("utf-8"))
    first, last = report["history"][0], report["history"][-1]
    assert report["step"] == STEPS
    # It learns; one that has, early, may give some of it back to a penalty that still rises.
    assert 0 < last["fvu"] < max(first["fvu"], 0.5)
    assert last["l0"] > 0
    assert all(np.isfinite(loss) for loss in last["losses"].values())
    load_dictionary(checkpoint)


@of_every_preset
def test_no_option_of_a_preset_is_without_effect(path):
    settings = from_yaml(TrainSettings, path, {})
    said = yaml.safe_load(path.read_text("utf-8"))
    assert not unused(settings, [name for name in options_in(TrainSettings) if name in said])
