"""subspace: every latent starts in the subspace in which the data varies; encoder tied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# By default the subspace holds this fraction of the variance: the paper's measure of the dimension
# of activations, by which attention outputs fill 60 % of theirs.
VARIANCE = 0.99

# Rows for the covariance, and for each dimension: too few give a noisy estimate.
SAMPLE_ROWS, ROWS_PER_DIMENSION = 8192, 4


class Subspace(Init):
    """Active Subspace Initialization, Wang et al. (2025, arXiv 2508.16929).

    ``W_dec V Vᵀ`` for the ``d_in × dim`` matrix ``V`` of the first principal directions: a latent
    outside the subspace of the activations would never fire.
    """

    name = "subspace"
    subspace_dim: int | None = option(
        None,
        "Dimensions of --init subspace; as many as hold 99 % of the variance by default.",
        least=1,
    )

    def fill(self, start: Start, generator: torch.Generator) -> None:  # noqa: ARG002
        d_in, dim = start.bank.d_in, self.subspace_dim
        if dim is not None and dim > d_in:
            raise BadInput(f"--subspace-dim is {dim}: it must be from 1 to the {d_in} dimensions")
        x = start.sample(max(SAMPLE_ROWS, ROWS_PER_DIMENSION * d_in))
        basis, W_dec = principal_subspace(x, dim), start.weights.W_dec
        W_dec.copy_(W_dec @ basis @ basis.T)
        start.normalise()
        start.tie()


def principal_subspace(x: Tensor, dim: int | None = None) -> Tensor:
    """Orthonormal columns ``(d_in, dim)``, along which the rows ``x (n, d_in)`` vary most.

    Args:
        dim: how many; by default as few as hold ``VARIANCE`` of the variance.
    """
    import torch

    centred = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh((centred.T @ centred).double())
    variances, directions = variances.flip(0).clamp_min(0), directions.flip(1)
    if dim is None:
        held = variances.cumsum(0)
        dim = int((held < VARIANCE * held[-1]).sum()) + 1
    basis: Tensor = directions[:, :dim].float()
    return basis
