"""Documents and their numbers, from every source of text."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# The number that identifies a document in its source, and its text.
Document = tuple[int, str]


@dataclass(frozen=True)
class Text:
    """Documents in reading order, and their source for the manifest.

    A document's number is that of its file in the list, or of its row in the split: it is counted
    before anything is shuffled, sliced or skipped, so that it identifies the source.
    """

    documents: Iterator[Document]
    source: dict[str, Any]


def shuffled(items: Sequence[T], seed: int) -> list[tuple[int, T]]:
    """Items and their numbers in the order of a seed; 0 keeps their order."""
    numbered = list(enumerate(items))
    return random.Random(seed).sample(numbered, len(numbered)) if seed else numbered
