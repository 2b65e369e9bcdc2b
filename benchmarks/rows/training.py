"""Training: its steps, its waiting, many dictionaries on one reading, and all of it together."""

import dataclasses
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import harvests, synthetic
from harness.batches import shuffled
from harness.objects import in_s3
from harness.row import Bench, Side, Sides, Target, compared
from harness.training import (
    BATCH,
    Timed,
    against_products,
    counted,
    five_products,
    seconds,
    step,
    timed,
    timed_together,
)

from rkstore.harvest.load import EMBEDDED_PATH
from rkstore.harvest.run import run
from rkstore.store.batches.assemble import Batch
from rkstore.training.settings import TrainSettings
from rkstore.training.step import step as train_step
from rkstore.training.train import train, train_all

D_IN, D_SAE = 768, 6144


@compared(
    what="Time that a training step (TopK, 768 → 6,144) spends waiting for its batch",
    against="The whole time of the same steps",
    unit="s",
    target=Target("at most", 0.02),
    how="32 steps of 1,024 rows a repetition, from a store of that width with the default codec, "
    "page cache warm, in rkstore.training.train.train. Ours is the time in next(batches), theirs "
    "the total time of the same steps. The first batch, which a run waits for once, is not "
    "counted.",
    floor="Decoding runs in background threads and takes cores from the step; what remains is "
    "slicing a batch from its window, and waiting when a window is used up before the next one is "
    "ready.",
)
def wait_for_data(bench: Bench) -> Iterator[Sides]:
    steps = bench.size(32, 3)
    store = synthetic.store(bench, width=D_IN)
    runs: list[Timed] = []

    def waited() -> float:
        runs.append(timed(store, D_SAE, steps))
        return runs[-1].waited

    yield Sides(waited, lambda: runs[-1].seconds)


@compared(
    what="Time that a training step (TopK, 768 → 6,144, 4,096 rows) waits for its batch if the "
    "store lies in S3 and the cache holds a third of it",
    against="The whole time of the same steps",
    unit="s",
    target=Target("at most", 0.1),
    how="One epoch of 16 steps a repetition, each chunk of which is a range request to moto's S3 "
    "server, a process on the same two cores, without latency. Counted as in wait_for_data.",
    floor="As there. The server takes a part of the two cores.",
)
def wait_for_objects(bench: Bench) -> Iterator[Sides]:
    steps, runs = bench.size(16, 3), []
    root = synthetic.store(bench, width=D_IN)
    options = {"d_sae": bench.size(D_SAE, 512), "init": "random", "batch_size": 4096}
    with in_s3(root, synthetic.bytes_under(root) // 3) as url:

        def waited() -> float:
            runs.append(timed_together(url, steps, [options]))
            return runs[-1].waited

        def notes() -> list[str]:
            there, here = shuffled(url)(), shuffled(root)()
            return [
                f"With nothing to train, batches come at {there:,.0f} rows/s from the server and "
                f"at {here:,.0f} from the disk (once each, after the last repetition)."
            ]

        yield Sides(waited, lambda: runs[-1].seconds, notes)


@compared(
    what="A training step of a ReLU dictionary, 768 → 6,144, 2,048 rows, float32",
    against="Its five matrix products alone: encode, decode, three gradients",
    unit="s",
    target=Target("at most", 1.4),
    how="The whole step except reading its batch: scaling, gradients, Adam, unit decoder rows, "
    "statistics. No penalty, so the code stays dense and no product can be skipped. The products "
    "write to preallocated memory, as the step does.",
    floor="Each product is 19.3 GFLOP, five are 96.6. The rest moves bytes: eight passes over the "
    "50 MB of a code or its gradient, and about twenty over the 19 MB of one weight matrix, "
    "0.8 GB: about 0.05 s at 16 GB/s, next to 1 s of products.",
    repetitions=7,
)
def train_relu(bench: Bench) -> Iterator[Sides]:
    # Without a penalty the code stays as dense as it begins.
    return against_products(bench, "relu", l1=0.0)


@compared(
    what="A training step of TopK, 768 → 6,144, k = 32, 2,048 rows, float32",
    against="The five dense matrix products of this size",
    unit="s",
    target=Target("at most", 1.6),
    how="As train_relu. 65,536 of 12.6 million latents are on.",
    floor="One of the five products, the one that computes the code, must be dense. The other four "
    "are sums over the latents that are on: 0.1 GFLOP instead of 19.3, bound by reading 200 MB "
    "of rows each. With Adam and the top-k search that is about 0.3.",
    repetitions=7,
)
def train_topk(bench: Bench) -> Iterator[Sides]:
    return against_products(bench, "topk", k=bench.size(32, 8))


@compared(
    what="A training step of BatchTopK, 768 → 6,144, k = 32, 2,048 rows, float32",
    against="The five dense matrix products of this size",
    unit="s",
    target=Target("at most", 1.6),
    how="As train_topk; the 65,536 largest are selected over the whole batch.",
    floor="As train_topk.",
    repetitions=7,
)
def train_batchtopk(bench: Bench) -> Iterator[Sides]:
    return against_products(bench, "batchtopk", k=bench.size(32, 8))


@compared(
    what="The step of train_relu with bfloat16 products",
    against="The same step in float32",
    unit="steps/s",
    target=Target("at least", 2.0),
    how="Both as in train_relu. Weights, gradients and Adam are float32 on both sides.",
    floor="AVX512-BF16 has twice the arithmetic of float32 and AMX eight times; Adam and "
    "everything else that touches the weights takes as long as before. Without either, bfloat16 "
    "gains nothing.",
    repetitions=7,
)
def train_bf16(bench: Bench) -> Iterator[Sides]:
    rounded, _ = step(bench, "relu", l1=0.0, dtype="bfloat16")
    exact, _ = step(bench, "relu", l1=0.0)

    def notes() -> list[str]:
        products = [five_products(bench, dtype) for dtype in (torch.bfloat16, torch.float32)]
        for side in products:
            side()
        ratios = sorted(products[1]() / products[0]() for _ in range(3))
        return [f"The five products alone are {ratios[1]:.2f} times as fast in bfloat16."]

    yield Sides(lambda: 1 / rounded(), lambda: 1 / exact(), notes)


DEAD_IN = 20


@compared(
    what="The step of train_topk with AuxK, a twentieth of the latents dead",
    against="The same step without AuxK",
    unit="s",
    target=Target("at most", 1.25),
    how="As train_topk. AuxK may take 384 dead latents of a token, half as many as a row has "
    "dimensions; the same 307 are dead before every step, whatever they did in the last.",
    floor="Four products of 2,048 rows with 307 latents, 3.9 GFLOP next to the 19.3 of the code, "
    "and about ten passes over 2,048 × 307 and 2,048 × 768 numbers: about 1.1.",
    repetitions=7,
)
def train_auxk(bench: Bench) -> Iterator[Sides]:
    k = bench.size(32, 8)
    _, helped = step(bench, "topk", k=k, auxk=bench.size(384, 8))
    without, _ = step(bench, "topk", k=k)
    batch = next(helped.reading.batches(helped.settings.batch_size, 0))

    def with_dead(share: int) -> Side:
        def work() -> None:
            helped.idle[::share] = helped.dead_after
            train_step(helped, helped.reading.rows(batch, "cpu"))

        return seconds(work)

    def notes() -> list[str]:
        more = with_dead(DEAD_IN // 4)
        more()
        ratios = sorted(more() / without() for _ in range(5))
        return [f"With a fifth of the latents dead it takes {ratios[2]:.2f} times as long."]

    yield Sides(with_dead(DEAD_IN), without, notes)


@compared(
    what="Three dictionaries of 768 → 6,144 trained in one pass over a store",
    against="The steps of the three alone, on a batch in memory",
    unit="s",
    target=Target("at most", 1.05),
    how="TopK, BatchTopK and ReLU without a penalty, 8 steps of 2,048 rows each a repetition, from "
    "a store with the default codec, page cache warm, in rkstore.training.train.train_all; from "
    "the arrival of the first batch to that of the last. Theirs is the same steps one by one; "
    "nothing is read.",
    floor="Reading is one pass whatever the number of dictionaries, in background threads that "
    "take cores from the steps: about 0.02 s a batch, next to 0.6 s of steps.",
)
def three_dictionaries(bench: Bench) -> Iterator[Sides]:
    steps, store = bench.size(8, 2), synthetic.store(bench, width=D_IN)
    usual = {"k": bench.size(32, 8), "l1": 0.0, "init": "random"}
    alone = [step(bench, name, **usual)[0] for name in ("topk", "batchtopk", "relu")]
    usual |= {"d_sae": bench.size(D_SAE, 512), "batch_size": BATCH}
    three = [usual | {"dictionary": name} for name in ("topk", "batchtopk", "relu")]
    yield Sides(
        lambda: timed_together(store, steps, three).seconds,
        lambda: sum(side() for side in alone for _ in range(steps)),
    )


@compared(
    what="Chunks read for eight dictionaries with different seeds, trained in one pass",
    against="The same eight, trained one by one to the same bytes",
    unit="chunks",
    target=Target("at most", 1 / 8),
    how="Counted once: every chunk read from the store. The init is tied, which reads no rows; "
    "datapoint also reads four rows a latent before training.",
    floor="One pass instead of eight is an eighth.",
    repetitions=1,
)
def many_dictionaries(bench: Bench) -> Iterator[Sides]:
    out = bench.work / "many"
    runs = [
        TrainSettings(
            store=str(synthetic.store(bench, width=D_IN)),
            init="tied",
            d_sae=512,
            k=8,
            steps=bench.size(12, 4),
            seed=seed,
            data_seed=0,
            name=str(seed),
            out=str(out),
        )
        for seed in range(8)
    ]
    seconds = []

    def chunks_of(training: Callable[[], object]) -> float:
        began = time.perf_counter()
        with counted() as chunks:
            training()
        seconds.append(time.perf_counter() - began)
        shutil.rmtree(out)
        return chunks()

    def notes() -> list[str]:
        return [f"Together they took {seconds[0]:.1f} s, one by one {seconds[1]:.1f} s."]

    yield Sides(
        lambda: chunks_of(lambda: train_all(runs)),
        lambda: chunks_of(lambda: [train(one) for one in runs]),
        notes,
    )


DICTIONARIES, STEPS, BATCH_ROWS = 5, 100, 1024
LAYER, SMALL_D_SAE = 6, 2048


@compared(
    what=f"{DICTIONARIES} dictionaries of {STEPS} steps from a store, the harvest included",
    against="The same with the activations recomputed for every batch",
    unit="s",
    target=Target("at most", 1.0),
    how="The demo model, layer 6, TopK with 2,048 latents, batches of 1,024 rows, with as many "
    "tokens harvested as one dictionary sees. Costs are measured per token and per step (16 steps "
    "a repetition, waiting for the batch included) and multiplied, because they do not change with "
    "the number of steps. Theirs stops the model after the layer and computes no logits.",
    floor="Both sides include the training step. The demo model is so small that a batch of "
    "its activations costs little next to a step: the larger the model, the smaller the ratio.",
)
def end_to_end(bench: Bench) -> Iterator[Sides]:
    steps = bench.size(16, 2)
    harvest = harvests.demo(bench, str(LAYER), bench.size(16_384, 8192), "demo-layer")
    store = run(harvest)
    [name] = store.hook_names
    again = dataclasses.replace(harvest, out=bench.work / "demo-layer-again")
    harvesting = harvests.harvesting(again)
    bridge = harvests.plain_bridge(EMBEDDED_PATH, "float32")
    blocks: Any = torch.from_numpy(harvest.blocks.ids).long()

    def recomputed(*_: object, **__: object) -> Iterator[Batch]:
        """Batches of activations, each from the model when it is asked for."""
        for ids in itertools.cycle(blocks.split(BATCH_ROWS // blocks.shape[1])):
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(
                    ids, return_type=None, names_filter=[name], stop_at_layer=LAYER + 1
                )
            x = cache[name].reshape(ids.numel(), -1).numpy()
            yield Batch(np.arange(len(x)), {name: x})

    per_token, per_stored, per_fresh = [], [], []

    def from_store() -> float:
        per_token.append(1 / harvesting())
        per_stored.append(timed(store.root, SMALL_D_SAE, steps).seconds / steps)
        return STEPS * (BATCH_ROWS * per_token[-1] + DICTIONARIES * per_stored[-1])

    def from_model() -> float:
        per_fresh.append(timed(store.root, SMALL_D_SAE, steps, recomputed).seconds / steps)
        return STEPS * DICTIONARIES * per_fresh[-1]

    def notes() -> list[str]:
        token, slow, fast = map(statistics.median, (per_token, per_fresh, per_stored))
        saved = slow - fast
        pays = (
            f"the harvest pays for itself after {BATCH_ROWS * token / saved:.1f} dictionaries"
            if saved > 0
            else "the harvest never pays for itself here"
        )
        return [
            f"Medians: {1e6 * token:.0f} µs to harvest a token, {1e3 * fast:.1f} ms for a step "
            f"from the store, {1e3 * slow:.1f} ms for a step that runs the model; {pays}.",
        ]

    yield Sides(from_store, from_model, notes)
