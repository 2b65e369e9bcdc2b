"""The tokens of another store, for a second model: row *i* of both stores is the same token.

With another tokenizer, rows are paired through the text: :mod:`rkstore.harvest.aligned`.
"""

from typing import Any

import numpy as np

from rkstore.errors import BadInput, DamagedStore
from rkstore.harvest.aligned import aligned_blocks
from rkstore.harvest.model import Model, tokenizer_sha256
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.tokens import TokenBlocks
from rkstore.store.open import open_store
from rkstore.store.store import Store

# What the manifest of a partner says of its tokens that holds for both.
KEPT = ("prepend_bos", "seed")


def open_partner(path: str) -> Store:
    """The store whose tokens a second model is to read.

    Raises:
        BadInput: it is unfinished, a part without all rows, or its rows are not blocks of a text.
    """
    store = open_store(path)
    manifest = store.manifest
    if manifest.more_columns:
        raise BadInput(
            f"{store.where} has only the rows that were aligned to another store: give "
            "--paired-with that one"
        )
    if (store.first_row, store.stop_row) != (0, manifest.rows):
        raise BadInput(
            f"{store.where} has rows {store.first_row}:{store.stop_row} of {manifest.rows}: finish "
            "it first, with its harvest or 'rkstore pull'"
        )
    if manifest.context_size < 2 or manifest.rows % manifest.context_size:
        raise BadInput(
            f"the rows of {store.where} are not blocks of a text, so another model cannot read "
            "them: give --paired-with a store that was harvested"
        )
    return store


def paired_tokens(
    partner: Store, model: Model, settings: HarvestSettings
) -> tuple[TokenBlocks, dict[str, Any]]:
    """The blocks that a second model reads, and what its manifest records of them.

    Raises:
        BadInput: the model has another tokenizer and there is no ``--align``, or the reverse; its
            context is too short; or the tokens of the partner are not known.
        DamagedStore: its tokens are not those that were harvested.
    """
    size, source = partner.manifest.context_size, partner.manifest.source
    if size > model.longest_context:
        raise BadInput(
            f"the blocks of {partner.where} have {size} tokens: {model.name} sees at most "
            f"{model.longest_context}"
        )
    blocks = _blocks_of(partner)
    theirs = (source.get("tokenizer") or {}).get("sha256")
    if theirs is None:
        raise BadInput(
            f"{partner.where} does not record its tokenizer, so its tokens may mean others to "
            f"{model.name}: give --paired-with a store that was harvested"
        )
    same = theirs == tokenizer_sha256(model.tokenizer)
    if same and settings.align:
        raise BadInput(
            f"{model.name} has the tokenizer of {partner.where}, every row is paired as it is: "
            "leave out --align"
        )
    if not same and not settings.align:
        raise BadInput(
            f"{model.name} has another tokenizer than {partner.where}: use --align text to pair "
            "the rows whose tokens end at the same character, or --tokenizer with that of the "
            "store if its tokens mean the same to this model"
        )
    name = (source.get("model") or {}).get("name")
    known: dict[str, Any] = {"fingerprint": partner.manifest.fingerprint, "name": name}
    if not same:
        blocks = aligned_blocks(partner, blocks, model, settings.partner_tokenizer)
        share = round(blocks.rows / partner.rows, 6)
        known |= {"align": "text", "rows": partner.rows, "share": share}
    tokens = {key: value for key, value in (source.get("tokens") or {}).items() if key in KEPT}
    if not blocks.counts_up and same:
        tokens["document_sha256"] = blocks.document_sha256
    return blocks, {
        "text": source.get("text", {}),
        "tokens": tokens | {"sha256": blocks.sha256},
        "paired_with": known,
    }


def _blocks_of(partner: Store) -> TokenBlocks:
    """The blocks that the model of a store read, from its columns."""
    size, source = partner.manifest.context_size, partner.manifest.source
    ids = partner.column("token_id").astype(np.int32).reshape(-1, size)
    document = partner.column("document").astype(np.int32).reshape(-1, size)
    blocks = TokenBlocks(ids, document)
    position = partner.column("position").reshape(-1, size)
    if ids.min() < 0 or (position != np.arange(size)).any():
        raise BadInput(
            f"the tokens of {partner.where} are not known, or not in blocks of {size}, so another "
            "model cannot read them: give --paired-with a store that was harvested"
        )
    recorded = (source.get("tokens") or {}).get("sha256")
    if "imported_from" not in source and recorded not in (None, blocks.sha256):
        raise DamagedStore(
            f"the tokens of {partner.where} are not those that were harvested: see 'rkstore verify'"
        )
    return blocks
