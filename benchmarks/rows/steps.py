"""A training step of every select and every wiring, against what its products alone take and
against SAELens: one table, a row for each entry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from harness.peer import peer, python_of
from harness.row import Bench, Sides, Target, compared
from harness.steps import LAYERS, READ, WRITTEN, products, repeated, run_of, stepping

BATCH, D_IN, D_SAE, K = 512, 768, 2048, 32


@dataclass(frozen=True)
class Kind:
    """A kind of dictionary.

    Args:
        what: it is, in words.
        options: of its training.
        lists: whether its code is so sparse that the products are sums over a list.
    """

    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    lists: bool = True


PAIRS = {"layers": LAYERS, "hook": READ, "hook_out": (WRITTEN,)}
ONE_PAIR = {"layer": "0", "hook": READ, "hook_out": (WRITTEN,)}
TWO = {"layers": "0-1", "hook": READ}
QUARTER = D_SAE // 4

KINDS = {
    "topk": Kind("TopK", {"dictionary": "topk"}),
    "batchtopk": Kind("BatchTopK"),
    "abstopk": Kind("AbsTopK", {"dictionary": "abstopk"}),
    "relu": Kind("ReLU, half the latents on", {"dictionary": "relu", "l1": 0.0}, False),
    "jumprelu": Kind("JumpReLU, half the latents on", {"dictionary": "jumprelu", "l0": 0.0}, False),
    "gated": Kind("Gated, half the latents on", {"dictionary": "gated", "l1": 0.0}, False),
    "matryoshka": Kind("BatchTopK in four prefixes", {"prefixes": (0.125, 0.25, 0.5, 1.0)}),
    "hierarchical": Kind(
        "BatchTopK in four prefixes by activation",
        {"prefixes": (0.125, 0.25, 0.5, 1.0), "prefix_order": "activations"},
    ),
    "transcoder": Kind("A transcoder", {"wiring": "transcoder"} | ONE_PAIR),
    "skip_transcoder": Kind(
        "A transcoder with a skip", {"wiring": "transcoder", "skip": True} | ONE_PAIR
    ),
    "matryoshka_transcoder": Kind(
        "A transcoder in four prefixes",
        {"wiring": "transcoder", "prefixes": (0.125, 0.25, 0.5, 1.0)} | ONE_PAIR,
    ),
    "per_layer": Kind(
        "Transcoders of four layers", {"wiring": "per-layer", "d_sae": QUARTER, "k": 8} | PAIRS
    ),
    "clt": Kind(
        "A cross-layer transcoder of four layers", {"wiring": "clt", "d_sae": QUARTER} | PAIRS
    ),
    "crosscoder": Kind(
        "A crosscoder of two sites",
        {"wiring": "crosscoder", "code_norm": "crosscoder"} | TWO,
    ),
    "decoupled": Kind(
        "A crosscoder of two sites with a code for each",
        {"wiring": "crosscoder", "code_norm": "decoupled"} | TWO,
    ),
    "dfc": Kind("A dedicated-feature crosscoder", {"wiring": "dfc"} | TWO),
    "delta": Kind("A crosscoder with a delta loss", {"wiring": "crosscoder", "delta": 1.0} | TWO),
}


def _against_products(name: str, kind: Kind) -> None:
    """Add the row of a kind."""

    def sides(bench: Bench) -> Iterator[Sides]:
        usual = {"d_sae": bench.size(D_SAE, 256), "k": bench.size(K, 4)}
        run = run_of(bench, D_IN, BATCH, **{**usual, **kind.options})
        alone, listed = products(run)
        yield Sides(stepping(run), repeated(alone), lambda: [listed])

    sides.__name__ = f"step_{name}"
    compared(
        what=f"A training step: {kind.what}, {D_SAE:,} latents, sites {D_IN} wide, {BATCH} rows",
        against="Its matrix products alone, dense" if kind.lists else "Its matrix products alone",
        unit="s",
        target=Target("at most", 0.4 if kind.lists else 1.4),
        how="As train_relu; the mean of ten steps a repetition. The products are listed below.",
        floor="Of a TopK step each alone, of the dense products, in processor time of one thread: "
        "the encoder's product 0.19, torch.topk 0.10, the four sums over the list 0.16, Adam 0.08. "
        "Together 0.53, so 0.4 is out of reach with these kernels; the rest is the constraint of "
        "the decoder, the sort by latent and passes over the rows."
        if kind.lists
        else "The products, and about twenty passes over the weights, which at this batch are "
        "three times as large as the code.",
    )(sides)


PEER_D_IN, PEER_D_SAE = 1536, 6144

# SAELens' names, and how the same is trained here.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "topk": {"dictionary": "topk"},
    "batchtopk": {"dictionary": "batchtopk"},
    "matryoshka_batchtopk": {"prefixes": (0.125, 0.25, 0.5, 1.0)},
    "abstopk": {"dictionary": "abstopk"},
    "standard": {"dictionary": "relu"},
    "gated": {"dictionary": "gated"},
    "jumprelu": {"dictionary": "jumprelu"},
}


def _against_saelens(architecture: str, options: Mapping[str, Any]) -> None:
    """Add the row of an architecture."""

    def sides(bench: Bench) -> Iterator[Sides]:
        d_sae, k, steps = bench.size(PEER_D_SAE, 256), bench.size(K, 4), bench.size(5, 1)
        run = run_of(bench, PEER_D_IN, BATCH, d_sae=d_sae, k=k, **options)
        ours = stepping(run, steps)
        batch = next(run.reading.batches(BATCH, 0))
        [x] = run.reading.rows(batch, "cpu").values()
        rows = bench.work / f"rows-{PEER_D_IN}.npy"
        np.save(rows, x.numpy())
        arguments = (architecture, rows, d_sae, k, steps)
        with peer(bench, python_of("saelens"), "saelens_steps.py", *arguments) as theirs:
            yield Sides(lambda: 1 / ours(), theirs)

    sides.__name__ = f"saelens_{architecture}"
    compared(
        what=f"Training steps of SAELens' {architecture}, {PEER_D_IN:,} → {PEER_D_SAE:,}, {BATCH} "
        "rows, float32",
        against="SAELens' trainer.step on the same rows",
        unit="steps/s",
        target=Target("at least", 2.5),
        how=f"Both train in memory on one batch, k = {K} where there is one, everything else each "
        "side's default; nothing is read and nothing logged.",
        floor="For a dense code theirs are six to nine products and ours five to seven; for a "
        "sparse one ours are one.",
    )(sides)


for _name, _kind in KINDS.items():
    _against_products(_name, _kind)
for _architecture, _options in ARCHITECTURES.items():
    _against_saelens(_architecture, _options)
