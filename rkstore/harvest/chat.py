"""Chats → tokens, by the tokenizer's own template."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from rkstore.errors import BadInput, one_line
from rkstore.harvest.model import Model
from rkstore.harvest.text.documents import Text
from rkstore.harvest.tokens import in_groups

# A template may write today's date, and no harvest could be repeated. This is the date that Llama
# 3.1's own template writes by default.
DATE = "26 Jul 2024"
DATED = f"{{%- macro strftime_now(format) -%}}{DATE}{{%- endmacro -%}}"


class Chats:
    """The rows of ``--chat-column``.

    Raises:
        BadInput: the tokenizer has no template.
    """

    def __init__(self, model: Model) -> None:
        words = model.tokenizer
        try:
            template: str = words.get_chat_template()
        except ValueError:
            raise BadInput(
                f"the tokenizer of {model.name} has no chat template: give --tokenizer with one "
                "that has, or the texts themselves with --text-column"
            ) from None
        self.model, self.dated = model, "strftime_now" in template
        self.sha256 = hashlib.sha256(template.encode()).hexdigest()
        self.template = (DATED if self.dated else "") + template
        added = (str(token) for token in words.added_tokens_decoder.values() if token.special)
        self.special = sorted({*added, *words.all_special_tokens})

    def documents(self, text: Text) -> Iterator[tuple[int, list[int]]]:
        """The tokens of each chat, without the BOS that the template may put first.

        Raises:
            BadInput: a chat spells a special token out, which would become one, or the template
                cannot render it.
        """
        words, bos = self.model.tokenizer, self.model.bos
        rendered = ((number, self._rendered(text, number, chat)) for number, chat in text.documents)
        for group in in_groups(rendered):
            texts = [one for _, one in group]
            encoded = words(texts, add_special_tokens=False, verbose=False)["input_ids"]
            for (number, _), ids in zip(group, encoded, strict=True):
                own = ids[1:] if bos is not None and ids[:1] == [bos] else ids
                if own:
                    yield number, own

    def describe(self) -> dict[str, Any]:
        """What a manifest records of the template."""
        dated = {"date": DATE} if self.dated else {}
        return {"chat_template": {"sha256": self.sha256, **dated}}

    def _rendered(self, text: Text, number: int, chat: list[dict[str, Any]]) -> str:
        if not chat:
            return ""
        where = f"row {number} of {text.source['dataset']}"
        # Rows of a table have each key that any row has.
        chat = [{k: v for k, v in message.items() if v is not None} for message in chat]
        spelled = json.dumps(chat, ensure_ascii=False, allow_nan=False, default=str)
        found = next((token for token in self.special if token in spelled), None)
        if found is not None:
            raise BadInput(
                f"{where} spells out {found}, which would become a special token inside a message: "
                "take it out of the text"
            )
        try:
            rendered: str = self.model.tokenizer.apply_chat_template(
                chat, chat_template=self.template, tokenize=False
            )
        except Exception as error:  # a template raises errors of its own
            raise BadInput(f"the chat template cannot render {where}: {one_line(error)}") from None
        return rendered
