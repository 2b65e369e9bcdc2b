"""What a probe may read of some rows: latents, and what they are to be better than."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.evaluation.chance import CALIBRATION_ROWS, random_like
from rkstore.evaluation.latents.sample import Floats, Sample
from rkstore.store.sites import Site

# Principal components that a probe may choose from.
COMPONENTS = 256


@torch.no_grad()
def code_of(dictionary: Dictionary, chosen: Sample, batch_size: int = 4096) -> Any:
    """The code of the rows, SciPy CSR float32 ``(n, d_sae)``.

    Where a dictionary has a code for each written site, a latent's is the largest of them.
    """
    device = dictionary.b_dec.device
    names = [site.hook_name for site in dictionary.wiring.reads]
    parts = []
    for first in range(0, len(chosen.rows), batch_size):
        part = slice(first, first + batch_size)
        f = dictionary.encode({n: torch.from_numpy(chosen.x(n)[part]).to(device) for n in names})
        parts.append(f.amax(dim=0) if f.dim() > 2 else f)
    return _stacked(parts)


def random_code(
    dictionary: Dictionary, code: Any, chosen: Sample, seed: int = 0, batch_size: int = 4096
) -> Any:
    """The code of a random dictionary of the same shape, select and L0, SciPy CSR ``(n, d_sae)``.

    It differs from the dictionary in what was learnt, and not in how sparse it is:
    :func:`rkstore.evaluation.chance.random_like`.
    """
    some = np.flatnonzero(chosen.train)
    some = some[:: -(-len(some) // CALIBRATION_ROWS)]
    device = dictionary.b_dec.device
    fitted = {
        site.hook_name: torch.from_numpy(chosen.x(site.hook_name)[some]).to(device)
        for site in dictionary.wiring.sites
    }
    l0 = code.count_nonzero() / code.shape[0]
    return code_of(random_like(dictionary, fitted, l0, seed), chosen, batch_size)


def principal_components(chosen: Sample, sites: Sequence[Site], seed: int = 0) -> Floats:
    """The first 256 principal components of the rows, by their training rows, ``(n, 256)``."""
    from sklearn.decomposition import PCA

    x = chosen.side_by_side(sites)
    count = min(COMPONENTS, x.shape[1], int(chosen.train.sum()))
    fitted = PCA(count, svd_solver="randomized", random_state=seed).fit(x[chosen.train])
    found: Floats = fitted.transform(x)
    return found


def _stacked(parts: Sequence[torch.Tensor]) -> Any:
    from scipy.sparse import csr_matrix, vstack

    return vstack([csr_matrix(part.cpu().float().numpy()) for part in parts], format="csr")
