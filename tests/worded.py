"""Stores of tokens that have words."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_manifest, make_values

from rkstore.store.attached import TOKENIZER
from rkstore.store.files import record_of
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter


def make_tokenizer() -> Any:
    """Every byte is a token; a few words have one of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["x def def one one more more\n" * 9], trainer)
    return made


def write_worded(
    root: Path,
    tokenizer: Any,
    ids: Sequence[int],
    values: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Store, dict[str, np.ndarray]]:
    """A store of these tokens, with its tokenizer; its values, some of which may be given."""
    content = tokenizer.to_str().encode()
    options = {"codec": "int8", "rows": len(ids)} | options
    manifest = replace(make_manifest(**options), files={TOKENIZER: record_of(content)}, schema=0)
    source = manifest.source | {"tokenizer": {"bos_token_id": 0}}
    manifest = replace(manifest, source=source)
    every = make_values(manifest) | {"token_id": np.array(ids)} | dict(values or {})
    with StoreWriter(root, manifest, {TOKENIZER: content}) as writer:
        for shard in range(manifest.shards):
            rows = slice(*manifest.rows_of_shard(shard))
            writer.write_shard(
                {name: every[name][rows] for name in manifest.hook_names},
                {name: every[name][rows] for name in COLUMNS},
            )
    return Store(root), every
