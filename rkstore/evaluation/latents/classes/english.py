"""Classes of the tokens of running text: how a token is written, and where it is.

A token has the class of its first character that is no white space.
"""

import string

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.latents.text import Text


def english(text: Text) -> dict[str, NDArray[np.int8]]:
    """First letter, part of a word, digit, capital, position in the context.

    First letters are told apart among tokens that begin a word, parts and capitals among tokens
    that begin with a letter, the rest among all.
    """
    first = text.first()
    own = np.array([text.text[i] if i >= 0 else "" for i in first.tolist()])
    before = np.array([text.text[i - 1] if i > 0 else "" for i in first.tolist()])
    there = first >= 0
    letter, inside = np.char.isalpha(own), np.char.isalnum(before)
    lower = np.char.lower(own)
    begins = letter & ~inside & (lower >= "a") & (lower <= "z")

    def among(those: NDArray[np.bool_], is_one: NDArray[np.bool_]) -> NDArray[np.int8]:
        return np.where(those, is_one, -1).astype(np.int8)

    found = {f"first letter {x}": among(begins, lower == x) for x in string.ascii_lowercase}
    return found | {
        "part of a word": among(letter, inside),
        "digit": among(there, np.char.isdigit(own)),
        "capital": among(letter, np.char.isupper(own)),
        "first eighth of the context": among(there, text.position < text.context_size / 8),
        "second half of the context": among(there, text.position >= text.context_size / 2),
    }
