"""The toy model of superposition: more features than dimensions, few of them on at a time.

After Elhage et al. 2022, "Toy Models of Superposition", as the RkCNN-SAE code has it: the
directions of the features are drawn once and not trained. The draws are that code's own, in
its order, so that the same seed gives the same model and the same rows, to the bit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]

NO_FEATURE = -1


@dataclass(frozen=True)
class Toy:
    """Features with directions, and rows in which some of them are on."""

    directions: Tensor
    """``(n_features, d_hidden)``, of norm 1."""
    hidden: Tensor
    """``(n, d_hidden)``: the sum of the directions of a row's features, each times its size."""
    labels: Tensor
    """``(n,)``: the largest feature of a row, ``NO_FEATURE`` where none is on."""

    @property
    def overlaps(self) -> Tensor:
        """Cosines between features, ``(n_features, n_features)``."""
        return self.directions @ self.directions.T


def make_toy(
    n_features: int, d_hidden: int, feature_probability: float, n_samples: int, seed: int
) -> Toy:
    """Draw a model, and rows in which a feature is on with a probability, uniform in size."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(n_features, d_hidden, generator=generator), dim=1)
    probability = torch.full((n_samples, n_features), feature_probability)
    on = torch.bernoulli(probability, generator=generator)
    features = on * torch.rand(n_samples, n_features, generator=generator)
    largest, labels = features.max(dim=1)
    return Toy(directions, features @ directions, labels.where(largest > 0, NO_FEATURE))


def random_basis(d: int, generator: np.random.Generator) -> Floats:
    """A rotation or reflection ``(d, d)``, all equally likely.

    QR of a normal matrix, signs fixed by the diagonal of R (Mezzadri 2007, "How to generate
    random matrices from the classical compact groups", Notices of the AMS 54).
    """
    q, r = np.linalg.qr(generator.standard_normal((d, d)))
    basis: Floats = q * np.sign(np.diag(r))
    return basis
