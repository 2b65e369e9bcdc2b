"""The logits of every latent of a dictionary, by the direct path of :mod:`unembedding`.

With a report and with samples for other programs: the tokens whose logits a latent raises and
lowers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.samples.settings import LogitsSettings
from rkstore.evaluation.unembedding import LEAVE_OUT, Unembedding, directions, path_of
from rkstore.store.readable import Readable

if TYPE_CHECKING:
    from rkstore.evaluation.functional import Loaded

# For each latent some tokens and values: `(d_sae, most)` each, the strongest first.
Ranked = tuple[NDArray[np.int64], NDArray[np.float64]]

# Logits that are computed at once: 64 MB, of which some copies are made.
AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Effects:
    """The logits of every latent, computed some latents at a time."""

    unembedding: Unembedding
    directions: Tensor
    """In the residual stream, of norm 1 or 0, ``(d_sae, d_model)``."""
    tokens: int
    """The first so many of the vocabulary are tokens: models pad it."""
    path: str
    """From a latent to the logits, in words."""
    notes: tuple[str, ...] = ()
    """Why the model may not be the store's."""

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
        [loaded] = models
        unembedding = Unembedding.of(loaded)
        path = path_of(dictionary, loaded)
        most = min(tokens or unembedding.vocabulary, unembedding.vocabulary)
        return cls(unembedding, directions(dictionary, loaded), most, path, loaded.notes)

    def logits(self, rows: Tensor) -> Tensor:
        """What rows of the residual stream ``(n, d_model)`` add to the logits, ``(n, tokens)``."""
        step = max(1, AT_ONCE // self.unembedding.vocabulary)
        parts = [
            self.unembedding.logits(some)[:, : self.tokens] for some in torch.split(rows, step)
        ]
        return torch.cat(parts).cpu()

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The logits of all latents, some at a time, with the first of them; shows a bar."""
        step = max(1, AT_ONCE // self.unembedding.vocabulary)
        count = len(self.directions)
        with tqdm(total=count, unit="latent", desc="logits", disable=None) as bar:
            for first in range(0, count, step):
                raw = self.logits(self.directions[first : first + step])
                yield first, raw
                bar.update(len(raw))


def effects_on_logits(dictionary: Dictionary, store: Readable, settings: LogitsSettings) -> Effects:
    """Load the model of the store, for what the latents do to its logits.

    Raises:
        BadInput: it is not found, has other weights than the store's, or no path from the latents
            to its logits is known.
    """
    from rkstore.evaluation.functional import models_of

    models = models_of(store, settings.model, settings.device)
    tokens = (store.manifest.source.get("tokenizer") or {}).get("tokens")
    return Effects.of(dictionary.to(settings.device), models, tokens)


def strongest(logits: Tensor, most: int, sign: int = 1) -> Ranked:
    """The tokens of the largest logits of each row, or with sign -1 of the lowest."""
    found = (sign * logits).topk(min(most, logits.shape[1]), dim=1)
    return found.indices.numpy(), sign * found.values.double().numpy()


def joined(parts: Iterable[Ranked]) -> Ranked:
    """Those of some latents behind those of others."""
    tokens, values = zip(*parts, strict=True)
    return np.concatenate(tokens), np.concatenate(values)
