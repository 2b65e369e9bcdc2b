"""Jobs one after another, in this process."""

from collections.abc import Callable, Sequence

from rkstore.training.engines.base import Engine, R


class Local(Engine):
    """This process."""

    name = "local"

    def each(self, jobs: Sequence[Callable[[], R]], device: str) -> list[R]:  # noqa: ARG002
        """As of every engine; each job knows its device."""
        return [job() for job in jobs]
