"""On a CUDA device, at GPT-2's full size: batches against the bus, harvests against the forward
pass, and training steps against their products. Not measured where there is none."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from harness import device, synthetic
from harness.harvests import harvesting
from harness.row import Bench, Sides, Target, compared
from harness.steps import products, run_of

BATCH, D_IN, D_SAE = synthetic.BATCH_ROWS, synthetic.WIDTH, 24_576


@compared(
    what="Shuffled batches of 4,096 × 3,072 from the default store in the memory of a CUDA device, "
    "page cache warm, counted as bfloat16",
    against="Copies of one such batch in bfloat16 from pinned memory, which is the bus",
    unit="GB/s",
    target=Target("at least", 0.9),
    how="65,536 rows of random numbers through a GELU, read again and again in different orders, "
    "checked, decompressed, moved as codes and decoded to float32 there: 25 MB in bfloat16 are "
    "half of that. Forty batches a repetition.",
    floor="A code is half of bfloat16, so the bus allows 2. The processor bounds it. 16 cores "
    "that did nothing but check and decompress chunks reached 8.9 GB/s, 45 without compression; "
    "but each chunk took fresh memory, and its checksum held the interpreter. Since the result, a "
    "chunk is decompressed into the pinned memory that it is copied from, and checked without "
    "the interpreter. This was measured on the two cores of the other rows alone: to check and "
    "decompress a GB of codes takes 0.76 s of one core, so 16 like it would reach 42 GB/s, 0.8 "
    "of the bus; up to the memory that is copied it takes 0.86 s, before 0.95. Pauses in place "
    "of what needs no interpreter, the device too, let two cores stand for 16: then batches come "
    "at 17 GB/s, before at 6.8, and what is left is Python, 0.1 ms a chunk.",
    device=True,
)
def batches_cuda(bench: Bench) -> Iterator[Sides]:
    root = synthetic.store(bench)
    yield Sides(device.batches(root), device.bus, lambda: device.reading_alone(root))


def _harvest(name: str, layers: str, what: str) -> None:
    """Add the row of a harvest of some layers."""

    def sides(bench: Bench) -> Iterator[Sides]:
        harvest = device.prepared(bench, layers)
        yield Sides(harvesting(harvest), device.forward(harvest))

    sides.__name__ = name
    compared(
        what=f"Harvest of {what} mlp.hook_post of GPT-2's shape on a CUDA device, bfloat16",
        against="The model's forward pass to the last site alone, nothing moved or stored",
        unit="tokens/s",
        target=Target("at least", 0.9),
        how="Blocks of 128, 32 at a time; random weights; int8, checksums, statistics, fsync. "
        "Loading the model and tokenising are not timed.",
        floor="Codes, errors and statistics are computed on the device, beside the model. Before "
        "they were, 0.11 of one site and 0.015 of twelve. The processor is left with 3,072 bytes "
        "a token and site to compress, hash, write and sync, and with the fit to the first rows "
        "of a shard. 16 threads that did so held the interpreter against the one that starts the "
        "model's kernels: with twelve sites its passes took 1.05 s of 1.9, alone 0.13 s. Since the "
        "result, compressing and checksums hold it for less than 0.1 of 2.2 ms a chunk, before "
        "for 0.9 of 2.4. This was measured on two cores alone. Pauses in place of what needs no "
        "interpreter let them stand for 16: beside 16 threads that compress, a thread starts 0.4 "
        "of the small operations of torch that it starts alone, before 0.08, and they compress "
        "5,400 chunks/s, before 1,800.",
        device=True,
    )(sides)


HARVESTS = {"harvest_cuda": ("8", "one"), "harvest_cuda_all": ("all", "all twelve")}

SELECTS: dict[str, Mapping[str, Any]] = {
    "relu": {"dictionary": "relu", "l1": 0.0},
    "topk": {"dictionary": "topk"},
    "batchtopk": {"dictionary": "batchtopk"},
    "jumprelu": {"dictionary": "jumprelu", "l0": 0.0},
    "gated": {"dictionary": "gated", "l1": 0.0},
}


def _step(select: str, options: Mapping[str, Any]) -> None:
    """Add the row of a select."""

    def sides(bench: Bench) -> Iterator[Sides]:
        d_sae, batch = bench.size(D_SAE, 256), bench.size(BATCH, 512)
        run = run_of(
            bench, D_IN, batch, d_sae=d_sae, device=device.DEVICE, dtype="bfloat16", **options
        )
        alone, listed = products(run, device=device.DEVICE, dtype=torch.bfloat16)
        yield Sides(device.stepping(run), device.repeated(alone), lambda: [listed])

    sides.__name__ = f"step_cuda_{select}"
    compared(
        what=f"A training step on a CUDA device: {select}, 3,072 → 24,576, 4,096 rows, bfloat16",
        against="The matrix products of a dense step alone, in bfloat16",
        unit="s",
        target=Target("at most", 1.25),
        how="The mean of twenty steps a repetition, on one batch; the products are listed below.",
        floor="Of a ReLU step the device needs 6.7 ms: 3.8 for the products, 1.4 for Adam, which "
        "moves 4.2 GB, 0.5 to cast weights and batch, 0.3 for the select and its derivative, 0.7 "
        "for sums and the rest. With Adam alone it is 1.37 of the products, so 1.25 is out of "
        "reach for a dense code in float32 weights. A sparse one needs one of the five products; "
        "it is bound by the sums over latents that, trained on one batch, are on for nearly all "
        "tokens, and by the start of a hundred small kernels.",
        device=True,
    )(sides)


for _name, _options in SELECTS.items():
    _step(_name, _options)
for _name, _of_one in HARVESTS.items():
    _harvest(_name, *_of_one)
