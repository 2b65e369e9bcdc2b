"""What SAELens' evals say of a dictionary in a model, with and without its special tokens.

Words: the model's directory, the dictionary's, and the file of the tokens. Prints JSON.
"""

import json
import sys

import torch
from sae_lens import SAE
from sae_lens.evals import get_downstream_reconstruction_metrics
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer


class Tokens:
    """The one batch that is asked for."""

    def __init__(self, tokens):
        self.tokens = tokens

    def get_batch_tokens(self, _):
        return self.tokens


root, checkpoint, file = sys.argv[1:]
model = TransformerBridge.boot_transformers(
    root,
    device="cpu",
    dtype=torch.float32,
    tokenizer=AutoTokenizer.from_pretrained(root),
    hf_model=AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32).eval(),
)
tokens = load_file(file)["tokens"]
found = {}
for name, ignored in (("all", None), ("without BOS", [0])):
    with torch.no_grad():
        found[name] = get_downstream_reconstruction_metrics(
            SAE.load_from_disk(checkpoint, device="cpu"),
            model,
            Tokens(tokens),
            ActivationScaler(),
            compute_kl=True,
            compute_ce_loss=True,
            n_batches=1,
            eval_batch_size_prompts=len(tokens),
            ignore_tokens=ignored,
        )
print(json.dumps(found, allow_nan=False))
