"""The numbers of a run as lines of JSON beside its checkpoints, ``<name>.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json
from rkstore.training.tracking.base import Tracker, beside
from rkstore.training.tracking.values import logged

if TYPE_CHECKING:
    from rkstore.training.run import Run

END = ".jsonl"


class Jsonl(Tracker):
    """A line for each step that is logged, with its numbers by name; steps rise."""

    name = "jsonl"

    def __init__(self, run: Run) -> None:
        self._path = beside(run, END)
        kept = list(_lines(self._path, run.step))
        if not kept:
            kept = [{"step": entry["step"], **logged(run, entry)} for entry in run.history]
        if kept or self._path.exists():
            write_together({self._path: "".join(map(_line, kept)).encode()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))

    def close(self) -> None:
        """Every line is in the file already."""


def _line(values: Mapping[str, Any]) -> str:
    return to_json(dict(values)) + "\n"


def _lines(path: Path, step: int) -> Iterator[dict[str, Any]]:
    """The lines of a file up to a step; one that was not written to its end is not among them."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            values = json.loads(line)
            if values["step"] <= step:
                yield values
        except (ValueError, KeyError, TypeError):
            continue
