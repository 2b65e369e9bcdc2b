"""subspace: every latent begins in the subspace in which the data varies; encoder tied."""

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.training.inits.data import SAMPLE_ROWS, InitData
from rkstore.training.inits.tied import tied
from rkstore.training.settings import TrainSettings

# By default the subspace holds this share of the variance: how the paper measures the
# dimension of activations, and finds attention outputs to fill 60 % of theirs.
VARIANCE = 0.99


def subspace(
    dictionary: Dictionary, data: InitData, settings: TrainSettings, generator: torch.Generator
) -> None:
    """Active Subspace Initialization, Wang et al. (2025, arXiv 2508.16929).

    ``W_dec V Vᵀ`` for the ``d_in × dim`` matrix ``V`` of the first principal directions: a
    latent outside the subspace that the activations fill would never fire.
    """
    dim = settings.subspace_dim
    if dim is not None and dim > dictionary.d_in:
        raise BadInput(
            f"--subspace-dim is {dim}: it must be from 1 to the {dictionary.d_in} dimensions"
        )
    # A covariance is blurred by too few rows for its size.
    x = data.sample(max(SAMPLE_ROWS, 4 * dictionary.d_in))
    basis = principal_subspace(x, dim)
    dictionary.W_dec.copy_(dictionary.W_dec @ basis @ basis.T)
    dictionary.normalise_decoder()
    tied(dictionary, data, settings, generator)


def principal_subspace(x: Tensor, dim: int | None = None) -> Tensor:
    """Orthonormal columns ``(d_in, dim)``, along which the rows ``x (n, d_in)`` vary most.

    Args:
        dim: how many; by default as few as hold ``VARIANCE`` of the variance.
    """
    centred = x - x.mean(dim=0)
    variances, directions = torch.linalg.eigh((centred.T @ centred).double())
    variances, directions = variances.flip(0).clamp_min(0), directions.flip(1)
    if dim is None:
        held = variances.cumsum(0)
        dim = int((held < VARIANCE * held[-1]).sum()) + 1
    basis: Tensor = directions[:, :dim].float()
    return basis
