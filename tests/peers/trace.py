"""What nnsight saves in a trace of given tokens."""

import json
import sys

import torch
from nnsight import LanguageModel
from safetensors.torch import load_file, save_file

# The expressions are those of the page, in terms of a model.
model = LanguageModel(sys.argv[1], device_map="cpu", dtype=torch.float32)
with model.trace(load_file(sys.argv[2])["tokens"]):
    saved = {span: eval(span).save() for span in json.load(sys.stdin)}
save_file({span: x.value.detach().contiguous() for span, x in saved.items()}, sys.argv[3])
