"""One row in its context, as a dict, for ``rkstore show`` and its ``--json``."""

from typing import Any

import numpy as np

from rkstore.store.readable import Readable
from rkstore.store.rows import column_of, rows_asked

# The dimensions of a row that are shown.
LARGEST = 5


def row_facts(
    store: Readable, row: int, hook_name: str | None = None, window: int = 20
) -> dict[str, Any]:
    """What is known of a row, ready for JSON.

    Args:
        hook_name: the site whose activations are described; none by default.
        window: the most tokens of the text on either side.

    Raises:
        NoSuchRow: the row is not in the store.
        BadInput: the store has no such site.
    """
    rows = rows_asked(store, row)
    names = ("token_id", "document", "position")
    token, document, position = (int(column_of(store, name, rows)[0]) for name in names)
    text_store, here = store.in_text(int(rows[0]), int(rows[0]) + 1)
    words = store.has_words
    return {
        "row": int(rows[0]),
        "token_id": token,
        "token": store.words.word(token) if words else None,
        "text": store.text(int(rows[0]), window) if words else None,
        "document": document,
        "source": source_of(store.manifest.source, document),
        "position": position,
        "block": int(here[0]) // text_store.manifest.context_size,
        **({} if hook_name is None else {"site": _activations(store, hook_name, int(rows[0]))}),
    }


def source_of(source: dict[str, Any], document: int) -> str | None:
    """The file, or the dataset and its row, that a document came from; None if it is not known."""
    text = source.get("text")
    text = text if isinstance(text, dict) else {}
    files = text.get("files")
    if isinstance(files, list):
        known = files[document] if 0 <= document < len(files) else None
        return str(known["name"]) if isinstance(known, dict) and "name" in known else None
    if "dataset" in text:
        split = text.get("split")
        row = "number" if text.get("numbered") else "row"  # of the shuffled stream, or of the split
        return f"{text['dataset']}{f', {split}' if split else ''}, {row} {document}"
    return None


def _activations(store: Readable, hook_name: str, row: int) -> dict[str, Any]:
    """Norm and largest dimensions of a row, beside the site's ordinary rows."""
    x = column_of(store, hook_name, np.array([row])).astype(np.float64)[0]
    usual = store.ordinary_statistics(hook_name)
    mean, std = usual.mean, np.sqrt(usual.variance)
    largest = np.argsort(-np.abs(x), kind="stable")[:LARGEST]
    return {
        "hook_name": hook_name,
        "norm": float(np.linalg.norm(x)),
        "massive": _massive(store, hook_name, row),
        "largest": [
            {
                "dimension": int(i),
                "value": float(x[i]),
                "mean": float(mean[i]),
                "std": float(std[i]),
            }
            for i in largest
        ],
    }


def _massive(store: Readable, hook_name: str, row: int) -> bool | None:
    """Whether a row is massive; None where the codec does not mark such rows."""
    if not store.codec_of(hook_name).keeps_apart:
        return None
    chunk = row // store.manifest.chunk_rows
    apart = store.stored_chunk(hook_name, chunk).apart
    within = row - store.rows_of_chunk(chunk)[0]
    return apart is not None and bool((apart.massive == within).any())
