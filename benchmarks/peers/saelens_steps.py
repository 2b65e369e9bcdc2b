"""Training steps of SAELens on one batch, in steps/s.

python saelens_steps.py ARCHITECTURE ROWS.npy D_SAE K STEPS
"""

import sys
import time

import numpy as np
import torch
from answer import answer
from sae_lens.config import SAETrainerConfig  # type: ignore[import-not-found,unused-ignore]
from sae_lens.registry import (  # type: ignore[import-not-found,unused-ignore]
    get_sae_training_class,
)
from sae_lens.training.sae_trainer import (  # type: ignore[import-not-found,unused-ignore]
    SAETrainer,
)

THREADS, LR = 2, 3e-4


def main() -> None:
    architecture, rows = sys.argv[1], torch.from_numpy(np.load(sys.argv[2]))
    d_sae, k, steps = map(int, sys.argv[3:])
    torch.set_num_threads(THREADS)
    made, config = get_sae_training_class(architecture)
    options = {"d_in": rows.shape[1], "d_sae": d_sae, "device": "cpu", "dtype": "float32"}
    if "topk" in architecture:
        options["k"] = k
    if architecture == "matryoshka_batchtopk":
        options["matryoshka_widths"] = [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]
    trainer = SAETrainer(
        SAETrainerConfig(10**9, train_batch_size_samples=len(rows), lr=LR, lr_end=LR),
        made(config(**options)),
        iter(()),
    )

    def some_steps() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            trainer.step(rows)
            trainer.n_training_steps += 1
        return steps / (time.perf_counter() - began)

    answer(some_steps)


if __name__ == "__main__":
    main()
