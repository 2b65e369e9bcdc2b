"""Encode rows and keep what fires as Delphi's LatentCache does, in seconds.

python delphi_cache.py ROWS.npy WEIGHTS.safetensors HOOK CONTEXT K BATCH_ROWS OUT
"""

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from answer import answer
from delphi.latents.cache import (  # type: ignore[import-not-found,unused-ignore]
    InMemoryCache,
    LatentCache,
)
from safetensors.torch import load_file

THREADS = 2


def main() -> None:
    rows, weights, hook_name = sys.argv[1:4]
    context, k, batch_rows = map(int, sys.argv[4:7])
    out = Path(sys.argv[7])
    torch.set_num_threads(THREADS)
    x, made = torch.from_numpy(np.load(rows)), load_file(weights)
    W_enc, b_enc, b_dec = (made[name] for name in ("W_enc", "b_enc", "b_dec"))
    tokens = torch.zeros(batch_rows // context, context, dtype=torch.int64)

    @torch.no_grad()
    def one_pass() -> float:
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        # Without its model: rows are there already.
        whole = LatentCache.__new__(LatentCache)
        whole.cache = InMemoryCache(batch_size=len(tokens))
        whole.width = len(b_enc)
        for number, first in enumerate(range(0, len(x), batch_rows)):
            pre = (x[first : first + batch_rows] - b_dec) @ W_enc + b_enc
            values, places = pre.topk(k, dim=-1, sorted=False)
            code = torch.zeros_like(pre).scatter_(-1, places, values.relu())
            whole.cache.add(code.view(*tokens.shape, -1), tokens, number, hook_name)
        whole.cache.save()
        whole.save_splits(n_splits=5, save_dir=out)
        return time.perf_counter() - began

    answer(one_pass)


if __name__ == "__main__":
    main()
