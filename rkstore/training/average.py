"""The moving average of the weights of a run.

Gao et al. (2024, arXiv 2406.04093) train with one of coefficient 0.999. With ``w_t`` the weights
after step t and β the coefficient, the average is

    a_t = (1 - β) Σ_i β^(t-i) w_i / (1 - β^t)

where the denominator is the bias correction of Adam: without it, the average of a short run would
be drawn to zero. The average is what a checkpoint holds for use. A run itself goes on with its raw
weights, which are in the training state, and its history is of these.

Averaged is everything that is a number of the dictionary, so also a threshold that follows the
weights. Averages of decoder rows of norm 1 are shorter; they get norm 1 again, as after a step.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from rkstore.errors import BadInput
from rkstore.training.helpers.resample import Resampling

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.training.run import Run
    from rkstore.training.settings import TrainSettings


def start_average(dictionary: Dictionary) -> dict[str, Tensor]:
    """The average before the first step: zeros, by name."""
    return {
        f"average.{name}": torch.zeros_like(tensor)
        for name, tensor in dictionary.state_dict().items()
        if tensor.is_floating_point()
    }


@torch.no_grad()
def follow(run: Run) -> None:
    """Take the weights after a step into the average."""
    if run.settings.ema is None:
        return
    share = (1 - run.settings.ema) / (1 - run.settings.ema**run.step)
    for name, tensor in run.dictionary.state_dict().items():
        if tensor.is_floating_point():
            run.held[f"average.{name}"].lerp_(tensor, share)


def dictionary_for_use(run: Run) -> Dictionary:
    """The dictionary with the averaged weights; the run's own where there is no average."""
    if run.settings.ema is None:
        return run.dictionary
    averaged = copy.deepcopy(run.dictionary)
    averaged.load_state_dict(
        {
            name: run.held.get(f"average.{name}", tensor)
            for name, tensor in run.dictionary.state_dict().items()
        }
    )
    run.constrain(averaged)
    return averaged


def check_average(settings: TrainSettings) -> None:
    """Raise BadInput if there can be no such average, or it would mix two latents."""
    if settings.ema is None:
        return
    if not 0 < settings.ema < 1:
        raise BadInput(
            f"--ema is {settings.ema:g}: it must be between 0 and 1, such as 0.999; for no "
            "average leave it out"
        )
    if settings.options(Resampling).resample_every:
        raise BadInput(
            "--resample-every makes another latent of a dead one, and --ema would average the "
            "two: leave out one of them"
        )
