"""What every tracker does."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.training.run import Run


class Callback(Protocol):
    """What is called after each step of each run."""

    def __call__(self, step: int, run: Run, /) -> Mapping[str, float] | None:
        """``step`` steps are made. It may return numbers to be tracked, by name."""


class Tracker(ABC):
    """Takes the numbers of one run.

    Raises:
        BadInput: the other program does not take them.
    """

    name: ClassVar[str]

    @classmethod  # noqa: B027 - one that needs no library has nothing to check
    def check(cls) -> None:
        """Raise BadInput unless its library is installed."""

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
