"""The gradient of a whole batch: of its micro-batches, and of the processes that share it.

The gradient of the batch is the sum of those of its parts, each by its share of the rows. What a
select or a helper computes of "the batch" is of one micro-batch, over all processes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.world import ALONE, World
from rkstore.training import fast
from rkstore.training.fast import Measured
from rkstore.training.parallel import Part, parts_of
from rkstore.training.run import Run
from rkstore.training.schedules import pressure_of


@dataclass(frozen=True)
class Numbers:
    """What is logged of some rows: their squared error, how many entries of the code are on, and
    each loss, weighed, by its name."""

    error: Tensor
    on: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Whole:
    """Results of a batch.

    Args:
        fired: which latents were on for any token, bool ``(d_sae,)``.
        rows: of the batch.
        share: of them that this process has.
        error: ``Σ‖ŷ - y‖²``, and with it ``l0`` and each loss by name, if they were asked for.
    """

    fired: Tensor
    rows: int
    share: float
    error: Tensor
    l0: float = math.nan
    losses: dict[str, float] = field(default_factory=dict)


def differentiate(run: Run, rows: Rows, whole: int | None, measured: bool) -> Whole:
    """Fill the gradients with those of a batch.

    Args:
        rows: those of this process, ``(n, width)`` by site.
        whole: rows of the batch; by default these are all.
        measured: whether its numbers are asked for.
    """
    own, world = len(next(iter(rows.values()))), run.over_rows
    parts = parts_of(whole or own, world.rank, world.size, run.settings.accumulate)
    fired = torch.zeros_like(run.idle, dtype=torch.bool)
    sums, numbers = dict[str, Tensor](), list[Numbers]()
    for part, some in zip(parts, _split(rows, parts), strict=True):
        for pool in run.dictionary.pools:
            pool.world = replace(world, share=part.share)
        found = _differentiated(run, some)
        fired |= found.fired
        if measured:
            losses = {name: loss.item() * part.weight for name, loss in found.losses().items()}
            error, on = found.residual.square().sum(), found.on()
            numbers.append(Numbers(error, run.across.total(on), losses))
        _add(sums, run, part.weight, last=part is parts[-1])
    for name, parameter in run.trained:
        if name in sums:
            parameter.grad = sums[name]
            world.add_up(sums[name])
    for pool in run.dictionary.pools:  # whoever uses it besides is alone
        pool.world = ALONE
    share = sum(part.weight for part in parts) if world.size > 1 else 1.0
    done = Whole(world.any(fired), whole or own, share, run.dictionary.b_dec.new_zeros(()))
    return _counted(done, numbers, own, world) if measured else done


def _split(rows: Rows, parts: Sequence[Part]) -> Iterator[Rows]:
    """The rows of each part, which are one after the other."""
    first = 0
    for part in parts:
        stop = first + part.stop - part.first
        yield {name: x[first:stop] for name, x in rows.items()}
        first = stop


def _add(sums: dict[str, Tensor], run: Run, weight: float, last: bool) -> None:
    """Add the gradients, weighed, to the sums; the next part overwrites what they are in."""
    for name, parameter in run.trained:
        if parameter.grad is None:
            continue
        weighed = parameter.grad if weight == 1 else parameter.grad.mul_(weight)
        if name in sums:
            sums[name].add_(weighed)
        else:
            sums[name] = weighed if last else weighed.clone()


def _counted(done: Whole, parts: Sequence[Numbers], rows: int, world: World) -> Whole:
    """With the numbers of the batch, from those of this process's parts, so many rows."""
    names, error = list(parts[0].losses), parts[0].error
    for part in parts[1:]:
        error = error + part.error
    counts = [float(rows), float(sum(part.on for part in parts))]
    counts += [sum(part.losses[name] for part in parts) for name in names]
    if world.size > 1:
        counts = world.sum(torch.tensor(counts, dtype=torch.float64, device=error.device)).tolist()
    tokens, on, *losses = counts
    named = dict(zip(names, losses, strict=True))
    return replace(done, error=world.sum(error), l0=on / tokens, losses=named)


def _differentiated(run: Run, rows: Rows) -> Measured:
    """Fill the gradients with those of some rows, by hand where that is supported."""
    dictionary, dtype = run.dictionary, getattr(torch, run.settings.dtype)
    asked, dead = pressure_of(run.settings, run.step), run.idle >= run.dead_after
    if fast.covers(dictionary, run.objective):
        return fast.gradients(
            dictionary, rows, run.scratch, run.objective, dead, asked, run.shares, dtype
        )
    run.optimizer.zero_grad()
    with torch.autocast(run.dictionary.b_dec.device.type, dtype, dtype != torch.float32):
        losses, now = run.objective(dictionary, rows, dead, asked, run.shares)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    on = now.f.detach() != 0
    if dictionary.wiring.views > 1:
        on = on.any(dim=0)
    residuals = [y.detach() - rows[name] for name, y in now.decoded.items()]
    residual = torch.cat(residuals, dim=-1)
    return Measured(residual, on.any(dim=0), lambda: int(on.count_nonzero()), lambda: losses)
