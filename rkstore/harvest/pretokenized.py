"""Rows of token ids: checked against the vocabulary, as documents or as whole contexts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest.load import load_tokenizer
from rkstore.harvest.model import Model, tokenizer_sha256
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.dataset import public_name
from rkstore.harvest.text.documents import Row, Text
from rkstore.harvest.text.saelens import FILE, KEPT
from rkstore.harvest.tokens import TokenBlocks, whole_blocks


class Pretokenized:
    """The rows of ``--tokenized-by``.

    Raises:
        BadInput: the vocabulary of that tokenizer is not the model's.
    """

    def __init__(self, model: Model, settings: HarvestSettings) -> None:
        name = str(settings.tokenized_by)
        words = load_tokenizer(name, None)
        _check_same(f"the tokenizer {public_name(name)}", words, model)
        self.name, self.model, self.settings = name, model, settings
        self.sha256 = tokenizer_sha256(words)
        known = np.fromiter(words.get_vocab().values(), np.int64)
        self.known = np.zeros(known.max() + 1, bool)
        self.known[known] = True

    def documents(self, text: Text) -> Iterator[tuple[int, list[int]]]:
        """The tokens of each row that has any, without the BOS that it may begin with.

        Raises:
            BadInput: an id is unknown, or a special token stands anywhere else: it would be taken
                for the end of a document.
        """
        words, bos = self.model.tokenizer, self.model.bos
        # An unknown piece of text has a token too, which no tokenizer means as an end.
        ends = {bos, words.eos_token_id, words.pad_token_id}
        special = sorted({*self.model.special_tokens} - {words.unk_token_id} | ends - {None})
        for number, ids in self._checked(text):
            own = ids[1:] if bos is not None and ids.size and ids[0] == bos else ids
            found = np.flatnonzero(np.isin(own, special))
            if found.size:
                id = int(own[found[0]])
                raise BadInput(
                    f"{self._row(text, number)} holds the special token {id} "
                    f"({words.convert_ids_to_tokens(id)}) behind its beginning: a row that is a "
                    "document has none but a first BOS; give an attention_mask column for padding, "
                    "or --whole-contexts if the rows are contexts"
                )
            if own.size:
                yield number, own.tolist()

    def contexts(self, text: Text) -> TokenBlocks:
        """Each row as one block, as it is; its document is its number.

        Raises:
            BadInput: an id is unknown, a row does not have ``--context-size`` tokens, is padded, or
                does not begin as ``--prepend-bos`` says.
        """
        size = self.settings.context_size
        wanted = whole_blocks(self.settings.tokens, size)
        blocks: list[NDArray[np.int32]] = []
        numbers: list[int] = []
        with tqdm(
            total=wanted * size, unit="tok", unit_scale=True, desc="tokens", disable=None
        ) as bar:
            for number, ids in self._checked(text):
                if len(ids) != size:
                    raise BadInput(
                        f"{self._row(text, number)} has {len(ids)} tokens and --context-size is "
                        f"{size}: whole contexts all have as many as that"
                    )
                self._check_padding(text, number, ids)
                blocks.append(ids.astype(np.int32))
                numbers.append(number)
                bar.update(size)
                if len(blocks) == wanted:
                    break
        if not blocks:
            raise BadInput(
                f"the rows of {text.source['dataset']} are empty: give rows of token ids"
            )
        ids = np.stack(blocks)
        self._check_bos(text, ids, numbers)
        document = np.repeat(np.array(numbers, np.int32)[:, None], size, axis=1)
        return TokenBlocks(ids, document)

    def describe(self, text: Text, whole: bool) -> dict[str, Any]:
        """What a manifest records of them."""
        tokenizer = {"name": public_name(self.name), "sha256": self.sha256}
        about: dict[str, Any] = {
            "tokenized_by": tokenizer,
            "rows": "contexts" if whole else "documents",
        }
        if text.sae_lens:
            about["sae_lens"] = {key: text.sae_lens[key] for key in KEPT if key in text.sae_lens}
        return about

    def check_sae_lens(self, text: Text) -> None:
        """Raise BadInput if SAELens' own record names another tokenizer, or another context."""
        said = text.sae_lens
        if not said:
            return
        theirs = said["tokenizer_name"]
        if said["context_size"] != self.settings.context_size:
            raise BadInput(
                f"the contexts of {text.source['dataset']} have {said['context_size']} tokens: "
                f"give --context-size {said['context_size']}"
            )
        if Path(theirs).name == Path(self.name).resolve().name:
            return
        try:
            words = load_tokenizer(theirs, None)
        except RkstoreError:
            raise BadInput(
                f"{FILE} of {text.source['dataset']} says that {theirs} tokenised it, which cannot "
                f"be loaded and compared with --tokenized-by {self.name}: make it available, or "
                f"correct tokenizer_name in {FILE}"
            ) from None
        _check_same(f"{theirs}, which tokenised {text.source['dataset']},", words, self.model)

    def _checked(self, text: Text) -> Iterator[Row]:
        for number, ids in text.documents:
            # A negative id counts from the end of an array, and a huge one is too much for int64.
            inside = (ids >= 0) & (ids < len(self.known))
            inside[inside] = self.known[ids[inside].astype(np.int64)]
            if not inside.all():
                raise BadInput(
                    f"{self._row(text, number)} holds the id {ids[~inside][0]}, and the vocabulary "
                    f"of {public_name(self.name)} has {int(self.known.sum())} tokens, up to "
                    f"{len(self.known) - 1}: name the tokenizer whose ids they are"
                )
            yield number, ids

    def _check_padding(self, text: Text, number: int, ids: NDArray[Any]) -> None:
        words = self.model.tokenizer
        pad = words.eos_token_id if words.pad_token_id is None else words.pad_token_id
        separates = pad in (self.model.bos, words.eos_token_id)
        # Where padding is also what ends a text, one at the end may be that.
        padded = (ids[-2:] == pad).all() if separates else (ids == pad).any()
        if pad is not None and padded:
            raise BadInput(
                f"{self._row(text, number)} is padded with {pad} "
                f"({words.convert_ids_to_tokens(pad)}): leave such rows out, or read the rows as "
                "documents, with an attention_mask column and without --whole-contexts"
            )

    def _check_bos(self, text: Text, ids: NDArray[np.int32], numbers: list[int]) -> None:
        begins = ids[:, 0] == (-1 if self.model.bos is None else self.model.bos)
        if self.settings.prepend_bos and not begins.all():
            raise BadInput(
                f"{self._row(text, numbers[int(np.argmin(begins))])} does not begin with BOS "
                f"({self.model.bos}), and whole contexts are taken as they are: give "
                "--no-prepend-bos"
            )
        if not self.settings.prepend_bos and begins.all():
            raise BadInput(
                f"every row of {text.source['dataset']} begins with BOS ({self.model.bos}): leave "
                "out --no-prepend-bos"
            )

    def _row(self, text: Text, number: int) -> str:
        return f"row {number} of {text.source['dataset']}"


def _check_same(name: str, words: Any, model: Model) -> None:
    """Raise BadInput unless each token has the same id as with the model's tokenizer."""
    theirs, ours = words.get_vocab(), model.tokenizer.get_vocab()
    if theirs == ours:
        return
    other = sorted(token for token in {*theirs, *ours} if theirs.get(token) != ours.get(token))
    raise BadInput(
        f"{name} has another vocabulary than {model.name}, for example {other[0]!r} is "
        f"{theirs.get(other[0], 'absent')} instead of {ours.get(other[0], 'absent')} "
        f"({len(other):,} tokens differ): the ids would mean other tokens, so tokenise the texts "
        "with the model's own"
    )
