"""dictionary_learning's losses of given weights, and what it evaluates."""

import json
import sys

import torch
from dictionary_learning.evaluation import evaluate
from dictionary_learning.trainers import JumpReluTrainer, StandardTrainer, TopKTrainer
from safetensors.torch import load_file

w, k = load_file(sys.argv[1]), int(sys.argv[2])
d_in, d_sae = w["W_enc"].shape
common = {"steps": 10, "activation_dim": d_in, "dict_size": d_sae, "warmup_steps": 0}
common |= {"layer": 0, "lm_name": "none", "device": "cpu"}
encoder = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
linear = encoder | {"decoder.weight": w["W_dec"].T}

standard = StandardTrainer(**common, sparsity_warmup_steps=None)
standard.ae.load_state_dict({**linear, "bias": w["b_dec"]})

jumprelu = JumpReluTrainer(
    **common, sparsity_penalty=0.3, target_l0=8.0, bandwidth=1.0, sparsity_warmup_steps=None
)
state = {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
jumprelu.ae.load_state_dict(state | {"threshold": torch.full((d_sae,), 0.5)})

topk = TopKTrainer(**common, k=k)
state = {"b_dec": w["b_dec"], "k": torch.tensor(k), "threshold": torch.tensor(-1.0)}
topk.ae.load_state_dict(linear | state)
topk.num_tokens_since_fired[: d_sae // 2] = 10_000_000

found = {}
for name, trainer in (("standard", standard), ("jumprelu", jumprelu)):
    *_, found[name] = trainer.loss(w["x"], step=5, logging=True)
with torch.no_grad():
    f, _, _, post = topk.ae.encode(w["x"], return_topk=True)
    auxk = topk.get_auxiliary_loss(w["x"] - topk.ae.decode(f), post)
found["auxk"] = topk.auxk_alpha * auxk.item()
found["evaluate"] = evaluate(topk.ae, iter([w["x"]]))
print(json.dumps(found, allow_nan=False))
