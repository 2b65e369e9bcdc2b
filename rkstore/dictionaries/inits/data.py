"""What an init may look at: the training rows of one site of a store."""

from collections.abc import Sequence
from dataclasses import dataclass

from rkstore.statistics import Statistics
from rkstore.store import Store


@dataclass(frozen=True)
class InitData:
    """A site, the chunks to train on, and the scale that its values are trained at."""

    store: Store
    hook_name: str
    chunks: Sequence[int]
    scale: float

    @property
    def statistics(self) -> Statistics:
        """Exact statistics of the site, in the units of the store."""
        return self.store.statistics(self.hook_name)
