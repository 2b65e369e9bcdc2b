"""What latents write toward: tokens whose logits they raise and lower."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.evaluation.effects import Effects, Ranked, joined, strongest
from rkstore.evaluation.report.page.tally import Sums
from rkstore.evaluation.samples.codes import Segment
from rkstore.evaluation.samples.looking import Looking

# Tokens that are shown of each kind.
TOKENS = 7


@dataclass(frozen=True, eq=False)
class Logits:
    """The effect of each latent on the logits, in standard deviations, on two scales.

    Tokens are ids of the tokenizer.
    """

    raised: Ranked
    """Against all latents, token by token."""
    lowered: Ranked
    raised_raw: Ranked
    """Against all tokens: the same rare tokens lead for most latents."""
    lowered_raw: Ranked
    following: NDArray[np.float64]
    """Mean of the first scale at the token that really follows, weighted by activation."""
    path: str
    """From a latent to the logits, in words."""

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Every token that is shown, once."""
        kinds = (self.raised, self.lowered, self.raised_raw, self.lowered_raw)
        return np.unique(np.concatenate([tokens.reshape(-1) for tokens, _ in kinds]))

    def of(self, latent: int, numbers: Any) -> dict[str, Any]:
        """What the page shows of one latent.

        Args:
            numbers: ids of the tokenizer → the page's numbers.
        """

        def rows(ranked: Ranked) -> list[list[int]]:
            tokens, values = (part[latent] for part in ranked)
            return [numbers(tokens).tolist(), (10 * values).round().astype(int).tolist()]

        return {
            "logits": {
                "token": [rows(self.raised), rows(self.lowered)],
                "raw": [rows(self.raised_raw), rows(self.lowered_raw)],
            },
            "next": round(float(self.following[latent]), 3),
        }


def logits_of(effects: Effects, following: Sums) -> Logits:
    """What the page shows of all latents; shows a bar.

    Args:
        following: sums of activation by ``latent * tokens + the token that follows``.
    """
    mean, spread = _of_tokens(effects)
    key, mass, _ = following.found()
    latent, token = key // effects.tokens, key % effects.tokens
    parts: list[tuple[Ranked, Ranked, Ranked, Ranked]] = []
    score = np.zeros(len(effects.directions))
    for first, raw in effects.blocks():
        z = (raw - mean) / spread
        some = slice(*np.searchsorted(latent, (first, first + len(raw))))
        at = z[latent[some] - first, token[some]].double().numpy()
        score += np.bincount(latent[some], at * mass[some], len(score))
        raw -= raw.mean(dim=1, keepdim=True)
        raw /= _no_zero(raw.square().mean(dim=1, keepdim=True).sqrt())
        both = (strongest(z, TOKENS), strongest(z, TOKENS, -1))
        parts.append((*both, strongest(raw, TOKENS), strongest(raw, TOKENS, -1)))
    whole = np.bincount(latent, mass, len(score))
    score = np.divide(score, whole, out=np.zeros(len(score)), where=whole > 0)
    raised, lowered, raised_raw, lowered_raw = map(joined, zip(*parts, strict=True))
    return Logits(raised, lowered, raised_raw, lowered_raw, score, effects.path)


def _of_tokens(effects: Effects) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the latents, of the logit of each token."""
    centre = effects.directions.mean(dim=0, keepdim=True)
    # Rows with the same second moments as all latents, and far fewer.
    few = torch.linalg.qr(effects.directions - centre, mode="r").R
    squares = effects.logits(few).square_().sum(dim=0) / len(effects.directions)
    return effects.logits(centre)[0], _no_zero(squares.sqrt())


def following(segments: Iterable[Segment], looking: Looking, tokens: int) -> Sums:
    """The activation of each latent by the token that follows, within a block of the text."""
    source, _ = looking.store.in_text(looking.store.first_row, looking.store.first_row)
    found = Sums()
    for segment in segments:
        first, last = int(segment.text[0]), int(segment.text[-1])
        ids = source.column("token_id", first, last + 1).astype(np.int64)
        after = segment.text - first + 1
        # Segments end with a block, of which the last token has no follower.
        known = (segment.text + 1) % looking.context_size != 0
        known &= after < len(ids)
        token = np.where(known, ids[np.minimum(after, len(ids) - 1)], tokens)
        here = token[segment.place] < tokens
        key = segment.latent[here].astype(np.int64) * tokens + token[segment.place[here]]
        found.add(key, np.abs(segment.value[here], dtype=np.float64))
    return found


def _no_zero(spread: Tensor) -> Tensor:
    """One where there is no spread: what is divided by it is zero then."""
    return torch.where(spread > 0, spread, 1.0)
