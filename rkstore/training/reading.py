"""The data of a run: sites and chunks of a store, the rows left out, each site's normalisation.

Here rows become tensors; everything before uses only NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rkstore.dictionaries.affine import Affine, folded
from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Moments
from rkstore.rkcnn.source import StoreSite, ahead, read_blocks
from rkstore.store.batches.assemble import Batch, read_batches
from rkstore.store.batches.device import DeviceBatch, read_to_device
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.pieces import Part
from rkstore.store.batches.plan import BatchPlan, plan_batches
from rkstore.training.sitenorms import OfSite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.rows import Rows
    from rkstore.store.readable import Readable
    from rkstore.store.sites import Site
    from rkstore.store.statistics import Statistics
    from rkstore.training.sitenorms import Normal, SiteNorm

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
        maps: of the sites whose rows are mapped before they are scaled (``sitenorms.py``).
        order: of the rows in batches, one of ``ORDERS``.
    """

    store: Readable
    sites: tuple[Site, ...]
    chunks: Sequence[int]
    scales: Mapping[str, float] = field(default_factory=dict)
    left_out: LeftOut = ALL_KEPT
    maps: Mapping[str, Affine] = field(default_factory=dict)
    order: str = "rows"

    @property
    def hook_names(self) -> list[str]:
        """The sites by name."""
        return [site.hook_name for site in self.sites]

    def plan(self, size: int, seed: int) -> BatchPlan:
        """Which rows come in which batch."""
        return plan_batches(self.store, self.chunks, size, seed, self.left_out, order=self.order)

    def batches(
        self,
        size: int,
        seed: int,
        start: int = 0,
        part: Part | None = None,
        device: str = "cpu",
    ) -> Iterator[Batch | DeviceBatch]:
        """Endless batches, from number ``start``, in the units of the store; or a part of each.

        Args:
            device: if it is a CUDA device, batches are decoded there; the values are the same.
        """
        plan = self.plan(size, seed)
        if torch.device(device).type == "cuda":
            return read_to_device(self.store, self.hook_names, plan, device, start, part)
        return read_batches(self.store, self.hook_names, plan, start=start, part=part)

    def rows(self, batch: Batch | DeviceBatch, device: str) -> Rows:
        """The normalised rows of a batch, float32 ``(n, width)`` by site."""
        return {
            name: self._normalised(name, torch.as_tensor(batch.x[name]).to(device))
            for name in self.hook_names
        }

    def sample(self, rows: int = SAMPLE_ROWS) -> Rows:
        """About that many rows, whole chunks evenly spread, ``(n, width)`` by site."""
        chunks = self.spread(rows)
        with self.store.ahead(self.hook_names, chunks) as near:
            return {
                name: self._tensor(name, [self.left_out.read(near, name, n) for n in chunks])
                for name in self.hook_names
            }

    def of(self, sites: tuple[Site, ...]) -> Reading:
        """The same rows at these sites alone."""
        return replace(self, sites=sites)

    def source(self, hook_name: str, rows: int) -> StoreSite:
        """About that many rows of a site for a probe, as they are stored, evenly spread."""
        return StoreSite(self.store, hook_name, self.spread(rows), self.left_out)

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
        with self.store.ahead(self.hook_names, chunks) as near:

            def drawn(name: str) -> list[NDArray[np.float32]]:
                rows_of = partial(self.left_out.read, near, name)
                return [rows_of(chunk)[places[a:b] - first] for chunk, first, a, b in spans]

            return {name: self._tensor(name, drawn(name)) for name in self.hook_names}

    def statistics(self, hook_name: str) -> Statistics:
        """Exact statistics of a site, in the units of the store.

        If rows are left out, over the rows that are not massive: nearly the same rows, and known
        without reading the data.
        """
        if len(self.left_out.rows):
            return self.store.ordinary_statistics(hook_name)
        return self.store.statistics(hook_name)

    def mean(self, hook_name: str) -> Tensor:
        """The mean of a site as it is trained on, float64 ``(width,)``."""
        mean = torch.from_numpy(self.statistics(hook_name).mean)
        if hook_name in self.maps:  # each subtracts it
            return torch.zeros_like(mean)
        return mean * self.scales.get(hook_name, 1.0)

    def moments(self, hook_name: str) -> Moments:
        """Mean and covariance of the rows to train on, float64, in the units of the store.

        Reads all of them once, and shows a bar.
        """
        rows = StoreSite(self.store, hook_name, self.chunks, self.left_out)
        with tqdm(total=rows.rows, desc=hook_name, unit="row", disable=None) as bar:

            def blocks() -> Iterator[NDArray[np.float32]]:
                for block in read_blocks(rows):
                    yield block
                    bar.update(len(block))

            return Moments.over(ahead(blocks()), comoment=True)

    def in_store_units(self, dictionary: Dictionary) -> Dictionary:
        """The dictionary for rows as they are stored, of one that is trained on these."""
        return folded(dictionary.rescaled(self.scales), self.maps)

    def in_training_units(self, dictionary: Dictionary) -> Dictionary:
        """The inverse of :meth:`in_store_units`, to train a saved dictionary on."""
        inverse = {name: map.inverted for name, map in self.maps.items()}
        scales = {name: 1 / scale for name, scale in self.scales.items()}
        return folded(dictionary, inverse).rescaled(scales)

    def _tensor(self, hook_name: str, parts: list[NDArray[np.float32]]) -> Tensor:
        return self._normalised(hook_name, torch.from_numpy(np.concatenate(parts)))

    def _normalised(self, hook_name: str, x: Tensor) -> Tensor:
        mapped = self.maps[hook_name](x) if hook_name in self.maps else x
        return mapped * self.scales.get(hook_name, 1.0)


def normalised(reading: Reading, norm: SiteNorm) -> Reading:
    """The reading of the same rows with every site normalised.

    Raises:
        BadInput: a site is zero in every row, or has nothing left without its mean.
    """
    found: dict[str, Normal] = {}
    for name in reading.hook_names:
        statistics = reading.statistics(name)
        if statistics.mean_square_norm == 0:
            raise BadInput(f"{name} is zero in every row: there is nothing to train on")
        if norm.centres and not statistics.m2.any():
            raise BadInput(
                f"{name} is the same in every row, and --norm {norm.name} subtracts the mean: "
                "there is nothing to train on"
            )
        found[name] = norm.of(OfSite(statistics, partial(reading.moments, name)))
    scales = {name: normal.scale for name, normal in found.items()}
    maps = {name: normal.map for name, normal in found.items() if normal.map}
    return replace(reading, scales=scales, maps=maps)
