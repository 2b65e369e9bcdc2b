"""Documents → token blocks: concatenated and cut into contexts."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.harvest.text.documents import Document

Encode = Callable[[list[str]], list[list[int]]]

# Documents per call of the tokenizer: enough to keep its threads busy.
DOCUMENTS_AT_ONCE = 1000


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
        return self.ids.size

    @property
    def sha256(self) -> str:
        """Digest of the token ids."""
        return _sha256(self.ids)

    @property
    def document_sha256(self) -> str:
        """Digest of the documents' numbers."""
        return _sha256(self.document)

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


def token_blocks(
    documents: Iterator[Document],
    encode: Encode,
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
        encode: texts → token ids without special tokens.
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
        for number, encoded in _encoded(documents, encode):
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


def _encoded(documents: Iterator[Document], encode: Encode) -> Iterator[tuple[int, list[int]]]:
    """The tokens of each document that has any, many documents encoded at once."""
    filled = ((number, text) for number, text in documents if text.strip())
    while group := list(itertools.islice(filled, DOCUMENTS_AT_ONCE)):
        numbers, texts = zip(*group, strict=True)
        for number, encoded in zip(numbers, encode(list(texts)), strict=True):
            if encoded:
                yield number, encoded


def _joined(encoded: list[int], found: int, own: int, separator: int | None) -> list[int]:
    """A document as it follows ``found`` tokens that are cut into blocks of ``own``."""
    if separator is None:
        return encoded
    begins_a_block = found % own == 0
    piece = encoded if begins_a_block else [separator, *encoded]
    if own > 1 and (found + len(piece)) % own == own - 1:
        piece = piece[:-1]
    return [] if piece == [separator] and not begins_a_block else piece


def _sha256(numbers: NDArray[np.int32]) -> str:
    return hashlib.sha256(numbers.astype("<i4").tobytes()).hexdigest()
