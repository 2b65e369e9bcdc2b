"""What an init may look at: the training rows of one site of a store."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rkstore.statistics import Statistics
from rkstore.store import Store


@dataclass(frozen=True)
class InitData:
    """A site, the chunks to train on, and the scale that its values are trained at."""

    store: Store
    hook_name: str
    chunks: Sequence[int]
    scale: float

    def sample(self, chunks: int = 16) -> Tensor:
        """Rows of some of the chunks, evenly spread, as they are trained on, ``(n, d_in)``."""
        step = max(1, len(self.chunks) // chunks)
        rows = [self.store.chunk(self.hook_name, chunk) for chunk in self.chunks[::step][:chunks]]
        return torch.from_numpy(np.concatenate(rows)) * self.scale

    @property
    def statistics(self) -> Statistics:
        """Exact statistics of the site, in the units of the store."""
        return self.store.statistics(self.hook_name)
