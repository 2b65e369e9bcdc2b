"""The tokens that a report shows, numbered anew: a model's vocabulary is far larger than a text's.

A token is a string, or a list of bytes if it is only a part of a character.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.report.page.scripts import column, script
from rkstore.store.batches.kept import special_ids
from rkstore.store.readable import Readable

Ids = NDArray[np.int64]

# Ids of up to this many tokens take two bytes each.
SHORT = 65_535


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Some tokens of a tokenizer: the page's number of a token is its place in ``ids``."""

    ids: Ids
    """The tokenizer's ids, ascending."""
    pieces: tuple[str | list[int], ...]
    """What each is: a string with the space that it begins with, or bytes."""
    special: tuple[int, ...]
    """The page's numbers of special tokens."""
    bos: int | None
    """The page's number of the token that begins a block."""

    @classmethod
    def of(cls, ids: Ids, store: Readable) -> "Vocabulary":
        """The vocabulary of some tokens, in any order and with repeats.

        Raises:
            BadInput: the store has no tokenizer.
        """
        if not store.has_words:
            raise BadInput(
                f"the store at {store.where} has no tokenizer, and a report shows what its tokens "
                "are: harvest it again, with a fast tokenizer (tokenizer.json)"
            )
        some = np.unique(ids)
        special = special_ids(store)
        bos = (store.manifest.source.get("tokenizer") or {}).get("bos_token_id")
        places = {int(id): place for place, id in enumerate(some)}
        return cls(
            some,
            tuple(store.words.pieces(some.tolist())),
            tuple(places[id] for id in special if id in places),
            places.get(bos) if isinstance(bos, int) else None,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kind(self) -> str:
        """The type of a number of a token, one more than there are included."""
        return "u2" if len(self) <= SHORT else "u4"

    def numbers(self, ids: NDArray[np.signedinteger]) -> Ids:
        """The page's numbers of tokens that are all known."""
        return np.searchsorted(self.ids, ids).astype(np.int64)

    def script(self) -> bytes:
        """The file of the page: what each is, and the tokenizer's own numbers."""
        return script("vocab", list(self.pieces), column(self.ids, "u4"))


def in_parts(values: Sequence[int] | Ids, size: int) -> list[slice]:
    """Slices of that many values each, for a file each."""
    return [slice(first, first + size) for first in range(0, len(values), size)]
