"""--center: where ``b_dec`` begins, and so what a centred encoder takes its inputs relative to."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import side_by_side
from rkstore.store.sites import Site
from rkstore.training.reading import Reading

# Weiszfeld's algorithm ends when the median moves by less than this share of the mean distance
# of the rows, or after so many steps.
TOLERANCE, MOST_STEPS = 1e-5, 100


def centre(reading: Reading, sites: tuple[Site, ...], kind: str) -> Tensor:
    """The beginning of ``b_dec`` of some sites side by side, at the scale of the training.

    Args:
        kind: mean, geometric-median or none.
    """
    if kind == "geometric-median":
        return geometric_median(side_by_side(reading.sample(), sites))
    means = [
        torch.from_numpy(reading.statistics(name).mean * reading.scales.get(name, 1.0))
        for name in (site.hook_name for site in sites)
    ]
    mean = torch.cat(means)
    return mean if kind == "mean" else torch.zeros_like(mean)


def geometric_median(x: Tensor) -> Tensor:
    """The point ``(d_in,)`` with the smallest sum of distances to the rows of ``x (n, d_in)``.

    Weiszfeld (1937), from the mean on: a mean of the rows, each weighted by one over its
    distance, again and again. Few rows of huge norm move it less than they move the mean, which
    is why Bricken et al. (2023) and Gao et al. (2024) begin there.
    """
    mean = x.mean(dim=0)
    # Relative to the mean, where float32 has the digits that a small step needs.
    centred, median = x - mean, torch.zeros_like(mean)
    for _ in range(MOST_STEPS):
        distances = (centred - median).norm(dim=1)
        weights = 1 / distances.clamp_min(1e-12)
        before, median = median, (weights / weights.sum()) @ centred
        if (median - before).norm() <= TOLERANCE * distances.mean():
            break
    return mean + median
