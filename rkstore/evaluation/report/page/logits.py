"""What latents write toward: tokens whose logits they raise and lower."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.report.page.tally import Sums
from rkstore.evaluation.samples.codes import Segment
from rkstore.evaluation.samples.looking import Looking
from rkstore.evaluation.unembedding import LEAVE_OUT, Unembedding, directions, path_of

if TYPE_CHECKING:
    from rkstore.evaluation.functional import Loaded

# For each latent some tokens and values: `(d_sae, most)` each, the strongest first.
Ranked = tuple[NDArray[np.int64], NDArray[np.float64]]

# Logits that are computed at once: 64 MB, of which some copies are made.
AT_ONCE = 2**24

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


@dataclass(frozen=True, eq=False)
class Effects:
    """The logits of every latent, computed some latents at a time."""

    unembedding: Unembedding
    directions: Tensor
    """In the residual stream, of norm 1 or 0, ``(d_sae, d_model)``."""
    tokens: int
    """The first so many of the vocabulary are tokens: models pad it."""
    path: str

    @classmethod
    def of(
        cls, dictionary: Dictionary, models: "Sequence[Loaded]", tokens: int | None
    ) -> "Effects":
        """The effects of a dictionary's latents on the logits of its model.

        Args:
            tokens: of the tokenizer; the whole vocabulary if that is not known.

        Raises:
            BadInput: there are two models; or no path to the logits is known.
        """
        if len(models) != 1:
            raise BadInput(
                "the latents write to two models, and each has logits of its own, which cannot be "
                f"shown as one: {LEAVE_OUT}"
            )
        unembedding = Unembedding.of(models[0])
        path = path_of(dictionary, models[0])
        most = min(tokens or unembedding.vocabulary, unembedding.vocabulary)
        return cls(unembedding, directions(dictionary, models[0]), most, path)

    def logits(self, following: Sums) -> Logits:
        """What is shown of them; goes once through all, and shows a bar.

        Args:
            following: sums of activation by ``latent * tokens + the token that follows``.
        """
        mean, spread = self._of_tokens()
        key, mass, _ = following.found()
        latent, token = key // self.tokens, key % self.tokens
        parts: list[tuple[Ranked, Ranked, Ranked, Ranked]] = []
        score = np.zeros(len(self.directions))
        for first, raw in self._blocks():
            z = (raw - mean) / spread
            some = slice(*np.searchsorted(latent, (first, first + len(raw))))
            at = z[latent[some] - first, token[some]].double().numpy()
            score += np.bincount(latent[some], at * mass[some], len(score))
            raw -= raw.mean(dim=1, keepdim=True)
            raw /= _no_zero(raw.square().mean(dim=1, keepdim=True).sqrt())
            parts.append((_top(z), _top(z, -1), _top(raw), _top(raw, -1)))
        whole = np.bincount(latent, mass, len(score))
        score = np.divide(score, whole, out=np.zeros(len(score)), where=whole > 0)
        raised, lowered, raised_raw, lowered_raw = map(_joined, zip(*parts, strict=True))
        return Logits(raised, lowered, raised_raw, lowered_raw, score, self.path)

    def _of_tokens(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the latents, of the logit of each token."""
        centre = self.directions.mean(dim=0, keepdim=True)
        # Rows with the same second moments as all latents, and far fewer.
        few = torch.linalg.qr(self.directions - centre, mode="r").R
        squares = self._raw(few).square_().sum(dim=0) / len(self.directions)
        return self._raw(centre)[0], _no_zero(squares.sqrt())

    def _raw(self, rows: Tensor) -> Tensor:
        step = max(1, AT_ONCE // self.unembedding.vocabulary)
        parts = [
            self.unembedding.logits(some)[:, : self.tokens] for some in torch.split(rows, step)
        ]
        return torch.cat(parts).cpu()

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        step = max(1, AT_ONCE // self.unembedding.vocabulary)
        count = len(self.directions)
        with tqdm(total=count, unit="latent", desc="logits", disable=None) as bar:
            for first in range(0, count, step):
                raw = self._raw(self.directions[first : first + step])
                yield first, raw
                bar.update(len(raw))


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


def _top(z: Tensor, sign: int = 1) -> Ranked:
    """The tokens of the largest values, or of the lowest, of each row."""
    found = (sign * z).topk(min(TOKENS, z.shape[1]), dim=1)
    return found.indices.numpy(), sign * found.values.double().numpy()


def _joined(parts: Iterable[Ranked]) -> Ranked:
    tokens, values = zip(*parts, strict=True)
    return np.concatenate(tokens), np.concatenate(values)


def _no_zero(spread: Tensor) -> Tensor:
    """One where there is no spread: what is divided by it is zero then."""
    return torch.where(spread > 0, spread, 1.0)
