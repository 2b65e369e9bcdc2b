"""Classes of the tokens of Python text, by Python's own tokenizer.

A token has the class of its first character that is no white space. Text is read up to the first
place where Python's tokenizer finds an error; the tokens from there on have no class. In a document
that is cut off this is mostly its last line; in one that is no Python, nearly all of it.
"""

import io
import keyword
import token as kinds
import tokenize
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.latents.text import Text

# What a character is.
UNREAD, SPACE, OTHER, KEYWORD, OPERATOR, NAME, NAME_AFTER_DEF, STRING, COMMENT, INDENTATION = range(
    -1, 9
)

# Depths of brackets that are told apart: at least so many are open.
DEPTHS = (1, 2, 3)

# From Python 3.12 on a formatted string is several tokens, strings may be inside it.
OPENING = {getattr(kinds, f"{x}STRING_START", None) for x in "FT"} - {None}
CLOSING = {getattr(kinds, f"{x}STRING_END", None) for x in "FT"} - {None}

Piece = tuple[int, int, int, int]


def python(text: Text) -> dict[str, NDArray[np.int8]]:
    """Keyword, operator, name after def, indentation, in string, in comment, depth of brackets."""
    kind, depth = _painted(text.text)
    first = text.first()
    there = first >= 0
    own = np.where(there, kind[first], UNREAD)
    deep = depth[first]
    read = own != UNREAD

    def against_all(is_one: NDArray[np.bool_]) -> NDArray[np.int8]:
        return np.where(read, is_one, -1).astype(np.int8)

    names = (own == NAME) | (own == NAME_AFTER_DEF)
    found = {
        "keyword": against_all(own == KEYWORD),
        "operator": against_all(own == OPERATOR),
        "name after def": np.where(names, own == NAME_AFTER_DEF, -1).astype(np.int8),
        "indentation": against_all(_all_space(text) & (kind[text.end - 1] == INDENTATION)),
        "in string": against_all(own == STRING),
        "in comment": against_all(own == COMMENT),
    }
    return found | {f"bracket depth {n}+": against_all(deep >= n) for n in DEPTHS}


def _all_space(text: Text) -> NDArray[np.bool_]:
    spans = zip(text.begin.tolist(), text.end.tolist(), strict=True)
    return np.array([text.text[a:b].isspace() for a, b in spans], bool)


def _painted(text: str) -> tuple[NDArray[np.int8], NDArray[np.int16]]:
    """What each character is, and how many brackets are open there; one more at the end."""
    kind = np.full(len(text) + 1, UNREAD, np.int8)
    depth = np.zeros(len(text) + 1, np.int16)
    before, deep, new_line = 0, 0, True
    for first, stop, own, opened in _pieces(text):
        kind[before:first] = INDENTATION if new_line else SPACE
        depth[before:first] = deep
        deep = max(0, deep + min(opened, 0))
        kind[first:stop], depth[first:stop] = own, deep
        deep += max(opened, 0)
        new_line = text[stop - 1 : stop] == "\n"
        before = max(before, stop)
    return kind, depth


def _pieces(text: str) -> Iterator[Piece]:
    """Where each token of Python begins and ends, what it is, and the bracket that it opens or
    closes; up to the first error."""
    starts = np.cumsum([0, *(len(line) + 1 for line in text.split("\n"))])
    after_def, string, inside = False, 0, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
            first, stop = (
                int(starts[row - 1]) + column for row, column in (token.start, token.end)
            )
            if token.type == tokenize.ERRORTOKEN:
                return
            if token.type in OPENING:
                string, inside = (string, inside + 1) if inside else (first, 1)
            elif token.type in CLOSING:
                inside -= 1
                if not inside:
                    yield string, stop, STRING, 0
            elif not inside and first < stop <= len(text):
                own = _kind(token, after_def)
                after_def = token.type == tokenize.NAME and token.string == "def"
                if own is not None:
                    yield first, stop, own, _opened(token)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


def _kind(token: tokenize.TokenInfo, after_def: bool) -> int | None:
    """What a token of Python is; None if it is no text by itself."""
    if token.type == tokenize.NAME:
        if keyword.iskeyword(token.string):
            return KEYWORD
        return NAME_AFTER_DEF if after_def else NAME
    if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
        return None
    known = {tokenize.OP: OPERATOR, tokenize.STRING: STRING, tokenize.COMMENT: COMMENT}
    known |= dict.fromkeys((tokenize.NEWLINE, tokenize.NL), SPACE)
    return known.get(token.type, OTHER)


def _opened(token: tokenize.TokenInfo) -> int:
    if token.type != tokenize.OP:
        return 0
    return int(token.string in "([{") - int(token.string in ")]}")
