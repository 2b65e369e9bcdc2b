"""What an init may look at: the training rows of one site, and directions found in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.statistics import Statistics
from rkstore.store.store import Store

# Rows that are enough for a spread, a quantile or a median: 100 MB at 3,072 dimensions.
SAMPLE_ROWS = 8192

# Rows drawn at random come from chunks that hold so many times as many: neighbours are alike,
# and to read a large store from end to end for a few rows would take too long.
DRAWN_FROM = 4


@dataclass(frozen=True)
class InitData:
    """A site, the chunks to train on, and the scale that its values are trained at."""

    store: Store
    hook_name: str
    chunks: Sequence[int]
    scale: float
    directions: Tensor | None = None
    """Unit directions ``(n, d_in)``, the best first, to begin at in place of mined ones."""
    left_out: LeftOut = ALL_KEPT
    """Rows that are not trained on."""

    def sample(self, rows: int = SAMPLE_ROWS) -> Tensor:
        """About so many rows, whole chunks evenly spread, as they are trained on, ``(n, d_in)``."""
        parts = [self._read(chunk) for chunk in self.spread(rows)]
        return torch.from_numpy(np.concatenate(parts)) * self.scale

    def spread(self, rows: int) -> Sequence[int]:
        """Evenly spread chunks that hold about so many rows; all, if they hold fewer."""
        count = -(-rows // self.store.manifest.chunk_rows)
        step = max(1, len(self.chunks) // count)
        return self.chunks[::step][:count]

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """So many different rows at random, as they are trained on, ``(rows, d_in)``.

        All there are, if they are fewer.
        """
        count = -(-DRAWN_FROM * rows // self.store.manifest.chunk_rows)
        order = torch.randperm(len(self.chunks), generator=generator)[:count].tolist()
        chunks = [self.chunks[i] for i in order]
        kept = [len(self.left_out.kept(*self.store.rows_of_chunk(chunk))) for chunk in chunks]
        edges = np.cumsum([0, *kept])
        places = torch.randperm(int(edges[-1]), generator=generator)[:rows].sort().values.numpy()
        within = np.searchsorted(places, edges)
        parts = [
            self._read(chunk)[places[a:b] - first]
            for chunk, first, a, b in zip(chunks, edges, within, within[1:], strict=False)
        ]
        return torch.from_numpy(np.concatenate(parts)) * self.scale

    @property
    def statistics(self) -> Statistics:
        """Exact statistics of the site, in the units of the store.

        Where rows are left out, of the rows that are not massive: nearly the same ones, and
        known without a reading.
        """
        if len(self.left_out.rows):
            return self.store.ordinary_statistics(self.hook_name)
        return self.store.statistics(self.hook_name)

    def _read(self, chunk: int) -> NDArray[np.float32]:
        return self.left_out.read(self.store, self.hook_name, chunk)
