"""What a probe may read of some rows: latents, and what they are to be better than."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rkstore.dictionaries.dictionary import Dictionary
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


def random_code(dictionary: Dictionary, code: Any, chosen: Sample, seed: int = 0) -> Any:
    """The code of a random dictionary of the same shape and L0, SciPy CSR ``(n, d_sae)``.

    Each bank reads the same sites along as many random unit directions, from the mean of the
    training rows; of a row the largest positive activations stay, as many as the bank has on in
    the mean. So it differs from the dictionary in what was learnt, and not in how sparse it is.
    """
    from scipy.sparse import hstack

    generator = np.random.default_rng([seed, 1])
    first, found = 0, []
    for bank in dictionary.wiring.banks:
        on = code[:, first : first + bank.latents].count_nonzero() / code.shape[0]
        first += bank.latents
        drawn = generator.standard_normal((bank.d_in, bank.latents))
        directions = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0)).float()
        x = torch.from_numpy(chosen.side_by_side(bank.reads))
        kept = min(bank.latents, max(1, round(on)))
        found.append(_stacked([_largest(part @ directions, kept) for part in torch.split(x, 4096)]))
    return hstack(found, format="csr")


def principal_components(chosen: Sample, sites: Sequence[Site], seed: int = 0) -> Floats:
    """The first 256 principal components of the rows, by their training rows, ``(n, 256)``."""
    from sklearn.decomposition import PCA

    x = chosen.side_by_side(sites)
    count = min(COMPONENTS, x.shape[1], int(chosen.train.sum()))
    fitted = PCA(count, svd_solver="randomized", random_state=seed).fit(x[chosen.train])
    found: Floats = fitted.transform(x)
    return found


def _largest(pre: torch.Tensor, k: int) -> torch.Tensor:
    values, latents = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter_(1, latents, values.relu())


def _stacked(parts: Sequence[torch.Tensor]) -> Any:
    from scipy.sparse import csr_matrix, vstack

    return vstack([csr_matrix(part.cpu().float().numpy()) for part in parts], format="csr")
