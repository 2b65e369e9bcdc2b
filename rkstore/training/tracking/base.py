"""What every tracker does."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.training.run import Run


class Tracker(ABC):
    """Takes the numbers of one run.

    Raises:
        BadInput: its library is not installed.
    """

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, run: Run) -> None:
        """Begin with the step that the run is at, which is above 0 if it was resumed."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of a step, by name; steps rise."""

    @abstractmethod
    def close(self) -> None:
        """Write what is held back. The run may not be finished."""


def beside(run: Run, end: str) -> Path:
    """A path beside the checkpoints of a run, under its name and with this end."""
    path = run.parent / run.name
    return path.with_name(path.name + end)


def library(module: str, extra: str) -> Any:
    """A library that is not needed otherwise."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise BadInput(
            f"--track {extra} needs a library that is not installed: pip install 'rkstore[{extra}]'"
        ) from None
