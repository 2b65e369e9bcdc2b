"""Site norms: how the rows of a site are normalised for training, from their exact statistics.

Every site is normalised by itself, one that is written as well as one that is read. A dictionary is
saved for rows as they are stored: the map is folded into its weights (``dictionaries/affine.py``).
What is logged in training, such as FVU, and all losses are of normalised rows; ``rkstore evaluate``
measures rows as they are stored.
To add a norm, write it here and add it to ``SITE_NORMS``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rkstore.settings import Settings, option

if TYPE_CHECKING:  # reading the options must not import torch
    from torch import Tensor

    from rkstore.dictionaries.affine import Affine
    from rkstore.rkcnn.moments import Moments
    from rkstore.store.statistics import Doubles, Statistics


@dataclass(frozen=True)
class OfSite:
    """What is known of a site.

    Args:
        statistics: of its rows, with a positive mean of ``‖x‖²``.
        moments: mean and covariance of the rows to train on, which reads them all.
    """

    statistics: Statistics
    moments: Callable[[], Moments]

    @property
    def width(self) -> int:
        return len(self.statistics.mean)


@dataclass(frozen=True)
class Normal:
    """``scale · map(x)``.

    When a dictionary is saved its code is divided by the scale (of the first site), so that it has
    the units of ``x`` and decoder rows of norm 1 keep it. With a map that treats dimensions
    differently there is no such unit: the code stays as trained, and rows of norm 1 are so only in
    the space of the training.
    """

    scale: float = 1.0
    map: Affine | None = None


class SiteNorm(Settings, ABC):
    """How the rows of a site are normalised. Its fields are its options."""

    name: ClassVar[str]
    centres: ClassVar[bool] = False
    """Whether the mean is subtracted, so that rows must differ."""

    @abstractmethod
    def of(self, site: OfSite) -> Normal:
        """The normalisation of one site."""


class MeanSquare(SiteNorm):
    """The mean of ``‖x‖²`` becomes the number of dimensions."""

    name = "d_in"

    def of(self, site: OfSite) -> Normal:
        return Normal(math.sqrt(site.width / site.statistics.mean_square_norm))


class One(SiteNorm):
    """The mean of ``‖x‖²`` becomes 1."""

    name = "one"

    def of(self, site: OfSite) -> Normal:
        return Normal(math.sqrt(1.0 / site.statistics.mean_square_norm))


class Unscaled(SiteNorm):
    """Rows as they are."""

    name = "none"

    def of(self, site: OfSite) -> Normal:  # noqa: ARG002
        return Normal()


class Centre(SiteNorm):
    """``x - mean``, scaled so that the mean of its squared norm is the number of dimensions."""

    name = "centre"
    centres = True

    def of(self, site: OfSite) -> Normal:
        import torch

        variance = float(site.statistics.variance.sum())
        one = torch.ones((), dtype=torch.float64)
        return Normal(math.sqrt(site.width / variance), _affine(site.statistics.mean, one, one))


class Floored(SiteNorm):
    """A norm that divides by deviations, of which none may be near zero."""

    centres = True
    norm_floor: float = option(
        1e-3,
        "Smallest variance that --norm standardise and whiten divide by, as a share of the mean "
        "variance of the dimensions: what hardly varies is mostly noise of the store's codec, "
        "which would be scaled up to a feature.",
        least=1e-12,
        newer=True,
    )

    def deviations(self, variance: Doubles) -> Doubles:
        """Square roots of variances ``(d,)``, those below the floor raised to it."""
        floor = self.norm_floor * variance.clip(min=0).mean()
        deviations: Doubles = variance.clip(min=floor) ** 0.5
        return deviations


class Standardise(Floored):
    """``(x - mean) / std`` in each dimension, as crosslayer-coding and circuit tracing do."""

    name = "standardise"

    def of(self, site: OfSite) -> Normal:
        import torch

        deviations = torch.from_numpy(self.deviations(site.statistics.variance))
        return Normal(map=_affine(site.statistics.mean, 1 / deviations, deviations))


class Whiten(Floored):
    """``(x - mean) C^-½`` with the covariance ``C``: every direction has variance 1.

    The symmetric root (ZCA; Bell & Sejnowski 1997, Kessy et al. 2018) stays nearest to ``x``, so
    dimensions keep their meaning. Eigenvalues below the floor are raised to it, and directions of
    such small variance stay below variance 1.
    """

    name = "whiten"

    def of(self, site: OfSite) -> Normal:
        import torch

        moments = site.moments()
        variances, directions = torch.linalg.eigh(torch.from_numpy(moments.covariance))
        deviations = torch.from_numpy(self.deviations(variances.numpy()))
        factor, inverse = (
            directions * power @ directions.T for power in (1 / deviations, deviations)
        )
        return Normal(map=_affine(moments.mean, factor, inverse))


SITE_NORMS: dict[str, type[SiteNorm]] = {
    norm.name: norm for norm in (MeanSquare, One, Unscaled, Centre, Standardise, Whiten)
}


def _affine(mean: Doubles, factor: Tensor, inverse: Tensor) -> Affine:
    import torch

    from rkstore.dictionaries.affine import Affine

    return Affine(torch.from_numpy(mean), factor, inverse)
