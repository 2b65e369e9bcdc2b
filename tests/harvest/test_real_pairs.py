"""Pairs of real models, where their directories are given: RKSTORE_REAL names one with models/."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_pairs import MLP, assert_equal

from rkstore.harvest.load import load_plain
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings

GIVEN = sorted(Path(os.environ.get("RKSTORE_REAL", "nowhere"), "models").glob("*/config.json"))


@pytest.mark.skipif(not GIVEN, reason="RKSTORE_REAL names no directory with models/")
@pytest.mark.parametrize("path", GIVEN, ids=lambda path: path.parent.name)
def test_a_pair_is_what_the_mlp_of_the_real_model_reads_and_writes(path, tmp_path):
    """Llamas and Gemmas, whose MLP is ``model.layers.N.mlp``."""
    asked = {
        "pair": ("mlp",),
        "codec": "float32",
        "dataset": "python",
        "out": str(tmp_path / "out"),
    }
    sizes = {"tokens": 96, "context_size": 32}
    store = run(prepare(HarvestSettings(model=str(path.parent), layers="0,5,17", **asked, **sizes)))
    plain, _ = load_plain(str(path.parent))
    found: dict[str, np.ndarray] = {}

    def keep(name, x):
        found[name] = x.reshape(-1, x.shape[-1]).numpy().copy()

    for pair in store.pairs:
        module = plain.get_submodule(MLP.format(pair.layer))
        module.register_forward_pre_hook(lambda _, x, name=pair.reads: keep(name, x[0]))
        module.register_forward_hook(lambda _, __, y, name=pair.writes: keep(name, y))
    with torch.inference_mode():
        plain(torch.from_numpy(store.column("token_id").reshape(-1, 32).astype(np.int64)))
    assert len(found) == 6
    for name, x in found.items():
        assert_equal(store.read(name), x)
