"""How a model predicts tokens with some rows replaced, compared with its clean run."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.evaluation.metrics.documents import LEAST_DOCUMENTS, interval

# The passes over the same rows: the model as it is; with reconstructions in place of the rows;
# by a random dictionary of the same shape; with zeros; with the mean of the rows measured; with
# reconstructions and their errors.
CLEAN, SPLICED, RANDOM, ZERO, MEAN = "clean", "spliced", "random", "zero", "mean"
ERRORS = "errors_kept"


Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval, which is missing if there are few documents."""

    value: float
    low: float | None = None
    high: float | None = None


def ratio(a: NDArray[Any], b: NDArray[Any], documents: Integers) -> Estimate | None:
    """``Σ a / Σ b`` over rows, each ``(n,)``; None if there is no such number.

    Args:
        documents: of each row, or whatever the interval is by.
    """
    _, of_row = np.unique(documents, return_inverse=True)
    above, below = (np.zeros(int(of_row.max()) + 1) for _ in range(2))
    np.add.at(above, of_row, a)
    np.add.at(below, of_row, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(above.sum() / below.sum())
    if not np.isfinite(value):
        return None
    if len(above) < LEAST_DOCUMENTS:
        return Estimate(value)
    return Estimate(value, *interval(above, below))


@dataclass(frozen=True)
class PerRow:
    """What a pass predicts at each row, in the order of the blocks."""

    nats: Doubles
    """Cross-entropy of the next token; NaN at the last row of a block, which has none."""
    kl: Doubles
    """``KL(clean ‖ this pass)`` in nats, over the vocabulary."""
    agrees: NDArray[np.bool_]
    """Whether the likeliest token is that of the clean run."""

    @classmethod
    def joined(cls, parts: Iterable["PerRow"]) -> "PerRow":
        """The rows of several batches."""
        parts = list(parts)
        return cls(
            np.concatenate([part.nats for part in parts]),
            np.concatenate([part.kl for part in parts]),
            np.concatenate([part.agrees for part in parts]),
        )


class Reference:
    """The clean run of some blocks, which other passes are compared with.

    Args:
        logits: ``(blocks, context_size, vocabulary)``, float32.
        tokens: ``(blocks, context_size)``.
    """

    def __init__(self, logits: Tensor, tokens: Integers) -> None:
        self._log_p = logits.log_softmax(dim=-1)
        self._tokens = torch.from_numpy(tokens).to(logits.device)

    def compared(self, logits: Tensor) -> PerRow:
        """A pass over the same blocks. Sums over the vocabulary are in float64."""
        return PerRow.joined(
            _compared(log_p, of_block.log_softmax(dim=-1), tokens)
            for log_p, of_block, tokens in zip(self._log_p, logits, self._tokens, strict=True)
        )

    def change(self, logits: Tensor) -> Tensor:
        """What a pass changes in the log probabilities, ``(blocks * context_size, vocabulary)``."""
        return (logits.log_softmax(dim=-1) - self._log_p).flatten(0, 1)

    def itself(self) -> PerRow:
        """The clean run."""
        parts = zip(self._log_p, self._tokens, strict=True)
        return PerRow.joined(_compared(log_p, log_p, tokens) for log_p, tokens in parts)


def _compared(log_p: Tensor, log_q: Tensor, tokens: Tensor) -> PerRow:
    """One block of the clean run and of another pass."""
    # Not Σ p log p - Σ p log q, whose rounding is that of the two sums.
    wide = torch.float32 if log_p.device.type == "mps" else torch.float64
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1, dtype=wide)
    nats = -log_q[:-1].gather(1, tokens[1:, None])[:, 0]
    return PerRow(
        np.append(nats.double().cpu().numpy(), np.nan),
        kl.double().cpu().numpy(),
        (log_p.argmax(dim=-1) == log_q.argmax(dim=-1)).cpu().numpy(),
    )


@dataclass(frozen=True)
class Prediction:
    """How a model predicts in one pass, mean over the rows measured; None if it overflows."""

    cross_entropy: Estimate | None
    """Nats for each next token."""
    increase: Estimate | None
    """Of the cross-entropy, over the clean run."""
    kl: Estimate | None
    """``KL(clean ‖ pass)``, nats."""
    agreement: Estimate | None
    """Share of rows whose likeliest token is that of the clean run."""
    recovered_from_zero: Estimate | None
    """``(CE_zero - CE) / (CE_zero - CE_clean)``: 1 for the identity, 0 for zeros; None if zeros do
    not raise the cross-entropy."""
    recovered_from_mean: Estimate | None
    """The same from the mean of the rows measured, which is stricter."""


@dataclass(frozen=True)
class SpliceEvaluation:
    """A dictionary's reconstructions in place of what the model computes at some sites."""

    model: str
    prefix: str
    """What the names of its sites begin with: nothing, or ``base:`` and ``chat:`` of a pair."""
    sites: tuple[str, ...]
    feedback: bool
    """Whether the dictionary read what the spliced model computed: with one site it is the same as
    what the clean run computes there. A dictionary that reads sites behind those that it writes
    cannot; it read the clean run."""
    rows: int
    """Rows measured: those spliced that are held out."""
    documents: int
    """What the intervals are by."""
    passes: Mapping[str, Prediction]
    """By pass: ``clean``, ``spliced``, ``random``, ``zero``, ``mean``, ``errors_kept``."""

    def as_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Each number of the splice under its own name, those of the random dictionary and the
        ablations under ``chance``, ``mean`` and ``zero``, and the ends of the intervals under
        ``intervals``."""
        spliced = vars(self.passes[SPLICED])
        ends = {name: (one.low, one.high) for name, one in spliced.items() if one}
        beside = {"chance": RANDOM, MEAN: MEAN, ZERO: ZERO}
        return (
            _values(self.passes[SPLICED])
            | {"clean_cross_entropy": _values(self.passes[CLEAN])["cross_entropy"]}
            | {name: _values(self.passes[p]) for name, p in beside.items() if p in self.passes}
            | {"feedback": self.feedback, "documents": self.documents, "intervals": ends}
        )


def evaluation(
    splice: tuple[str, str, tuple[str, ...], bool],
    passes: Mapping[str, PerRow],
    measured: NDArray[np.bool_],
    documents: Integers,
) -> SpliceEvaluation:
    """The numbers of one splice.

    Args:
        splice: its model, its prefix, its sites, and whether there was feedback.
        passes: with ``clean``.
        measured: which rows.
        documents: of these rows.
    """
    every = np.ones(len(documents))
    has_next = ~np.isnan(passes[CLEAN].nats[measured])
    nats = {name: np.nan_to_num(each.nats[measured]) for name, each in passes.items()}

    def recovered(name: str, ablated: str) -> Estimate | None:
        kept, lost = nats[ablated] - nats[name], nats[ablated] - nats[CLEAN]
        return ratio(kept, lost, documents) if lost.sum() > 0 else None

    found = {
        name: Prediction(
            cross_entropy=ratio(nats[name], has_next, documents),
            increase=ratio(nats[name] - nats[CLEAN], has_next, documents),
            kl=ratio(each.kl[measured], every, documents),
            agreement=ratio(each.agrees[measured], every, documents),
            recovered_from_zero=recovered(name, ZERO),
            recovered_from_mean=recovered(name, MEAN),
        )
        for name, each in passes.items()
    }
    return SpliceEvaluation(*splice, len(documents), len(np.unique(documents)), found)


def _values(prediction: Prediction) -> dict[str, float | None]:
    return {name: one.value if one else None for name, one in vars(prediction).items()}
