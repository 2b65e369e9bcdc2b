"""How a model predicts tokens with some rows replaced, compared with its clean run."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.evaluation.ratios import Doubles, Estimate, ratio

# The passes over the same rows: the model as it is; with reconstructions in place of the rows;
# with zeros; with the mean of the rows measured; with reconstructions and their errors.
CLEAN, SPLICED, ZERO, MEAN, ERRORS = "clean", "spliced", "zero", "mean", "errors_kept"


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

    def __init__(self, logits: Tensor, tokens: NDArray[np.int64]) -> None:
        self._log_p = logits.log_softmax(dim=-1)
        self._tokens = torch.from_numpy(tokens).to(logits.device)

    def compared(self, logits: Tensor) -> PerRow:
        """A pass over the same blocks. Sums over the vocabulary are in float64."""
        return PerRow.joined(
            _compared(log_p, of_block.log_softmax(dim=-1), tokens)
            for log_p, of_block, tokens in zip(self._log_p, logits, self._tokens, strict=True)
        )

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


@dataclass(frozen=True)
class SpliceEvaluation:
    """A dictionary's reconstructions in place of what the model computes at some sites."""

    model: str
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
    """By pass: ``clean``, ``spliced``, ``zero``, ``mean``, ``errors_kept``."""
    recovered_from_zero: Estimate | None
    """``(CE_zero - CE_spliced) / (CE_zero - CE_clean)``: 1 for the identity, 0 for zeros; None if
    zeros do not raise the cross-entropy."""
    recovered_from_mean: Estimate | None
    """The same from the mean of the rows measured, which is stricter."""

    def as_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return asdict(self)


def evaluation(
    splice: tuple[str, tuple[str, ...], bool],
    passes: Mapping[str, PerRow],
    measured: NDArray[np.bool_],
    documents: NDArray[np.int64],
) -> SpliceEvaluation:
    """The numbers of one splice.

    Args:
        splice: its model, its sites, and whether there was feedback.
        passes: with ``clean``.
        measured: which rows.
        documents: of these rows.
    """
    every = np.ones(len(documents))
    has_next = ~np.isnan(passes[CLEAN].nats[measured])
    nats = {name: np.nan_to_num(each.nats[measured]) for name, each in passes.items()}
    found = {
        name: Prediction(
            cross_entropy=ratio(nats[name], has_next, documents),
            increase=ratio(nats[name] - nats[CLEAN], has_next, documents),
            kl=ratio(each.kl[measured], every, documents),
            agreement=ratio(each.agrees[measured], every, documents),
        )
        for name, each in passes.items()
    }

    def recovered(ablated: str) -> Estimate | None:
        kept, lost = nats[ablated] - nats[SPLICED], nats[ablated] - nats[CLEAN]
        return ratio(kept, lost, documents) if lost.sum() > 0 else None

    return SpliceEvaluation(
        *splice,
        rows=len(documents),
        documents=len(np.unique(documents)),
        passes=found,
        recovered_from_zero=recovered(ZERO),
        recovered_from_mean=recovered(MEAN),
    )
