"""Sets that SAELens tokenised: contexts of token ids, described by ``sae_lens.json``."""

import json
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput

# What SAELens' PretokenizeRunner writes beside the rows.
FILE = "sae_lens.json"

# What a manifest keeps of it: how the contexts were made.
KEPT = (
    "sae_lens_version",
    "context_size",
    "begin_batch_token",
    "begin_sequence_token",
    "sequence_separator_token",
    "disable_concat_sequences",
    "use_chat_formatting",
    "shuffled",
    "seed",
)


def read_sae_lens(name: str) -> dict[str, Any]:
    """What ``sae_lens.json`` says of a directory or of a dataset on the Hub; empty without one.

    Raises:
        BadInput: it does not name a tokenizer and a size of context.
    """
    file = _file_of(name)
    if file is None or not file.is_file():
        return {}
    try:
        said = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {FILE} of {name}: {error}") from None
    known = said if isinstance(said, dict) else {}
    if (
        not isinstance(known.get("tokenizer_name"), str)
        or type(known.get("context_size")) is not int
    ):
        raise BadInput(
            f"{FILE} of {name} must name tokenizer_name and context_size: without that file, the "
            "rows are read as documents"
        )
    return known


def _file_of(name: str) -> Path | None:
    if Path(name).exists():
        return Path(name) / FILE
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(name, FILE, repo_type="dataset"))
    except EntryNotFoundError:
        return None
