"""Tokens as words, by the tokenizer in a store: no model is needed, and no transformers.

A token is part of a text and not a text itself. Some begin with a space that a decoder drops at
the start of a text, and some are parts of one character. So a run of tokens is decoded as a whole,
and where its beginning matters, behind itself.
"""

import re
from collections.abc import Sequence
from functools import cache, cached_property

from rkstore.errors import BadInput, DamagedStore, one_line
from rkstore.store.attached import TOKENIZER

# The name of a byte in SentencePiece's vocabularies.
BYTE = re.compile("<0x([0-9A-F]{2})>")


class Words:
    """A tokenizer as it is kept in a store."""

    def __init__(self, content: bytes, where: str) -> None:
        """Read the tokenizer.

        Args:
            content: of ``tokenizer/tokenizer.json``.
            where: the store, for errors.

        Raises:
            DamagedStore: the library tokenizers cannot read it.
        """
        from tokenizers import Tokenizer

        self.where = where
        try:
            self._tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises Exception itself
            raise DamagedStore(
                f"{TOKENIZER} of {where} cannot be read by the library tokenizers: "
                f"{one_line(error)}; a newer version may read it"
            ) from None
        # A spelled-out special token is ordinary text, as in a harvest.
        self._tokenizer.encode_special_tokens = True

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a run of tokens, special tokens included.

        Where a character is unfinished, it is what the tokenizer makes of it, mostly ``�``.

        Raises:
            BadInput: a token is not in the tokenizer.
        """
        for id in ids:
            if id < 0 or self._tokenizer.id_to_token(id) is None:
                raise BadInput(f"token {id} is not in the tokenizer of {self.where}")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def word(self, id: int) -> str:
        """The text of one token, with the space that it begins with."""
        return self.within([id])

    def within(self, ids: Sequence[int]) -> str:
        """The text of a run of tokens within a text: as it is decoded behind itself."""
        alone, twice = self.decode(ids), self.decode([*ids, *ids])
        return twice[len(alone) :] if twice.startswith(alone) else alone

    def around(self, ids: Sequence[int], at: int) -> tuple[str, str, str]:
        """The text of a run of tokens: before the token at a place, its own, and behind it.

        A token that is part of a character has all of that character.
        """
        text = self.decode(ids)

        def length(count: int) -> int | None:
            begin = self.decode(ids[:count])
            return len(begin) if text.startswith(begin) else None

        start = next(n for k in range(at, -1, -1) if (n := length(k)) is not None)
        stop = next(n for k in range(at + 1, len(ids) + 1) if (n := length(k)) is not None)
        return text[:start], text[start:stop], text[stop:]

    def ids_of(self, text: str) -> list[tuple[int, ...]]:
        """The tokens that are exactly this text; or else the one sequence of tokens that is.

        Raises:
            BadInput: the text is empty, or the tokenizer makes no such tokens of it.
        """
        if not text:
            raise BadInput("an empty text has no tokens: give a word")
        if text in self._ids:
            return [(id,) for id in self._ids[text]]
        # Some tokenizers put a space before a text: not behind a line break.
        for before in ("", "\n"):
            found = self._tokenizer.encode(before + text, add_special_tokens=False).ids
            for start in range(len(found)):
                if self.within(found[start:]) == text:
                    return [tuple(found[start:])]
        raise BadInput(f"the tokenizer of {self.where} has no tokens that are exactly {text!r}")

    def pieces(self, ids: Sequence[int]) -> list[str | list[int]]:
        """What each of some tokens is: its text, or bytes if it is only a part of a character.

        An id that is not in the tokenizer is an empty text.
        """
        found: list[str | list[int]] = []
        for id, word in zip(ids, self._each(ids), strict=True):
            parts = self._bytes(id, word) if "\ufffd" in word else None
            found.append(word if parts is None else parts)
        return found

    def _bytes(self, id: int, word: str) -> list[int] | None:
        """The bytes of a token that is part of a character; None if it is a text of its own."""
        name = str(self._tokenizer.id_to_token(id))
        if found := BYTE.fullmatch(name):
            return [int(found[1], 16)]
        known = bytes_of_letters()
        if not all(letter in known for letter in name):
            return None
        content = bytes(known[letter] for letter in name)
        return list(content) if content.decode(errors="replace") == word else None

    def _each(self, ids: Sequence[int]) -> list[str]:
        """The text of each token within a text, as :meth:`within`."""
        known = [id >= 0 and self._tokenizer.id_to_token(id) is not None for id in ids]
        batch = [
            [id] * times if exists else []
            for times in (1, 2)
            for id, exists in zip(ids, known, strict=True)
        ]
        texts = self._tokenizer.decode_batch(batch, skip_special_tokens=False)
        pairs = zip(texts[: len(ids)], texts[len(ids) :], strict=True)
        return [twice[len(once) :] if twice.startswith(once) else once for once, twice in pairs]

    @cached_property
    def _ids(self) -> dict[str, list[int]]:
        """The tokens of each word."""
        known = sorted(self._tokenizer.get_vocab(with_added_tokens=True).values())
        found: dict[str, list[int]] = {}
        for id, word in zip(known, self._each(known), strict=True):
            found.setdefault(word, []).append(id)
        return found


@cache
def bytes_of_letters() -> dict[str, int]:
    """The letters by which byte-level BPE names bytes (GPT-2's ``bytes_to_unicode``)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}
