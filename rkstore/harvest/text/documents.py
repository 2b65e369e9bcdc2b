"""Documents and their numbers, from every source of text."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

# The number that identifies a document in its source, and its text.
Document = tuple[int, str]

# A row's number, and what its column holds: a text, token ids or a chat.
Row = tuple[int, Any]


@dataclass(frozen=True)
class Text:
    """Documents in reading order, and their source for the manifest.

    A document's number is that of its file in the list, or of its row in the split: it is counted
    before anything is shuffled, sliced or skipped, so that it identifies the source.
    """

    documents: Iterator[Row]
    source: dict[str, Any]
    sae_lens: dict[str, Any] = field(default_factory=dict)
    """What SAELens' ``sae_lens.json`` says of a set that it tokenised; empty for any other."""
    ids: dict[int, str | int] = field(default_factory=dict)
    """Own ids of the documents read so far, by number, if a column of them is asked for."""


def shuffled(items: Sequence[T], seed: int) -> list[tuple[int, T]]:
    """Items and their numbers in the order of a seed; 0 keeps their order."""
    numbered = list(enumerate(items))
    return random.Random(seed).sample(numbered, len(numbered)) if seed else numbered


def reading_order(rows: range, seed: int) -> NDArray[np.int64]:
    """The numbers of rows, which may be many, in the order of a seed; 0 keeps their order."""
    numbers = np.array(rows, np.int64)
    return numbers[np.random.default_rng(seed).permutation(len(numbers))] if seed else numbers
