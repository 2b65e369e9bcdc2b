"""What every engine does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar

from rkstore.settings import Settings

if TYPE_CHECKING:
    from rkstore.harvest.run import Harvest
    from rkstore.store.writing.base import Writer
    from rkstore.store.writing.whole import Advance


# Numbers of shards, each once it is recorded.
Shards = Generator[int, None, None]


class Engine(Settings):
    """Computes shards. Its fields are its options."""

    name: ClassVar[str]

    def check(self) -> None:
        """Raise BadInput, before anything is loaded, if it is not available."""

    @property
    def at_once(self) -> int:
        """How many shards it makes at the same time, each as fast as this process would."""
        return 1

    def describe(self) -> str:
        """Who makes them, for a plan; nothing if it is this process."""
        return ""

    @abstractmethod
    def shards(self, harvest: Harvest, writer: Writer, advance: Advance) -> Shards:
        """Make the missing shards and record them in order; yields each once it is recorded.

        Args:
            advance: called with the number of rows that were added, for the progress bar.

        Raises:
            BadInput: an activation cannot be stored.
            RkstoreError: the disk is full, or workers failed; what was recorded is intact.
        """
