"""Documents → token blocks: concatenated and cut into contexts."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.harvest.text.documents import Document

Encode = Callable[[list[str]], list[list[int]]]

# Documents per call of the tokenizer: enough to keep its threads busy.
DOCUMENTS_AT_ONCE = 1000

# Documents of the first call, doubled from call to call: a small store needs few.
FIRST_AT_ONCE = 16


@dataclass(frozen=True)
class BlockBatch:
    """The blocks of one forward pass, and which of their tokens become rows."""

    first: int
    """Number of the first block."""
    ids: NDArray[np.int32]
    """``(blocks, context_size)``"""
    columns: dict[str, NDArray[Any]]
    """Columns of the rows, by name."""
    rows: NDArray[np.int64] | None = None
    """The tokens stored, counted through the batch, ascending; None for all of them."""
    cut: bool = False
    """Whether the next shard stores more of its tokens."""


@dataclass(frozen=True)
class TokenBlocks:
    """What the model reads.

    ``ids`` and ``document`` are int32 of shape ``(blocks, context_size)``: the token and the number
    of the document it came from. A BOS token belongs to the document of the token after it.
    """

    ids: NDArray[np.int32]
    document: NDArray[np.int32]

    @property
    def rows(self) -> int:
        """Rows of the store."""
        return self.ids.size

    @property
    def context_size(self) -> int:
        """Tokens in a block."""
        return int(self.ids.shape[1])

    @property
    def rows_in_block(self) -> int:
        """Rows of the store that are always one block."""
        return self.context_size

    @property
    def more_columns(self) -> tuple[str, ...]:
        """Columns besides the three that every store has."""
        return ()

    def batches(self, first: int, last: int, size: int) -> Iterator[BlockBatch]:
        """The blocks of rows ``first`` to ``last``, which are whole blocks, ``size`` at a time."""
        last //= self.context_size
        for begin in range(first // self.context_size, last, size):
            here = slice(begin, min(begin + size, last))
            ids = self.ids[here]
            columns: dict[str, NDArray[Any]] = {
                "token_id": ids.reshape(-1),
                "document": self.document[here].reshape(-1),
                "position": np.broadcast_to(np.arange(self.context_size), ids.shape).reshape(-1),
            }
            yield BlockBatch(begin, ids, columns)

    @property
    def sha256(self) -> str:
        """Digest of the token ids."""
        return digest(self.ids)

    @property
    def document_sha256(self) -> str:
        """Digest of the documents' numbers."""
        return digest(self.document)

    @property
    def counts_up(self) -> bool:
        """Whether the documents are 0, 1, 2 and so on in reading order."""
        flat = self.document.ravel()
        return flat[0] == 0 and bool(np.isin(np.diff(flat), (0, 1)).all())


def whole_blocks(tokens: int, context_size: int) -> int:
    """How many whole blocks fit into ``tokens`` rows.

    Raises:
        BadInput: not even one.
    """
    if tokens < context_size:
        raise BadInput(
            f"--tokens is {tokens}, less than one block of --context-size {context_size}: "
            f"give --tokens {context_size} or more, or a smaller --context-size"
        )
    return tokens // context_size


def in_groups(texts: Iterator[Document]) -> Iterator[list[Document]]:
    """Texts to tokenise at once, with their numbers: few at first."""
    at_once = min(FIRST_AT_ONCE, DOCUMENTS_AT_ONCE)
    while group := list(itertools.islice(texts, at_once)):
        yield group
        at_once = min(2 * at_once, DOCUMENTS_AT_ONCE)


def encoded(documents: Iterator[Document], encode: Encode) -> Iterator[tuple[int, list[int]]]:
    """The tokens of each document that has any, many documents encoded at once.

    Args:
        encode: texts → token ids without special tokens.
    """
    filled = ((number, text) for number, text in documents if text.strip())
    for group in in_groups(filled):
        numbers, texts = zip(*group, strict=True)
        for number, encoded in zip(numbers, encode(list(texts)), strict=True):
            if encoded:
                yield number, encoded


def cut(
    documents: Iterator[tuple[int, Sequence[int]]],
    *,
    separator: int | None,
    context_size: int,
    prepend_bos: bool,
    tokens: int,
) -> TokenBlocks:
    """Cut documents into as many whole blocks as ``tokens`` has, or as the text has.

    Within a block one ``separator`` stands between two documents, as in GPT-2's own training.
    It never begins or ends the text of a block: where a document begins a block, the block's BOS
    already separates it; where only the separator of the next document would fit at the end of a
    block, the document before it is cut by one token, so that the separator and one token fit.
    The rest at the end, shorter than a block, is dropped.

    Args:
        documents: number and tokens of each, at least one token.
        separator: id of the BOS token; also begins each block if ``prepend_bos``.

    Raises:
        BadInput: the text has fewer tokens than one block, or ``tokens`` is less than one.
    """
    own = context_size - prepend_bos
    wanted = whole_blocks(tokens, context_size) * own
    ids: list[NDArray[np.int32]] = []
    owners: list[NDArray[np.int32]] = []
    found = read = 0
    with tqdm(total=wanted, unit="tok", unit_scale=True, desc="tokens", disable=None) as bar:
        for number, encoded in documents:
            piece = _joined(encoded, found, own, separator)
            ids.append(np.array(piece, np.int32))
            owners.append(np.full(len(piece), number, np.int32))
            found += len(piece)
            read += len(encoded)
            bar.update(min(found, wanted) - bar.n)
            if found >= wanted:
                break
    blocks = min(found, wanted) // own
    if not blocks:
        raise BadInput(
            f"the text has {read} tokens, fewer than one block of {own}: "
            "give more text, or a smaller --context-size"
        )
    stream = np.concatenate(ids)[: blocks * own].reshape(blocks, own)
    owner = np.concatenate(owners)[: blocks * own].reshape(blocks, own)
    if prepend_bos:
        stream = np.concatenate([np.full((blocks, 1), separator, np.int32), stream], axis=1)
        owner = np.concatenate([owner[:, :1], owner], axis=1)
    return TokenBlocks(stream, owner)


def _joined(encoded: Sequence[int], found: int, own: int, separator: int | None) -> Sequence[int]:
    """A document as it follows ``found`` tokens that are cut into blocks of ``own``."""
    if separator is None:
        return encoded
    begins_a_block = found % own == 0
    piece = encoded if begins_a_block else [separator, *encoded]
    if own > 1 and (found + len(piece)) % own == own - 1:
        piece = piece[:-1]
    return [] if piece == [separator] and not begins_a_block else piece


def digest(numbers: NDArray[np.int32]) -> str:
    """SHA-256 of numbers as little-endian int32."""
    return hashlib.sha256(numbers.astype("<i4").tobytes()).hexdigest()
