"""--center: the initial ``b_dec``, which a centred encoder subtracts from its inputs."""

import torch
from torch import Tensor

from rkstore.dictionaries.rows import side_by_side
from rkstore.store.sites import Site
from rkstore.training.inits.base import Data

# Weiszfeld's algorithm ends when the median moves by less than this fraction of the mean distance
# of the rows, or after this many steps.
TOLERANCE, MOST_STEPS = 1e-5, 100


def centre(reading: Data, sites: tuple[Site, ...], kind: str) -> Tensor:
    """The initial ``b_dec`` of some sites, concatenated, at the scale of the training.

    Args:
        kind: mean, geometric-median or none.
    """
    if kind == "geometric-median":
        return geometric_median(side_by_side(reading.sample(), sites))
    mean = torch.cat([reading.mean(site.hook_name) for site in sites])
    return mean if kind == "mean" else torch.zeros_like(mean)


def geometric_median(x: Tensor) -> Tensor:
    """The point ``(d_in,)`` with the smallest sum of distances to the rows of ``x (n, d_in)``.

    Weiszfeld (1937), starting at the mean: a mean of the rows, each weighted by the inverse of its
    distance, iterated. A few rows of huge norm move it less than they move the mean, so Bricken et
    al. (2023) and Gao et al. (2024) start there.
    """
    mean = x.mean(dim=0)
    # Relative to the mean, where float32 is precise enough for a small step.
    centred, median = x - mean, torch.zeros_like(mean)
    for _ in range(MOST_STEPS):
        distances = (centred - median).norm(dim=1)
        weights = 1 / distances.clamp_min(1e-12)
        before, median = median, (weights / weights.sum()) @ centred
        if (median - before).norm() <= TOLERANCE * distances.mean():
            break
    return mean + median
