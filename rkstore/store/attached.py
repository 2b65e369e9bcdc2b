"""Small files of a store as a whole, besides its shards, such as its tokenizer.

Each is ``directory/name``; the manifest records its size and SHA-256.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from rkstore.store.files import FileRecord

# The fast tokenizer of the model, as the library tokenizers serialises it.
TOKENIZER = "tokenizer/tokenizer.json"

# The documents' own ids: a line of JSON for each document, with its number.
DOCUMENT_IDS = "documents/ids.jsonl"

# No separators, leading dots or special characters: see the names of sites.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
_PATH, _DIGEST = re.compile(f"({_PART})/{_PART}"), re.compile("[0-9a-f]{64}")

# The most files, and bytes of them, that a store may have. Gemma's tokenizer has 33 MB.
MOST_FILES, MOST_BYTES = 100, 2**28


def attached_in(stated: Mapping[str, Any]) -> dict[str, FileRecord]:
    """The files that a manifest states, by path; raises TypeError if a record is not one."""
    return {path: FileRecord(**record) for path, record in stated.items()}


def ids_in(content: bytes) -> dict[int, Any]:
    """The documents' own ids, by number; raises ValueError if the file does not hold them."""
    try:
        lines = [json.loads(line) for line in content.decode("utf-8").splitlines()]
        return {int(line["document"]): line["id"] for line in lines}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a line is not of a document: {error}") from None


def check_attached(files: Mapping[str, FileRecord], arrays: Collection[str]) -> None:
    """Raise ValueError unless a store with those arrays can have these files.

    Args:
        arrays: names of its arrays, whose directories are theirs alone.
    """
    for path, file in files.items():
        found = _PATH.fullmatch(path)
        if not found or found[1] in arrays:
            raise ValueError(f"{path!r} cannot be a file of a store")
        if type(file.bytes) is not int or file.bytes < 0 or not _DIGEST.fullmatch(file.sha256):
            raise ValueError(f"{path} has no size or no SHA-256")
    total = sum(file.bytes for file in files.values())
    if len(files) > MOST_FILES or total > MOST_BYTES:
        raise ValueError(f"{len(files)} files of {total} bytes are too many, or too large")
