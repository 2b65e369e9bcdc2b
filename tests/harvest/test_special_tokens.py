"""A special token that is written out in a text is text: nobody can forge the end of a document."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import END, write_model

from rkstore.harvest.model import Model
from rkstore.harvest.tokens import cut, encoded


def sentencepiece_model(root: Path) -> Path:
    """A SentencePiece model of Llama's kind, which has <s>, </s> and <unk>."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (root / "text.txt").write_text(
        "the cat sat on a mat\n" * 50 + "".join(map(chr, range(33, 127)))
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(root / "text.txt"),
        model_prefix=str(root / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=9,
    )
    return root / "tokenizer.model"


def gpt2(root: Path) -> Any:
    from transformers import AutoTokenizer

    write_model(root, "the cat sat on a mat")
    return AutoTokenizer.from_pretrained(root)


def llama(root: Path) -> Any:
    from transformers import AutoTokenizer

    sentencepiece_model(root)
    (root / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (root / "config.json").write_text('{"model_type": "llama"}')
    return AutoTokenizer.from_pretrained(root)


def slow(root: Path) -> Any:
    """One that is written in Python, around SentencePiece."""
    from transformers import GPTSw3Tokenizer

    return GPTSw3Tokenizer(str(sentencepiece_model(root)))


def byte_level(_: Path) -> Any:
    """One that is written in Python from end to end."""
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


@pytest.fixture(params=[gpt2, llama, slow, byte_level])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = request.param(tmp_path)
    # One that a user added stands for the hundreds that chat models have.
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    return made


def encoder(tokenizer: Any) -> Callable[[list[str]], list[list[int]]]:
    return lambda texts: Model.encode(SimpleNamespace(tokenizer=tokenizer), texts)  # type: ignore[arg-type]


def test_no_text_has_a_special_token(tokenizer):
    named = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = {*named, *tokenizer.all_special_tokens}
    assert "<|turn|>" in names
    assert len(names) > 1
    special = set(tokenizer.convert_tokens_to_ids(sorted(names)))
    texts = [f"the{gap}{name}{gap}cat{name}" for name in sorted(names) for gap in ("", " ", "\n")]
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert all(special & set(ids) for ids in plain), "this text would not show it"
    # What a tokenizer has no token for is its unknown token; these have one for every byte.
    unknown = tokenizer.convert_tokens_to_ids(tokenizer.unk_token) if tokenizer.unk_token else None
    for ids, text in zip(encoder(tokenizer)(texts), texts, strict=True):
        assert not (special - {unknown}) & set(ids), text
        assert "cat" in tokenizer.decode(ids)


def test_a_text_without_them_has_the_tokens_that_it_always_had(tokenizer):
    texts = ["the cat sat", " on\na <mat> | über", "<", "the <| cat"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert encoder(tokenizer)(texts) == expected


def test_the_end_of_a_document_written_inside_one_does_not_end_it(model):
    text = f"the cat {END} sat on {END}" * 4
    blocks = cut(
        encoded(iter([(0, text), (1, text)]), model.encode),
        separator=model.bos,
        context_size=16,
        prepend_bos=True,
        tokens=10_000,
    )
    ends = blocks.ids[:, 1:] == model.bos
    changes = np.diff(blocks.document[:, 1:], axis=1, prepend=blocks.document[:, 1:2]) != 0
    np.testing.assert_array_equal(ends, changes)
    assert ends.sum() <= 1


def test_how_texts_are_encoded_is_no_part_of_the_tokenizers_digest(model):
    before = model.describe()["tokenizer"]
    model.encode(["the cat"])
    assert model.describe()["tokenizer"] == before
