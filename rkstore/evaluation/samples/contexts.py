"""The tokens around samples, and where in the text they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.samples.samples import Ints, Samples
from rkstore.store.finding import SPAN_ROWS
from rkstore.store.readable import Readable

# The token of a place outside of the block.
NONE = -1


@dataclass(frozen=True, eq=False)
class Contexts:
    """What is in the text around each of ``n`` samples."""

    tokens: NDArray[np.int32]
    """Token ids around, ``(n, before + 1 + after)``; -1 outside of the block."""
    document: NDArray[np.int32]
    position: NDArray[np.int32]
    """Document of each sample, and its position in the block, ``(n,)``."""
    before: int

    @property
    def token(self) -> NDArray[np.int32]:
        """The token of each sample itself, ``(n,)``."""
        return self.tokens[:, self.before]

    def ids(self, sample: int) -> list[int]:
        """The tokens around one sample that are in its block."""
        own = self.tokens[sample]
        return [int(id) for id in own[own != NONE]]

    def at(self, sample: int) -> int:
        """The place of a sample among its tokens."""
        return int((self.tokens[sample, : self.before] != NONE).sum())


def contexts(store: Readable, samples: Samples) -> Contexts:
    """The tokens around samples of this store; no activation is read.

    Raises:
        BadInput: the samples are of another store.
    """
    if samples.fingerprint != store.manifest.fingerprint:
        raise BadInput(
            f"the samples are of the store with fingerprint {samples.fingerprint}, and that of "
            f"{store.where} is {store.manifest.fingerprint}: give the one that they are of"
        )
    count, width = samples.around.shape
    tokens = np.full((count, width), NONE, np.int32)
    document, position = np.empty(count, np.int32), np.empty(count, np.int32)
    order = np.argsort(samples.row, kind="stable")
    ascending = samples.row[order]
    at = 0
    while at < count:
        first = int(ascending[at])
        end = int(np.searchsorted(ascending, first + SPAN_ROWS))
        some, at = order[at:end], end
        text, rows = store.in_text(first, int(ascending[end - 1]) + 1)
        here = rows[samples.row[some] - first]
        begin = max(text.first_row, int(here[0]) - samples.before)
        stop = min(text.stop_row, int(here[-1]) + samples.after + 1)
        ids = text.column("token_id", begin, stop)
        places = here[:, None] + np.arange(-samples.before, samples.after + 1)
        block = text.manifest.context_size
        inside = places // block == (here // block)[:, None]
        inside &= (places >= begin) & (places < stop)
        tokens[some] = np.where(inside, ids[np.clip(places, begin, stop - 1) - begin], NONE)
        document[some] = text.column("document", begin, stop)[here - begin]
        position[some] = text.column("position", begin, stop)[here - begin]
    return Contexts(tokens, document, position, samples.before)


def words_of(store: Readable, ids: Ints | NDArray[np.int32]) -> dict[int, str]:
    """The words of some tokens, each once, by id."""
    return {int(id): store.words.word(int(id)) for id in np.unique(ids) if id != NONE}
