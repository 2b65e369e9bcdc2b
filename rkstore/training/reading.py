"""The data of a run: sites and chunks of a store, the rows left out, each site's scale.

Here rows become tensors; everything before uses only NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rkstore.store.batches.assemble import Batch, read_batches
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.plan import BatchPlan, plan_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rkstore.dictionaries.rows import Rows
    from rkstore.store.readable import Readable
    from rkstore.store.sites import Site
    from rkstore.store.statistics import Statistics

# Enough rows for a variance, a quantile or a median: 100 MB at 3,072 dimensions.
SAMPLE_ROWS = 8192

# Random rows are drawn from chunks with this many times as many: neighbours are similar, and
# reading a whole store for a few rows would take too long.
DRAWN_FROM = 4


@dataclass(frozen=True)
class Reading:
    """Sites and chunks of a store, as used for training.

    Args:
        scales: factor of the values of each site; 1 if a site is missing.
        left_out: rows that are not trained on.
        order: of the rows in batches, one of ``ORDERS``.
    """

    store: Readable
    sites: tuple[Site, ...]
    chunks: Sequence[int]
    scales: Mapping[str, float] = field(default_factory=dict)
    left_out: LeftOut = ALL_KEPT
    order: str = "rows"

    @property
    def hook_names(self) -> list[str]:
        """The sites by name."""
        return [site.hook_name for site in self.sites]

    def plan(self, size: int, seed: int) -> BatchPlan:
        """Which rows come in which batch."""
        return plan_batches(self.store, self.chunks, size, seed, self.left_out, order=self.order)

    def batches(self, size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """Endless batches, from number ``start``, in the units of the store."""
        return read_batches(self.store, self.hook_names, self.plan(size, seed), start=start)

    def rows(self, batch: Batch, device: str) -> Rows:
        """The scaled rows of a batch, float32 ``(n, width)`` by site."""
        return {
            name: torch.from_numpy(batch.x[name]).to(device) * self._scale(name)
            for name in self.hook_names
        }

    def sample(self, rows: int = SAMPLE_ROWS) -> Rows:
        """About that many rows, whole chunks evenly spread, ``(n, width)`` by site."""
        return {
            name: self._tensor(name, [self._read(name, chunk) for chunk in self.spread(rows)])
            for name in self.hook_names
        }

    def spread(self, rows: int) -> Sequence[int]:
        """Evenly spread chunks with about that many rows; all, if they have fewer."""
        count = -(-rows // self.store.manifest.chunk_rows)
        step = max(1, len(self.chunks) // count)
        return self.chunks[::step][:count]

    def draw(self, rows: int, generator: torch.Generator) -> Rows:
        """That many different random rows, the same for every site, ``(rows, width)``.

        All rows, if there are fewer.
        """
        count = -(-DRAWN_FROM * rows // self.store.manifest.chunk_rows)
        order = torch.randperm(len(self.chunks), generator=generator)[:count].tolist()
        chunks = [self.chunks[i] for i in order]
        kept = [len(self.left_out.kept(*self.store.rows_of_chunk(chunk))) for chunk in chunks]
        edges = np.cumsum([0, *kept])
        places = torch.randperm(int(edges[-1]), generator=generator)[:rows].sort().values.numpy()
        within = np.searchsorted(places, edges)
        spans = list(zip(chunks, edges, within, within[1:], strict=False))
        return {
            name: self._tensor(
                name, [self._read(name, chunk)[places[a:b] - first] for chunk, first, a, b in spans]
            )
            for name in self.hook_names
        }

    def statistics(self, hook_name: str) -> Statistics:
        """Exact statistics of a site, in the units of the store.

        If rows are left out, over the rows that are not massive: nearly the same rows, and known
        without reading the data.
        """
        if len(self.left_out.rows):
            return self.store.ordinary_statistics(hook_name)
        return self.store.statistics(hook_name)

    def _read(self, hook_name: str, chunk: int) -> NDArray[np.float32]:
        return self.left_out.read(self.store, hook_name, chunk)

    def _tensor(self, hook_name: str, parts: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)) * self._scale(hook_name)

    def _scale(self, hook_name: str) -> float:
        return self.scales.get(hook_name, 1.0)
