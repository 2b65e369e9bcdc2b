"""The record of a study: every run in one JSON file, complete after each run."""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput
from rkstore.store.files import write_together

Row = dict[str, Any]


@dataclass
class Runs:
    """The finished runs of a study.

    Raises:
        BadInput: the file is something else, or has runs with other settings.
    """

    path: Path
    identity: Row
    """The settings shared by all runs, which must match those of an existing file."""
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        try:
            document = json.loads(self.path.read_text("utf-8"))
            before, self.rows = document["settings"], document["runs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"cannot resume {self.path} ({error}): remove it or choose another --out"
            ) from None
        for key, value in json.loads(json.dumps(self.identity, allow_nan=False)).items():
            if before.get(key) != value:
                raise BadInput(
                    f"{self.path} holds runs with other settings ({key} was {before.get(key)}, "
                    f"is {value}): choose another --out"
                )

    def find(self, **values: Any) -> list[Row]:
        """The runs with these values, in the order in which they were made."""
        return [row for row in self.rows if all(row.get(k) == v for k, v in values.items())]

    def add(self, rows: Sequence[Row]) -> None:
        """Record runs that have just finished."""
        self.rows += rows
        self.write()

    def write(self, **more: Any) -> None:
        """Write the runs, and anything else that belongs to them."""
        document = {"settings": self.identity, "runs": self.rows} | more
        write_together({self.path: as_json(document)})


def as_json(document: Row) -> bytes:
    """The content of a JSON file, indented."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def compact(document: Row) -> bytes:
    """The content of a JSON file with one line for each member of a list of objects."""
    parts = []
    for key, value in document.items():
        written = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join(json.dumps(row, allow_nan=False) for row in value)
            written = f"[\n{lines}\n]"
        parts.append(f"{json.dumps(key, allow_nan=False)}: {written}")
    return ("{" + ",\n".join(parts) + "}\n").encode()


def grouped(rows: Sequence[Row], key: str | Callable[[Row], Hashable]) -> dict[Any, list[Row]]:
    """The rows grouped by a key or a function; in first-seen order."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key] if isinstance(key, str) else key(row), []).append(row)
    return found
