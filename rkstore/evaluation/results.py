"""The record of a dictionary's results: ``evaluation/results.json`` inside its checkpoint.

A list of entries, one for each kind of evaluation, store, rows, options and versions that it was
measured with. An entry is never replaced: the same key with the same numbers is the same entry,
and with other numbers it is refused, because then something is not what its key says. There is no
date in it and its order is that of the keys, so the same evaluations give the same bytes.
"""

import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import WEIGHTS
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import is_ours
from rkstore.store.files import named, sha256, write_together
from rkstore.store.jsontext import canonical, existing, to_json
from rkstore.store.writing.lock import locked

RECORD = "evaluation/results.json"

# Programs whose versions may change a number.
PROGRAMS = ("rkstore", "torch", "numpy")

# Numbers that differ by no more, relative to themselves, are equal: float32 products depend on the
# number of threads and on the processor. So may a latent be on in one of ten thousand cases.
EQUAL = 1e-4

KEY = ("kind", "store_fingerprint", "rows", "options", "weights_sha256", "versions")


@dataclass(frozen=True)
class Entry:
    """One evaluation of one dictionary."""

    kind: str
    """What was measured: ``reconstruction`` is what the store alone says."""
    store_fingerprint: str
    rows: Mapping[str, Any]
    """Which rows: how many, and a digest of their numbers."""
    options: Mapping[str, Any]
    """Options that change a number."""
    result: Mapping[str, Any]
    """The numbers, as JSON."""
    weights_sha256: str = ""
    """Of the file of weights."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> dict[str, Any]:
        """What distinguishes it from other entries."""
        return {name: getattr(self, name) for name in KEY}

    def as_dict(self) -> dict[str, Any]:
        """As JSON, the key first."""
        found: dict[str, Any] = existing(self.key | {"result": dict(self.result)})
        return found


def versions() -> dict[str, str]:
    """The versions that are installed, of programs whose version may change a number."""
    return {name: importlib.metadata.version(name) for name in PROGRAMS}


def entries(checkpoint: str | Path) -> list[Entry]:
    """The record of a checkpoint; empty if it has none.

    Raises:
        BadInput: the file is something else.
    """
    path = named(checkpoint) / RECORD
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text("utf-8"))
        if not isinstance(document, list):
            raise TypeError("it is no list")
        return [_entry(entry) for entry in document]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(
            f"cannot read {path} ({error}): move it away, and evaluate the dictionary again"
        ) from None


def _entry(stated: Any) -> Entry:
    """An entry of a file that anyone may have written."""
    entry = Entry(**stated)
    objects = (entry.rows, entry.options, entry.result, entry.versions)
    texts = (entry.kind, entry.store_fingerprint, entry.weights_sha256)
    if not all(isinstance(each, dict) for each in objects) or "count" not in entry.rows:
        raise TypeError("an entry lacks its rows, options or result")
    if not all(isinstance(each, str) for each in texts):
        raise TypeError("an entry is not of a store")
    return entry


def add(checkpoint: str | Path, entry: Entry) -> str | None:
    """Add an entry to the record of a checkpoint; weights and versions are filled in.

    Returns:
        Why it was not added: the checkpoint is another program's or may not be written to, or its
        record cannot be read or has other numbers under the same key. None if it is there now.

    Raises:
        RkstoreError: the disk is full or failed; the record is as it was.
    """
    root = named(checkpoint)
    if not is_ours(root):
        return f"{checkpoint} is of another program, so nothing is written into it"
    if not os.access(root, os.W_OK):
        return f"{checkpoint} may not be written to, so its result is not recorded in it"
    own = {"weights_sha256": sha256(root / WEIGHTS), "versions": versions()}
    entry = Entry(**(entry.as_dict() | own))
    try:
        with locked(root / RECORD):
            return _add(root, entry)
    except BadInput as error:
        return f"the record of {checkpoint} is as it was: {error.sentence}"


def _add(root: Path, entry: Entry) -> str | None:
    before, key = entries(root), canonical(entry.key)
    for one in before:
        if canonical(one.key) == key:
            other = differing(one.result, entry.result)
            return other and (
                f"{root / RECORD} has another result for the same rows, options and versions "
                f"({other}): it stays, move it away to record this one"
            )
    ordered = sorted([*before, entry], key=lambda one: canonical(one.key))
    text = to_json([one.as_dict() for one in ordered], indent=1) + "\n"
    write_together({root / RECORD: text.encode()})
    return None


def differing(one: Any, other: Any, name: str = "result") -> str | None:
    """Where two results differ by more than rounding, in a few words; None if nowhere."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = (differing(one[key], other[key], key) for key in one)
        return next((part for part in parts if part), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        # A histogram: a latent may have crossed an edge.
        parts = (differing(a, b, name) for a, b in zip(one, other, strict=True))
        return next((part for part in parts if part), None)
    numbers = all(isinstance(value, int | float) for value in (one, other))
    slack = 1 if isinstance(one, int) and isinstance(other, int) else 1e-9
    if one == other or (numbers and math.isclose(one, other, rel_tol=EQUAL, abs_tol=slack)):
        return None
    return f"{name} is {one} there and {other} now"
