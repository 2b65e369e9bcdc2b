"""Facts about rows that arrays of other formats cannot hold: ``rkstore.json``.

An export writes it next to the arrays, an import reads it back, so that a re-imported store still
knows its blocks, its model and its codec error.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rkstore.errors import BadInput

FILE = "rkstore.json"
SCHEMA = 1
LARGEST = 16 * 2**20

# Keys that describe an import. Those of the original store are kept under ``stored_before``.
OWN = ("imported_from", "dtype", "files", "columns", "libraries", "stored_before")


@dataclass(frozen=True)
class Facts:
    """Facts of the exported store."""

    fingerprint: str
    rows: int
    """Rows that were written."""
    context_size: int
    codec: str
    codec_fvu: dict[str, float]
    """By array: squared error of the numbers written, as a fraction of the site's variance."""
    source: dict[str, Any]
    """The manifest's."""

    def to_text(self) -> str:
        """The text of the file, in ASCII."""
        document = {"rkstore_export": SCHEMA} | vars(self)
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    def check(self, where: str, arrays: list[str], rows: int) -> None:
        """Raise BadInput unless the facts describe those arrays."""
        for array in arrays:
            if array not in self.codec_fvu:
                raise BadInput(
                    f"{where} does not mention {array}, which is not from the same export: import "
                    f"it from a separate directory"
                )
        if rows != self.rows:
            raise BadInput(
                f"{where} is of {self.rows:,} rows, the arrays have {rows:,}: remove it if they "
                "were changed"
            )

    def inherited(self, arrays: dict[str, str]) -> dict[str, Any]:
        """The ``source`` of a store whose sites are those arrays.

        Model, tokenizer and text stay the same; the rest describes the original store.
        """
        before = {"fingerprint": self.fingerprint, "codec": self.codec}
        errors = {site: self.codec_fvu[array] for site, array in arrays.items()}
        theirs = {key: self.source[key] for key in OWN if key in self.source}
        kept = {key: value for key, value in self.source.items() if key not in OWN}
        return kept | {"stored_before": before | {"codec_fvu": errors} | theirs}


def facts_beside(directory: Path) -> Facts | None:
    """The facts in a directory, if an export put any there.

    Raises:
        BadInput: see :func:`parse_facts`.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return parse_facts(file.read(LARGEST + 1), str(path))


def parse_facts(raw: bytes, where: str) -> Facts:
    """Check what an export wrote.

    Raises:
        BadInput: it is not what rkstore writes, or needs a newer one.
    """
    try:
        if len(raw) > LARGEST:
            raise ValueError("too large")
        document = json.loads(raw, parse_constant=_refuse)
        schema = document.pop("rkstore_export")
        if type(schema) is int and schema > SCHEMA:
            raise BadInput(f"{where} needs a newer rkstore: 'pip install --upgrade rkstore'")
        facts = Facts(**document)
        _check(facts)
    except BadInput:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadInput(
            f"{where} is not what an rkstore export writes: remove it to import the bare numbers"
        ) from None
    return facts


def _check(facts: Facts) -> None:
    """Raise ValueError unless every fact is of its type, and can be written again."""
    for text in (facts.fingerprint, facts.codec):
        if type(text) is not str:
            raise ValueError(f"{text!r} is not text")
    for size in (facts.rows, facts.context_size):
        if type(size) is not int or not 0 < size < 2**48:
            raise ValueError(f"{size!r} is not a positive number")
    for error in facts.codec_fvu.values():
        if type(error) is not float or not 0 <= error < math.inf:
            raise ValueError(f"{error!r} is not an error")
    for part in (facts.source, *(facts.source.get(k, {}) for k in ("model", "text", "tokens"))):
        if type(part) is not dict:
            raise ValueError(f"{part!r} is not an object")
    json.dumps(vars(facts), ensure_ascii=False, allow_nan=False).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
