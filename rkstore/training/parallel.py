"""Several processes that train together: how they meet, share batches, and end.

They are started by ``accelerate launch`` or ``torchrun``, which say in the environment how many
there are; Accelerate makes the process group and chooses each one's device. A batch is the same
rows however many processes there are, each of which takes a slice of it, so that a run may be
resumed by another number of them. The first process alone writes and prints.
"""

import atexit
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput, RkstoreError, one_line
from rkstore.training.settings import TrainSettings


@dataclass(frozen=True)
class Part:
    """Rows ``first`` to ``stop`` of a batch, which a process computes at once.

    Args:
        share: of the rows of its micro-batch.
        weight: of its gradient in that of the batch.
    """

    first: int
    stop: int
    share: float
    weight: float


def parts_of(rows: int, rank: int, size: int, accumulate: int = 1) -> list[Part]:
    """The parts of a batch of so many rows that one of ``size`` processes takes.

    The batch is cut into ``accumulate`` micro-batches, and each of them among the processes, as
    evenly as can be. One with fewer rows than parts, which only the last of an epoch may be, is
    taken as a whole by every process.
    """
    if rows < size * accumulate:
        return [Part(0, rows, 1 / size, 1 / size)]
    parts = []
    for i in range(accumulate):
        start, stop = (rows * j // accumulate for j in (i, i + 1))
        a, b = (start + (stop - start) * j // size for j in (rank, rank + 1))
        parts.append(Part(a, b, (b - a) / (stop - start), (b - a) / rows))
    return parts


@dataclass(frozen=True)
class Slices:
    """The places in a batch of the rows that one process reads."""

    world: World
    accumulate: int

    def __call__(self, rows: int) -> NDArray[np.int64]:
        """Ascending, of a batch of so many rows."""
        parts = parts_of(rows, self.world.rank, self.world.size, self.accumulate)
        return np.concatenate([np.arange(part.first, part.stop) for part in parts])


def launched() -> int:
    """How many processes the launcher started; 1 if there is none."""
    said = os.environ.get("WORLD_SIZE", "")
    return int(said) if said.isdecimal() else 1


def joined(devices: Sequence[str]) -> tuple[World, str]:
    """The world that was launched, and the device of this process in it.

    The processes stay together until they end.

    Args:
        devices: asked for, of each dictionary; they must be the same if there are several
            processes.

    Raises:
        BadInput: Accelerate is not installed, or set up for what rkstore does not do; or a device
            is asked for that several processes would share.
        RkstoreError: the processes do not find one another.
    """
    if launched() == 1:
        return ALONE, devices[0]
    _check(devices)
    state = _met(on_cpu=devices[0] == "cpu")
    if state.device.type != devices[0]:
        raise BadInput(
            f"--device is {devices[0]}, and the processes have met on {state.device.type}: start "
            "them anew for another device"
        )
    hosts = _hosts(state.backend)
    return World(state.process_index, state.num_processes, hosts=hosts), str(state.device)


@cache
def _met(on_cpu: bool) -> Any:
    """The process group, as Accelerate makes it; it lasts until the process ends."""
    try:
        from accelerate import PartialState
    except ImportError:
        raise BadInput(
            f"{launched()} processes were started to train together, which needs a library that is "
            "not installed: pip install 'rkstore[accelerate]'"
        ) from None
    try:
        state = PartialState(cpu=on_cpu)
    except (RuntimeError, ValueError) as error:
        raise RkstoreError(
            f"the {launched()} processes do not find one another ({one_line(error)})"
        ) from None
    atexit.register(state.destroy_process_group)
    return state


@cache
def _hosts(backend: str) -> Any:
    """See :class:`World`; all processes make it together, once."""
    import torch

    return None if backend == "gloo" else torch.distributed.new_group(backend="gloo")


def _check(devices: Sequence[str]) -> None:
    """Raise BadInput if something that was asked for would not be done."""
    if len(set(devices)) > 1 or ":" in devices[0]:
        raise BadInput(
            f"--device is {', '.join(dict.fromkeys(devices))}: each of several processes has a "
            "device of its own, give all the same and without a number, such as --device cuda"
        )
    for what in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{what}", "false").lower() == "true":
            raise BadInput(
                f"Accelerate is set up for {what}, which rkstore does not use: leave it out, every "
                "process has the whole dictionary"
            )


def check_accelerate(dtype: str, accumulate: int) -> None:
    """Raise BadInput if Accelerate was told another precision or accumulation than rkstore."""
    if launched() == 1:
        return
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision != "no" and (precision, dtype) != ("bf16", "bfloat16"):
        raise BadInput(
            f"Accelerate is set up for {precision}, and --dtype is {dtype}: "
            + ("add --dtype bfloat16" if precision == "bf16" else "choose bf16, or none")
        )
    said = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if said not in ("1", str(accumulate)):
        raise BadInput(
            f"Accelerate is set up for {said} steps of accumulation, and --accumulate is "
            f"{accumulate}: give the same number, or leave it out there"
        )


def check_batch(settings: TrainSettings, world: World) -> None:
    """Raise BadInput if a batch cannot be cut."""
    rows, least = settings.batch_size, world.size * settings.accumulate
    processes = f"{world.size} processes" if world.size > 1 else ""
    of_each = f"--accumulate {settings.accumulate}" if settings.accumulate > 1 else ""
    said = " and ".join(filter(None, (processes, of_each)))
    if said and settings.order != "rows":
        raise BadInput(
            f"--order {settings.order} keeps rows together, which {said} would separate: train in "
            "one process, without --accumulate"
        )
    if rows < least:
        raise BadInput(f"--batch-size is {rows}, too few rows for {said}: give at least {least}")


@contextmanager
def together(world: World) -> Iterator[None]:
    """What fails here in one process fails in all, with the same error.

    It also waits for all. Nothing inside may itself wait for the others.
    """
    error: Exception | None = None
    try:
        yield
    except (RkstoreError, OSError, MemoryError) as raised:
        if world.size == 1:
            raise
        error = raised
    if world.size == 1:
        return
    if world.total(error is not None):
        raise next(one for one in world.said(_portable(error)) if one is not None)


def _portable(error: Exception | None) -> Exception | None:
    """An error as it can be sent to other processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the error is made of
        return RkstoreError(one_line(error))
    return error
