"""Rows of a store for PyTorch's own ``DataLoader``: one at a time, or in shuffled batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from rkstore.errors import BadInput
from rkstore.store.batches.assemble import read_batches
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.batches.plan import plan_batches
from rkstore.store.rows import Asked, column_of, is_one, rows_asked

if TYPE_CHECKING:
    from rkstore.store.readable import Readable

# The number of a row, or of several, and its activations: of one site, or of several by name.
Item = tuple[Any, Any]


class RowDataset(Dataset[Item]):
    """Some rows of a store, map-style: ``(row, x)``, with ``x`` float32 ``(d_in,)``.

    For samplers of one's own. A shuffled batch decodes about as many chunks as it has rows;
    :class:`BatchDataset` decodes each chunk once.
    """

    def __init__(
        self, store: Readable, site: str | Sequence[str], rows: Asked = slice(None)
    ) -> None:
        """Choose sites and rows; nothing is read yet.

        Args:
            site: a hook name; with a list of them, ``x`` is a dict.
            rows: as in ``store[rows]``; all readable rows by default. Item *i* is the *i*-th of
                them.

        Raises:
            BadInput: the store has no such site or row.
        """
        self.store, self.site = store, site
        _check_sites(store, site)
        if is_one(rows):
            rows = [rows]
        self.rows = rows_asked(store, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Item:
        [found] = self.__getitems__([item])
        return found

    def __getitems__(self, items: Sequence[int]) -> list[Item]:
        """Several items at once, as a ``DataLoader`` asks for them: each chunk is decoded once."""
        rows = self.rows[list(items)]
        x = {name: torch.from_numpy(column_of(self.store, name, rows)) for name in self._names}
        if isinstance(self.site, str):
            return list(zip(rows.tolist(), x[self.site], strict=True))
        return [(row, {n: x[n][i] for n in x}) for i, row in enumerate(rows.tolist())]

    @property
    def _names(self) -> list[str]:
        return _names(self.site)


class BatchDataset(IterableDataset[Item]):
    """Shuffled batches of a store, each row once an epoch: ``(rows, x)``.

    ``rows`` are int64 ``(n,)``, ``x`` float32 ``(n, d_in)``. Give it to a ``DataLoader`` with
    ``batch_size=None``. The batches of an epoch depend on the seed and the epoch alone. Ranks and
    workers share them out: of n workers in all, worker k reads every n-th, from the k-th on, so
    no row comes twice and none is missing, and ranks differ by at most one batch. Each worker
    already reads in threads: without workers it is mostly as fast.
    """

    def __init__(
        self,
        store: Readable,
        site: str | Sequence[str],
        batch_size: int = 4096,
        *,
        seed: int = 0,
        chunks: Sequence[int] | None = None,
        left_out: LeftOut = ALL_KEPT,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Plan the batches; nothing is read yet.

        Args:
            site: a hook name; with a list of them, ``x`` is a dict.
            seed: of the order of rows.
            chunks: those to draw from, such as the first of :func:`rkstore.split_chunks`; all
                readable ones by default.
            left_out: rows that are not read: see :func:`rkstore.left_out`.
            rank: of this process among ``world_size``. By default those of ``torch.distributed``
                if it is initialised now, or else 0 of 1.

        Raises:
            BadInput: the store has no such site; there are no rows; or rank and size do not fit.
        """
        super().__init__()
        self.store, self.site, self.epoch = store, site, 0
        _check_sites(store, site)
        if batch_size < 1:
            raise BadInput(f"--batch-size is {batch_size}: give 1 or more")
        here = store.chunk_range if chunks is None else chunks
        self.plan = plan_batches(store, here, batch_size, seed, left_out)
        self.rank, self.world_size = _rank(rank, world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the order is the same until it is called again.

        Before a pass, as that of ``torch``'s ``DistributedSampler``; not with
        ``persistent_workers``, which keep the dataset that they began with.
        """
        if epoch < 0:
            raise BadInput(f"the epoch is {epoch}: give 0 or more")
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return len(range(self.rank, self.plan.batches_per_epoch, self.world_size))

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # Worker by worker within a rank, so that a loader gets its batches in their order.
        first = self.rank + number * self.world_size
        count = self.plan.batches_per_epoch
        start = self.epoch * count
        batches = read_batches(
            self.store,
            _names(self.site),
            self.plan,
            start + min(first, count),
            start + count,
            self.world_size * workers,
        )
        for batch in batches:
            rows = torch.from_numpy(batch.rows)
            x: dict[str, Tensor] = {n: torch.from_numpy(values) for n, values in batch.x.items()}
            yield rows, x[self.site] if isinstance(self.site, str) else x


def _names(site: str | Sequence[str]) -> list[str]:
    return [site] if isinstance(site, str) else list(site)


def _check_sites(store: Readable, site: str | Sequence[str]) -> None:
    names = _names(site)
    if not names or len(set(names)) != len(names):
        raise BadInput("name one site, or several different ones")
    for name in names:
        store.check_site(name)


def _rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise BadInput("rank and world_size belong together: give both, or neither")
    if rank is None or world_size is None:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0, 1
        return distributed.get_rank(), distributed.get_world_size()
    if not 0 <= rank < world_size:
        raise BadInput(f"rank is {rank} of {world_size}: ranks count from 0")
    return rank, world_size
