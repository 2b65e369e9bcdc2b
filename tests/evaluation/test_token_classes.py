"""What a token is in its text: its characters, and the classes of Python and of English."""

import itertools

import numpy as np
import pytest

from rkstore.evaluation.latents.classes import usual_classes
from rkstore.evaluation.latents.classes.english import english
from rkstore.evaluation.latents.classes.python import python
from rkstore.evaluation.latents.text import Text, pieces_of, text_of


def text(*pieces, context=128):
    """A document of these tokens."""
    ends = list(itertools.accumulate(map(len, pieces)))
    begins = [end - len(piece) for end, piece in zip(ends, pieces, strict=True)]
    position = np.arange(len(pieces)) % context
    return Text("".join(pieces), np.array(begins), np.array(ends), position, context)


def of(classes, document, name):
    """The tokens of a class, and those it is told apart from."""
    labels = classes(document)[name]
    spans = zip(document.begin, document.end, strict=True)
    pieces = [document.text[a:b] for a, b in spans]
    return [[p for p, label in zip(pieces, labels, strict=True) if label == i] for i in (1, 0)]


CODE = text(
    *("", "def", " get", "_x", "(", "a", ",", " b", "=", "'", "no", " in", "'", ")", ":", "\n"),
    *("   ", " return", " a", " if", " b", " else", " f", "([", "1", "])", " ", " #", " not", "\n"),
)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("keyword", ["def", " return", " if", " else"]),
        ("operator", ["(", ",", "=", ")", ":", "([", "])"]),
        ("indentation", ["   "]),
        ("in string", ["'", "no", " in", "'"]),
        ("in comment", [" #", " not"]),
        ("bracket depth 1+", ["a", ",", " b", "=", "'", "no", " in", "'", "1", "])"]),
        ("bracket depth 2+", ["1"]),
    ],
)
def test_python_is_what_its_own_tokenizer_says(name, tokens):
    assert of(python, CODE, name)[0] == tokens


def test_a_name_after_def_is_told_apart_from_other_names_and_may_be_several_tokens():
    assert of(python, CODE, "name after def") == [[" get", "_x"], ["a", " b", " a", " b", " f"]]


def test_a_special_token_has_no_class():
    assert all(labels[0] == -1 for labels in python(CODE).values())
    assert all(labels[0] == -1 for labels in english(CODE).values())


def test_python_has_classes_up_to_the_first_error():
    prose = text("x", " =", " 1", "\n", "don", "'", "t", " if", " you", "\n", "if", " x")
    labels = python(prose)["keyword"]
    assert labels[:4].tolist() == [0, 0, 0, 0]
    assert (labels[5:] == -1).all()


def test_a_document_that_is_cut_off_in_a_bracket_keeps_its_classes():
    cut = text("f", "(", "x", ",", " (", "y")
    assert of(python, cut, "bracket depth 2+")[0] == ["y"]
    assert of(python, text("x", "=", "'''", "if", "\n", "if"), "keyword") == [[], ["x", "="]]


def test_a_formatted_string_is_a_string_as_a_whole():
    document = text("x", "=", "f", "'", "{", "if_", "['", "a", "']", "}", " or", "'", "\n")
    found = of(python, document, "in string")[0]
    assert (found[0], found[-1]) == ("f", "'")
    assert " or" in found


WORDS = text(
    "", "The", " cat", "s", " sat", " on", " 4", "2", " Mats", ",", " Ü", "ber", " a", "\n"
)


@pytest.mark.parametrize(
    ("name", "tokens", "others"),
    [
        ("first letter s", [" sat"], ["The", " cat", " on", " Mats", " a"]),
        ("first letter t", ["The"], [" cat", " sat", " on", " Mats", " a"]),
        ("part of a word", ["s", "ber"], ["The", " cat", " sat", " on", " Mats", " Ü", " a"]),
        ("capital", ["The", " Mats", " Ü"], [" cat", "s", " sat", " on", "ber", " a"]),
    ],
)
def test_english_is_how_a_token_is_written(name, tokens, others):
    assert of(english, WORDS, name) == [tokens, others]


def test_digits_are_told_apart_from_all_tokens():
    digits, others = of(english, WORDS, "digit")
    assert digits == [" 4", "2"]
    assert len(others) == 11


def test_the_position_is_that_in_the_context():
    document = text(*"abcdefghijklmnopqrstuvwx", context=16)
    early = english(document)["first eighth of the context"]
    late = english(document)["second half of the context"]
    assert np.flatnonzero(early).tolist() == [0, 1, 16, 17]
    assert np.flatnonzero(late).tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_every_token_of_a_store_has_its_own_characters(harvested):
    for document in harvested.documents():
        found, at = text_of(harvested, document)
        assert found.text == document.text
        words = harvested.tokens(range(document.first_row, document.stop_row))
        bos = harvested.manifest.source["tokenizer"]["bos_token_id"]
        for word, id, i in zip(
            words,
            harvested["token_id", range(document.first_row, document.stop_row)],
            at,
            strict=True,
        ):
            own = found.text[found.begin[i] : found.end[i]]
            assert own == ("" if id == bos else word) or "\ufffd" in word


class Bytes:
    """A tokenizer of bytes."""

    def within(self, ids):
        return bytes(ids).decode(errors="replace")

    def word(self, id):
        return self.within([id])


def test_tokens_that_are_parts_of_a_character_have_all_of_it():
    ids = [*"aü€b".encode(), 255, *b"c"]
    pieces = list(pieces_of(Bytes(), ids, set()))
    assert pieces[:4] == [("a", 0), ("ü", 2), ("", 0), ("€", 3)]
    assert [own for own, _ in pieces[6:]] == ["b", "\ufffd", "c"]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ({"dataset": "python"}, "python"),
        ({"files": [{"name": "a.py"}, {"name": "b.py"}]}, "python"),
        ({"files": [{"name": "a.py"}, {"name": "b.txt"}]}, "english"),
        ({"dataset": "Salesforce/wikitext"}, "english"),
        (None, "english"),
    ],
)
def test_the_usual_classes_are_those_of_the_text_that_was_read(make_store, text, classes):
    store, _ = make_store(source={"model": {"name": "x"}, **({"text": text} if text else {})})
    assert usual_classes(store) == classes
