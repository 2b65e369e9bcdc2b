"""Documents to token blocks: which token stands where, and whose it is."""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.harvest import tokens
from rkstore.harvest.tokens import TokenBlocks, cut, encoded

SEPARATOR = 1000

TEXTS = ["the first one", "2nd", "  \n", "", "a third, which is rather longer than the others", "4"]


def encode(texts: list[str]) -> list[list[int]]:
    """One token a character."""
    return [[ord(character) for character in text] for text in texts]


def blocks_of(texts: list[str], **options: Any) -> TokenBlocks:
    usual: dict[str, Any] = {
        "separator": SEPARATOR,
        "context_size": 8,
        "prepend_bos": True,
        "tokens": 10_000,
    }
    return cut(encoded(enumerate(texts), encode), **(usual | options))


def slow_blocks(
    texts: list[str], separator: int | None, context_size: int, prepend_bos: bool, tokens: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The same, token by token: blocks of (token, document), filled one after another."""
    blocks: list[list[tuple[int, int]]] = [[]]
    own = context_size - prepend_bos
    for number, text in enumerate(texts):
        if not text.strip():
            continue
        begun = blocks[-1] if len(blocks[-1]) < own else []
        if separator is not None and begun:
            if len(begun) == own - 1:  # room for the separator alone: make room for a token more
                begun.pop()
            if begun and begun[-1][0] == separator:  # the document before had that one token
                begun.pop()
            if begun:
                begun.append((separator, number))
        for token in encode([text])[0]:
            if len(blocks[-1]) == own:
                blocks.append([])
            blocks[-1].append((token, number))
    whole = [block for block in blocks if len(block) == own][: tokens // context_size]
    if prepend_bos:
        whole = [[(separator or 0, block[0][1]), *block] for block in whole]
    ids = [[token for token, _ in block] for block in whole]
    return ids, [[number for _, number in block] for block in whole]


def random_texts(seed: int) -> list[str]:
    """Up to twenty texts of up to twelve letters, some of them blank."""
    rng = random.Random(seed)
    return ["".join(rng.choices("abc", k=rng.randrange(13))) for _ in range(rng.randrange(1, 20))]


@pytest.mark.parametrize("context_size", [2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize(
    ("separator", "prepend_bos"), [(SEPARATOR, True), (SEPARATOR, False), (None, False)]
)
def test_blocks_are_those_of_a_slow_program_that_says_what_is_meant(
    separator, prepend_bos, context_size
):
    for seed in range(60):
        texts = random_texts(seed)
        options = {
            "separator": separator,
            "context_size": context_size,
            "prepend_bos": prepend_bos,
            "tokens": context_size + 7 * seed,
        }
        ids, documents = slow_blocks(texts, **options)
        if not ids:
            continue
        blocks = blocks_of(texts, **options)
        assert blocks.ids.tolist() == ids
        assert blocks.document.tolist() == documents
        assert blocks.rows == len(ids) * context_size


@pytest.mark.parametrize("context_size", [2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_what_holds_of_all_blocks(prepend_bos, context_size):
    seen = 0
    for seed in range(60):
        texts = random_texts(seed)
        try:
            blocks = blocks_of(texts, prepend_bos=prepend_bos, context_size=context_size)
        except BadInput:
            continue
        ids = blocks.ids
        is_separator = ids == SEPARATOR
        own = is_separator[:, 1:] if prepend_bos else is_separator
        assert not prepend_bos or is_separator[:, 0].all()
        assert not own[:, [0, -1]].any()
        assert not (own[:, 1:] & own[:, :-1]).any()
        # A separator stands where one document ends and the next begins, and nowhere else.
        changes = np.diff(blocks.document, axis=1) != 0
        np.testing.assert_array_equal(changes, is_separator[:, 1:])
        # Without the separators each document is there from its beginning, a token short at most.
        for number in np.unique(blocks.document[blocks.document < blocks.document.max()]):
            mine = ids[(blocks.document == number) & ~is_separator]
            read = "".join(map(chr, mine))
            assert texts[number] in (read, read + texts[number][-1])
        seen += 1
    assert seen > 10


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_how_many_documents_are_tokenised_at_once_does_not_matter(monkeypatch, at_once):
    expected = blocks_of(TEXTS)
    monkeypatch.setattr(tokens, "DOCUMENTS_AT_ONCE", at_once)
    blocks = blocks_of(TEXTS)
    np.testing.assert_array_equal(blocks.ids, expected.ids)
    np.testing.assert_array_equal(blocks.document, expected.document)


def test_one_separator_stands_between_two_documents_and_none_at_the_ends():
    blocks = blocks_of(["ab", "cd"], context_size=5, prepend_bos=False)
    assert blocks.ids.tolist() == [[*b"ab", SEPARATOR, *b"cd"]]
    assert blocks.document.tolist() == [[0, 0, 1, 1, 1]]


def test_every_block_begins_with_one_bos_which_belongs_to_the_document_behind_it():
    blocks = blocks_of(["abcdef", "ghi"], context_size=4)
    assert blocks.ids.tolist() == [
        [SEPARATOR, *b"abc"],
        [SEPARATOR, *b"def"],
        [SEPARATOR, *b"ghi"],
    ]
    assert blocks.document.tolist() == [[0] * 4, [0] * 4, [1] * 4]


def test_a_block_does_not_end_in_the_separator_of_a_document_in_the_next():
    for prepend_bos in (True, False):
        blocks = blocks_of(["abc", "defg"], context_size=4 + prepend_bos, prepend_bos=prepend_bos)
        # There was room for one more behind abc: it is one shorter, so that there is for two.
        assert blocks.ids[:, prepend_bos:].tolist() == [[*b"ab", SEPARATOR, *b"d"]]
        assert blocks.document[0, prepend_bos:].tolist() == [0, 0, 1, 1]


def test_documents_keep_their_numbers_whatever_is_passed_over():
    blocks = cut(
        encoded(iter([(7, "ab"), (3, "  "), (9, "cd"), (1, "efgh")]), encode),
        separator=SEPARATOR,
        context_size=5,
        prepend_bos=False,
        tokens=10,
    )
    assert blocks.document.tolist() == [[7, 7, 9, 9, 9]]
    assert not blocks.counts_up


def test_documents_count_up_where_none_is_passed_over_or_moved():
    assert blocks_of(["ab", "cd", "efg"], context_size=3).counts_up
    assert not blocks_of([" ", "cd", "efg"], context_size=3).counts_up
    assert not blocks_of(["ab", "", "efg"], context_size=3).counts_up


def test_tokens_and_documents_are_int32():
    blocks = blocks_of(TEXTS)
    assert blocks.ids.dtype == blocks.document.dtype == np.int32


def test_what_is_left_behind_the_last_whole_block_is_dropped():
    assert blocks_of(["a" * 23], context_size=8, prepend_bos=False).ids.shape == (2, 8)


def test_no_more_text_is_read_than_is_needed(monkeypatch):
    monkeypatch.setattr(tokens, "DOCUMENTS_AT_ONCE", 2)
    read = []

    def documents() -> Iterator[tuple[int, str]]:
        for number in range(100):
            read.append(number)
            yield number, "abcdefgh"

    cut(encoded(documents(), encode), separator=0, context_size=8, prepend_bos=False, tokens=16)
    assert len(read) == 2


def test_a_small_store_tokenises_few_documents_and_a_large_one_many_at_once():
    def sizes(rows: int) -> list[int]:
        found: list[int] = []

        def counted(texts: list[str]) -> list[list[int]]:
            found.append(len(texts))
            return encode(texts)

        texts = enumerate(["abcdefgh"] * 20_000)
        how: dict[str, Any] = {"separator": None, "context_size": 8, "prepend_bos": False}
        cut(encoded(texts, counted), **how, tokens=rows)
        return found

    assert sizes(8 * 10) == [16]
    assert sizes(8 * 3_000) == [16, 32, 64, 128, 256, 512, 1000, 1000]


@pytest.mark.parametrize("texts", [["abc", "d"], ["abcdef"], ["", " "], []])
def test_text_of_less_than_one_block_is_refused_with_both_numbers(texts):
    found = len("".join(texts).strip())
    with pytest.raises(BadInput, match=f"{found} tokens.*one block of 7"):
        blocks_of(texts, context_size=8)


@pytest.mark.parametrize("tokens_wanted", [1, 7])
def test_less_than_one_block_cannot_be_asked_for(tokens_wanted):
    with pytest.raises(BadInput, match=f"tokens is {tokens_wanted}.*size 8.*tokens 8 or more"):
        blocks_of(["a" * 100], context_size=8, tokens=tokens_wanted)


def test_the_digest_is_that_of_the_tokens():
    a, b = blocks_of(TEXTS), blocks_of(TEXTS)
    assert a.sha256 == b.sha256 == hashlib.sha256(a.ids.astype("<i4").tobytes()).hexdigest()
    assert blocks_of([*TEXTS[:-1], "5"] * 2).sha256 != blocks_of(TEXTS * 2).sha256
