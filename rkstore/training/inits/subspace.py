"""subspace: every latent starts in the subspace in which the data varies."""

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
    outside the subspace of the activations would never fire. Where a bank writes what it reads its
    encoder is tied. Elsewhere, as in a transcoder, encoders are random unit directions in the
    subspace of what is read, and decoders lie in that of what is written.
    """

    name = "subspace"
    any_sites = True
    subspace_dim: int | None = option(
        None,
        "Dimensions of --init subspace; as many as hold 99 % of the variance by default.",
        least=1,
    )

    def fill(self, start: Start, generator: torch.Generator) -> None:
        widest, dim = min(start.bank.d_in, start.bank.d_out), self.subspace_dim
        if dim is not None and dim > widest:
            raise BadInput(f"--subspace-dim is {dim}: it must be from 1 to the {widest} dimensions")
        rows = max(SAMPLE_ROWS, ROWS_PER_DIMENSION * max(start.bank.d_in, start.bank.d_out))
        x, y = start.sample(rows)
        basis, W_dec = principal_subspace(y, dim), start.weights.W_dec
        W_dec.copy_(W_dec @ basis @ basis.T)
        start.normalise()
        if start.ties:
            start.tie()
        else:
            import torch
            from torch.nn import functional as F

            basis = principal_subspace(x, dim)
            drawn = torch.randn((start.bank.latents, start.bank.d_in), generator=generator)
            start.weights.W_enc.copy_(F.normalize(drawn @ basis @ basis.T, dim=1).T)


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
