"""The tokens of a text, a dataset or rows of ids, and what a store keeps of their source."""

import json
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.harvest.chat import Chats
from rkstore.harvest.model import Model
from rkstore.harvest.pretokenized import Pretokenized
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.documents import Text
from rkstore.harvest.text.open import open_text
from rkstore.harvest.tokens import TokenBlocks, cut, encoded, whole_blocks
from rkstore.store.attached import DOCUMENT_IDS


def text_tokens(
    model: Model, settings: HarvestSettings
) -> tuple[TokenBlocks, dict[str, Any], dict[str, bytes]]:
    """The blocks that the model reads, what a manifest records of them, and the documents' ids.

    Raises:
        BadInput: the context is too long, the model has no BOS token, or anything in the source
            is not what the settings say.
    """
    if settings.context_size > model.longest_context:
        raise BadInput(
            f"--context-size is {settings.context_size}: {model.name} sees at most "
            f"{model.longest_context} tokens"
        )
    if settings.prepend_bos and model.bos is None:
        raise BadInput(f"{model.name} has no BOS token: use --no-prepend-bos")
    # What can be refused before anything is read.
    ids = None if settings.tokenized_by is None else Pretokenized(model, settings)
    chats = None if settings.chat_column is None else Chats(model)
    text = open_text(settings)
    blocks = _blocks(model, settings, text, ids, chats)
    asked = whole_blocks(settings.tokens, settings.context_size) * settings.context_size
    source = {
        "text": text.source,
        "tokens": {
            "prepend_bos": settings.prepend_bos,
            "seed": settings.seed,
            "sha256": blocks.sha256,
            # Written only where it is unusual, so that older stores keep their bytes.
            **({} if blocks.counts_up else {"document_sha256": blocks.document_sha256}),
            **({} if blocks.rows == asked else {"asked": settings.tokens}),
        },
    }
    return blocks, source, {} if settings.id_column is None else _ids_file(text, blocks)


def _ids_file(text: Text, blocks: TokenBlocks) -> dict[str, bytes]:
    """The own ids of the documents that have rows, by number."""
    numbers = np.unique(blocks.document).tolist()
    lines = (
        json.dumps({"document": n, "id": text.ids[n]}, ensure_ascii=False, allow_nan=False)
        for n in numbers
    )
    return {DOCUMENT_IDS: "".join(f"{line}\n" for line in lines).encode()}


def _blocks(
    model: Model,
    settings: HarvestSettings,
    text: Text,
    ids: Pretokenized | None,
    chats: Chats | None,
) -> TokenBlocks:
    """The blocks of the documents; what else is known of their source goes into it."""
    if ids is not None:
        ids.check_sae_lens(text)
        whole = settings.whole_contexts or bool(text.sae_lens)
        text.source.update(ids.describe(text, whole))
        if whole:
            return ids.contexts(text)
        documents = ids.documents(text)
    elif chats is not None:
        text.source.update(chats.describe())
        documents = chats.documents(text)
    else:
        documents = encoded(text.documents, model.encode)
    return cut(
        documents,
        separator=model.bos,
        context_size=settings.context_size,
        prepend_bos=settings.prepend_bos,
        tokens=settings.tokens,
    )
