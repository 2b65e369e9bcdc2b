"""One pass over a cache of SAELens, in order, as its ActivationsStore reads it, in rows/s.

python saelens_batches.py CACHE HOOK CONTEXT D_IN ROWS BATCH_ROWS
"""

import sys
import time

import torch
from answer import answer
from sae_lens.config import (  # type: ignore[import-not-found,unused-ignore]
    CacheActivationsRunnerConfig,
)
from sae_lens.training.activations_store import (  # type: ignore[import-not-found,unused-ignore]
    ActivationsStore,
)

THREADS = 2


def main() -> None:
    cache, hook_name = sys.argv[1:3]
    context, d_in, rows, batch_rows = map(int, sys.argv[3:])
    torch.set_num_threads(THREADS)
    config = CacheActivationsRunnerConfig(
        dataset_path="",
        model_name="",
        model_batch_size=batch_rows // context,
        hook_name=hook_name,
        d_in=d_in,
        training_tokens=rows,
        context_size=context,
        new_cached_activations_path=cache,
        device="cpu",
    )
    store = ActivationsStore.from_cache_activations(model=None, cfg=config)

    def one_pass() -> float:
        store.current_row_idx = 0
        began = time.perf_counter()
        for _ in range(rows // batch_rows):
            batch, _ = store.get_raw_llm_batch()
            assert batch.shape == (batch_rows, d_in)
        return rows / (time.perf_counter() - began)

    answer(one_pass)


if __name__ == "__main__":
    main()
