"""SAELens' losses of given weights, and the variance that it says is explained."""

import json
import sys

import torch
from sae_lens.evals import ExplainedVarianceCalculator
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from safetensors.torch import load_file

w = load_file(sys.argv[1])
d_in, d_sae = w["W_enc"].shape
found = []
for one in json.load(sys.stdin):
    kind, config = get_sae_training_class(one["architecture"])
    sae = kind(config(d_in=d_in, d_sae=d_sae, **one["options"]))
    state = sae.state_dict()
    state |= {"b_gate": w["b_enc"], "b_mag": w["b_enc"]} if "b_gate" in state else {}
    state |= {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name in state}
    sae.load_state_dict(state)
    x = w["x"][: one["rows"]]
    dead = torch.arange(d_sae) < d_sae // 2 if one["dead"] else None
    out = sae.training_forward_pass(TrainStepInput(x, {"l1": 0.3, "l0": 0.3}, dead, 0, False))
    variance = ExplainedVarianceCalculator()
    variance.add_batch(out.sae_out.detach(), x)
    losses = {name: loss.item() for name, loss in out.losses.items()}
    found.append(losses | {"explained_variance": variance.compute()})
print(json.dumps(found, allow_nan=False))
