"""Two tokenizers, one text: rows are paired whose tokens end at the same character.

Both models have then read the document up to the same character, each from the beginning of its
own block. The text of each document is rebuilt from the tokens of the first store and tokenised
for the second model, which reads all of it; only the paired rows are stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest.load import load_tokenizer
from rkstore.harvest.model import Model, tokenizer_sha256
from rkstore.harvest.tokens import DOCUMENTS_AT_ONCE, BlockBatch, TokenBlocks, cut, digest
from rkstore.store.manifest import PARTNER_ROW
from rkstore.store.store import Store

# Ids of the tokens of a text, and one past the last character of each.
Ends = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class AlignedBlocks(TokenBlocks):
    """What the second model reads, and which of it is stored."""

    partner: NDArray[np.int64]
    """The row of the first store that each token is paired with, ``(blocks, context_size)``; -1
    for none."""

    @cached_property
    def _stored(self) -> NDArray[np.int64]:
        """The tokens that become rows, counted through all blocks."""
        return np.flatnonzero(self.partner.ravel() >= 0)

    @property
    def rows(self) -> int:
        return len(self._stored)

    @property
    def rows_in_block(self) -> int:
        """1: as not all tokens are stored, a row says nothing of the next one."""
        return 1

    @property
    def more_columns(self) -> tuple[str, ...]:
        return (PARTNER_ROW,)

    @property
    def sha256(self) -> str:
        """Digest of the token ids of the rows."""
        return digest(self.ids.ravel()[self._stored])

    def batches(self, first: int, last: int, size: int) -> Iterator[BlockBatch]:
        """The batches of ``size`` blocks with rows ``first`` to ``last``.

        Batches begin at multiples of ``size`` whatever the rows, so a resumed harvest computes the
        same ones. Those without a row are not computed.
        """
        tokens = size * self.context_size
        stored = self._stored[first:last]
        numbers, begins = np.unique(stored // tokens, return_index=True)
        for number, begin, end in zip(numbers, begins, [*begins[1:], len(stored)], strict=True):
            here, after = stored[begin:end], self._stored[first + end : first + end + 1]
            block = int(number) * size
            yield BlockBatch(
                block,
                self.ids[block : block + size],
                {
                    "token_id": self.ids.ravel()[here],
                    "document": self.document.ravel()[here],
                    "position": here % self.context_size,
                    PARTNER_ROW: self.partner.ravel()[here],
                },
                here - int(number) * tokens,
                cut=bool((after // tokens == number).any()),
            )


def aligned_blocks(
    partner: Store, blocks: TokenBlocks, model: Model, tokenizer: str | None
) -> AlignedBlocks:
    """The text of a store in blocks for another model, and the rows that are paired.

    Args:
        blocks: those of the store.
        tokenizer: Hub name or directory of the store's; by default, its model's.

    Raises:
        BadInput: the tokenizer of the store is not at hand or is another one; one of the two does
            not say where its tokens are in the text; the model has no BOS for the store's blocks;
            or no rows could be paired.
    """
    source = partner.manifest.source
    prepend_bos = bool((source.get("tokens") or {}).get("prepend_bos"))
    if prepend_bos and model.bos is None:
        raise BadInput(
            f"every block of {partner.where} begins with BOS, and {model.name} has no such token"
        )
    theirs = _Encoder(_tokenizer_of(partner, tokenizer), partner.where)
    ours = _Encoder(model.tokenizer, model.name)
    texts = _texts(blocks, theirs, source["tokenizer"].get("bos_token_id"))
    documents, ids, rows = _aligned(texts, ours, blocks.rows)
    if not (rows >= 0).any():
        raise BadInput(
            f"no token of {model.name} ends where one of {partner.where} does: nothing to store"
        )
    # Cut by index, so that ids and rows stay together; -1 is BOS.
    own = blocks.context_size - prepend_bos
    index = cut(
        iter(documents),
        separator=None if model.bos is None else -1,
        context_size=blocks.context_size,
        prepend_bos=prepend_bos,
        tokens=-(-(len(ids) + len(documents)) // own) * blocks.context_size,
    )
    text = index.ids >= 0
    found = AlignedBlocks(
        np.where(text, ids[index.ids], model.bos or 0).astype(np.int32),
        index.document,
        np.where(text, rows[index.ids], -1),
    )
    if not found.rows:
        raise BadInput(f"no whole block of {model.name} has a row to pair: harvest more tokens")
    return found


def _tokenizer_of(partner: Store, name: str | None) -> Any:
    """The tokenizer with which a store was harvested."""
    source = partner.manifest.source
    model = source.get("model") or {}
    known = name or str(model.get("name"))
    try:
        tokenizer = load_tokenizer(known, None if name else model.get("revision"))
    except RkstoreError:
        raise BadInput(
            f"--align text needs the tokenizer of {partner.where}, and '{known}' cannot be loaded: "
            "give --partner-tokenizer DIR"
        ) from None
    if tokenizer_sha256(tokenizer) != source["tokenizer"]["sha256"]:
        raise BadInput(
            f"the tokenizer {known} is not that of {partner.where}: give --partner-tokenizer DIR"
        )
    return tokenizer


class _Encoder:
    """A tokenizer that also says at which character each token ends."""

    def __init__(self, tokenizer: Any, whose: str) -> None:
        from tokenizers import Tokenizer, processors

        if not getattr(tokenizer, "is_fast", False):
            raise BadInput(
                f"the tokenizer of {whose} does not say where in a text its tokens are, which "
                "--align text needs: it must be a fast one, with a tokenizer.json"
            )
        self.unknown: int | None = tokenizer.unk_token_id
        """The token of what is in no other one, whose text is lost."""
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        # A spelled-out special token is ordinary text, as in Model.encode.
        self._backend.encode_special_tokens = True
        # Some leave spaces out of the place of a token; this one does not, and adds no tokens.
        self._backend.post_processor = processors.ByteLevel(trim_offsets=False)

    def encode(self, texts: Sequence[str]) -> list[Ends]:
        """Tokens and ends in each text."""
        found = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(one.ids, np.int64), np.array([end for _, end in one.offsets], np.int64))
            for one in found
        ]

    def decode(self, ids: Sequence[NDArray[np.int32]]) -> list[str]:
        """The text of each list of tokens."""
        lists = [one.tolist() for one in ids]
        texts: list[str] = self._backend.decode_batch(lists, skip_special_tokens=False)
        return texts


@dataclass(frozen=True)
class _Text:
    """The text of a document, and where rows of the store end in it."""

    document: int
    text: str
    rows: NDArray[np.int64]
    ends: NDArray[np.int64]


def _texts(blocks: TokenBlocks, theirs: _Encoder, bos: int | None) -> Iterator[list[_Text]]:
    """The text of each document of a store, many documents at once."""
    ids, document = blocks.ids.ravel(), blocks.document.ravel()
    # BOS never stands for text: a spelled-out one is other tokens.
    rows = np.flatnonzero(ids != (-1 if bos is None else bos))
    edges = np.flatnonzero(np.diff(document[rows])) + 1
    known = (_until(some, ids[some] == theirs.unknown) for some in np.split(rows, edges))
    of_each = [some for some in known if len(some)]
    for start in range(0, len(of_each), DOCUMENTS_AT_ONCE):
        group = of_each[start : start + DOCUMENTS_AT_ONCE]
        texts = theirs.decode([ids[some] for some in group])
        yield [
            _verified(int(document[some[0]]), text, some, ids[some], again)
            for some, text, again in zip(group, texts, theirs.encode(texts), strict=True)
        ]


def _verified(
    document: int,
    text: str,
    rows: NDArray[np.int64],
    ids: NDArray[np.int32],
    again: Ends,
) -> _Text:
    """The text as far as it gives the same tokens again: only there their ends are known.

    A document that was cut may end within a character, or with tokens that its last letters would
    not give.
    """
    found, ends = again
    length = min(len(ids), len(found))
    ends = _until(ends[:length], found[:length] != ids[:length])
    return _Text(document, text[: ends[-1] if len(ends) else 0], rows[: len(ends)], ends)


def _until(numbers: NDArray[np.int64], ending: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The numbers before the first that is marked."""
    return numbers[: ending.argmax()] if ending.any() else numbers


def _aligned(
    texts: Iterator[list[_Text]], ours: _Encoder, total: int
) -> tuple[list[tuple[int, range]], NDArray[np.int64], NDArray[np.int64]]:
    """The documents as indices of tokens, the tokens of the second model, and the row of each."""
    documents: list[tuple[int, range]] = []
    all_ids, all_rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    count = 0
    with tqdm(total=total, unit="tok", unit_scale=True, desc="align", disable=None) as bar:
        for group in texts:
            encoded = ours.encode([one.text for one in group])
            for one, (ids, ends) in zip(group, encoded, strict=True):
                if len(ids):
                    documents.append((one.document, range(count, count + len(ids))))
                    all_ids.append(ids)
                    all_rows.append(_paired(one, ends))
                    count += len(ids)
                bar.update(len(one.rows))
    return documents, np.concatenate(all_ids), np.concatenate(all_rows)


def _paired(one: _Text, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row with the same end as each token, -1 for none.

    Of several tokens in one character, only the last has read all of it.
    """
    rows = np.full(len(ends), -1, np.int64)
    _, first, second = np.intersect1d(
        _last_of_each(one.ends), _last_of_each(ends), assume_unique=True, return_indices=True
    )
    rows[_last_at(ends)[second]] = one.rows[_last_at(one.ends)[first]]
    return rows


def _last_at(ends: NDArray[np.int64]) -> NDArray[np.intp]:
    """The last token at each end; none at the beginning, which no character precedes."""
    last = np.append(ends[1:] != ends[:-1], True) if len(ends) else np.empty(0, bool)
    return np.flatnonzero(last & (ends > 0))


def _last_of_each(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return ends[_last_at(ends)]
