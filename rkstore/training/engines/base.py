"""What every engine does."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from rkstore.settings import Settings

R = TypeVar("R")


class Engine(Settings):
    """Carries out jobs. Its fields are its options."""

    name: ClassVar[str]

    def check(self) -> None:
        """Raise BadInput, before anything is read, if it is not available."""

    @abstractmethod
    def each(self, jobs: Sequence[Callable[[], R]], device: str) -> list[R]:
        """What each job returns, in their order.

        A job may be done again, by another process, where the process that had it died.

        Args:
            device: of every job.

        Raises:
            RkstoreError: no process is left to do a job; or what a job raises, which ends all.
        """
