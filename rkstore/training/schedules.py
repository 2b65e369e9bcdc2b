"""Schedules of a run: what of the learning rate and of the sparsity losses counts at a step.

Pure functions of the step, so that a resumed run has the same as one that was not interrupted.
What a select anneals is in the select (``Select.at``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.training.settings import TrainSettings

# By default the learning rate falls over this last share of the steps.
DECAY = 0.2

SHAPES = ("linear", "cosine", "constant")


def learning_rate(
    step: int, steps: int, warmup: int, decay: float = DECAY, shape: str = "linear"
) -> float:
    """Fraction of the peak learning rate at a step: up over ``warmup``, flat, down to zero.

    Args:
        decay: share of the steps, the last ones, over which it falls.
        shape: how it falls, one of ``SHAPES``; cosine is half a period (Loshchilov and Hutter
            2017, arXiv 1608.03983, without restarts), and constant does not fall.
    """
    rising = pressure(step, warmup)
    if shape == "constant":
        return rising
    falling = (steps - step) / max(1.0, decay * steps)
    if shape == "cosine":
        falling = (1 - math.cos(math.pi * min(1.0, falling))) / 2
    return min(rising, falling)


def pressure(step: int, warmup: int) -> float:
    """Fraction of the sparsity losses at a step: up over ``warmup``, then 1.

    Latents that an early penalty switches off rarely recover.
    """
    return min(1.0, (step + 1) / (warmup + 1))


def rate_of(settings: TrainSettings, step: int) -> float:
    """The learning rate of a run at a step."""
    return settings.lr * learning_rate(
        step, settings.steps, settings.warmup, _decay(settings), settings.lr_schedule
    )


def pressure_of(settings: TrainSettings, step: int) -> float:
    """The fraction of the sparsity losses of a run at a step."""
    chosen = settings.sparsity_warmup
    return pressure(step, settings.warmup if chosen is None else chosen)


def flat_until(settings: TrainSettings) -> float:
    """The step from which the learning rate falls; the last one if it does not."""
    return (1 - _decay(settings)) * settings.steps


def check_schedules(settings: TrainSettings) -> None:
    """Raise BadInput if a schedule does not fit the run."""
    decay, warmup = settings.decay, settings.sparsity_warmup
    if decay is not None and settings.lr_schedule == "constant":
        raise BadInput("--lr-schedule constant does not fall: leave out --decay")
    if decay is not None and not 0 < decay <= 1:
        raise BadInput(
            f"--decay is {decay:g}: it must be a share of the steps, above 0 and at most 1; for "
            "no decay give --lr-schedule constant"
        )
    if warmup is not None and warmup >= settings.steps:
        raise BadInput(
            f"--sparsity-warmup is {warmup}, of a run of {settings.steps} steps: give fewer, or "
            "the sparsity losses never count in full"
        )


def _decay(settings: TrainSettings) -> float:
    if settings.lr_schedule == "constant":
        return 0.0
    return DECAY if settings.decay is None else settings.decay
