"""What dictionary_learning computes with an ``ae.pt``."""

import sys

from dictionary_learning.trainers.top_k import AutoEncoderTopK
from safetensors.torch import load_file, save_file

dictionary = AutoEncoderTopK.from_pretrained(sys.argv[1])
y, f = dictionary(load_file(sys.argv[2])["x"], output_features=True)
save_file({"y": y.detach().contiguous(), "f": f.detach().contiguous()}, sys.argv[3])
