"""The processes that train one dictionary together, each with some rows of every batch.

What depends on a whole batch, such as its mean or its largest entries, is asked of the
:class:`World`. In a world of one process every answer is what it was given.

Each process differentiates its own loss; the gradient of the batch is the sum of these, each by the
process's share of the rows. For a loss that is a mean over rows that is all. One that is a function
``F`` of means over rows takes them from :meth:`World.mean`: with ``m = Σ_r s_r m_r`` its gradient
is ``Σ_r s_r F'(m) ∇m_r``, which is what autograd finds if ``m`` has the value of the whole batch
and the gradient of the process's own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rkstore.errors import RkstoreError, one_line

if TYPE_CHECKING:  # reading the options of selects must not import torch
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """How many processes there are, and which of them this one is.

    Every method but :meth:`rows` waits for the other processes, which must call it as well.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        share: of the rows of the batch that this process has.
        hosts: the group in which processes exchange what is in their main memory, where that of
            tensors is between devices: a flag must not wait for a device.

    Raises:
        RkstoreError: another process has ended.
    """

    rank: int = 0
    size: int = 1
    share: float = 1.0
    hosts: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def rows(self, own: int) -> int:
        """How many rows all have, if this one has so many."""
        return round(own / self.share)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes, without a gradient."""
        if self.size == 1:
            return x
        found = x.detach().clone()
        self.add_up(found)
        return found

    def add_up(self, x: Tensor) -> None:
        """Overwrite a tensor by its sum over processes."""
        if self.size == 1:
            return
        import torch.distributed as dist

        # Encoders are in memory their transposes, and only what is contiguous can be sent.
        turned = x.T if x.dim() == 2 and not x.is_contiguous() else x
        whole = turned.contiguous()
        with _heard():
            dist.all_reduce(whole)
        if whole is not turned:
            turned.copy_(whole)

    def mean(self, part: Tensor) -> Tensor:
        """The mean over the batch, from that over the rows of this process; its gradient is
        that of ``part`` (see above)."""
        if self.size == 1:
            return part
        whole = self.sum(part * self.share)
        return part + (whole - part.detach()) if part.requires_grad else whole

    def any(self, mask: Tensor) -> Tensor:
        """Where it is true in any process, bool."""
        return self.sum(mask.int()) > 0 if self.size > 1 else mask

    def total(self, count: int) -> int:
        """The sum of a number over processes."""
        if self.size == 1:
            return count
        import torch
        import torch.distributed as dist

        found = torch.tensor(count)
        with _heard():
            dist.all_reduce(found, group=self.hosts)
        return int(found)

    def among(self, values: Tensor, k: int) -> Tensor:
        """Which entries of each row are among the k largest of that row in all processes.

        Args:
            values: of this process, ``(n, m)``; the others may have another ``m``.

        Returns:
            bool ``(n, m)``.
        """
        import torch

        each = [x.view(len(values), -1) for x in self.gather(values.detach().flatten())]
        everything = torch.cat(each, dim=1)
        on = torch.zeros_like(everything, dtype=torch.bool)
        largest = everything.topk(min(k, everything.shape[1]), dim=1, sorted=False)
        on.scatter_(1, largest.indices, value=True)
        return on.split_with_sizes([x.shape[1] for x in each], dim=1)[self.rank]

    def gather(self, x: Tensor) -> list[Tensor]:
        """Each process's ``(n,)``, by rank; the lengths may differ."""
        if self.size == 1:
            return [x]
        import torch
        import torch.distributed as dist

        lengths = x.new_zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(x)
        self.add_up(lengths)
        padded = x.new_zeros(int(lengths.max()))
        padded[: len(x)] = x
        found = [torch.empty_like(padded) for _ in range(self.size)]
        with _heard():
            dist.all_gather(found, padded)
        return [one[:n] for one, n in zip(found, lengths.tolist(), strict=True)]

    def told(self, thing: Any) -> Any:
        """What the first process gives; of the others it is ignored."""
        if self.size == 1:
            return thing
        import torch.distributed as dist

        held = [thing if self.first else None]
        with _heard():
            dist.broadcast_object_list(held, group=self.hosts)
        return held[0]

    def to_first(self, thing: Any) -> list[Any]:
        """What each process gives, by rank, in the first one; elsewhere nothing."""
        if self.size == 1:
            return [thing]
        import torch.distributed as dist

        held = [None] * self.size if self.first else None
        with _heard():
            dist.gather_object(thing, held, group=self.hosts)
        return held or []

    def said(self, thing: Any) -> list[Any]:
        """What each process gives, by rank."""
        if self.size == 1:
            return [thing]
        import torch.distributed as dist

        held = [None] * self.size
        with _heard():
            dist.all_gather_object(held, thing, group=self.hosts)
        return held


ALONE = World()


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # DistError is one, and gloo raises bare ones
        raise RkstoreError(
            f"another process of this training has ended ({one_line(error, 120)}): see what it "
            "said, and run the same command again to continue"
        ) from None
