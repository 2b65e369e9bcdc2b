"""The directions of latents, over all sites that a dictionary reads or writes."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import split
from rkstore.store.sites import Site

Doubles = NDArray[np.float64]


def decoder_directions(dictionary: Dictionary, sizes: Mapping[str, float]) -> Doubles:
    """Decoder rows over all written sites, ``(d_sae, Σ width)``; zero where a bank does not write.

    Args:
        sizes: root mean square norm of the rows of each site. Its part of a row is divided by it,
            so that a site counts for how much of it a latent writes.
    """
    parts = [(bank.latents, bank.writes, w.W_dec) for bank, w in dictionary.banks]
    return _side_by_side(parts, dictionary.wiring.writes, {n: 1 / s for n, s in sizes.items()})


def encoder_directions(dictionary: Dictionary, sizes: Mapping[str, float]) -> Doubles:
    """Encoder columns over all sites that are read, as rows ``(d_sae, Σ width)``.

    Args:
        sizes: as in :func:`decoder_directions`; a site's part is multiplied by it.
    """
    parts = [(bank.latents, bank.reads, w.W_enc.T) for bank, w in dictionary.banks]
    return _side_by_side(parts, dictionary.wiring.reads, sizes)


def _side_by_side(
    parts: Sequence[tuple[int, Sequence[Site], Tensor]],
    sites: Sequence[Site],
    factors: Mapping[str, float],
) -> Doubles:
    """Rows of each bank, in the columns of its sites, each site times its factor."""
    starts = np.cumsum([0, *(site.width for site in sites)])
    columns = {site: slice(a, a + site.width) for site, a in zip(sites, starts, strict=False)}
    found = np.zeros((sum(latents for latents, _, _ in parts), int(starts[-1])))
    first = 0
    for latents, own, weights in parts:
        for site, part in split(weights.detach().cpu().double(), own):
            factor = factors.get(site.hook_name, 1.0)
            found[first : first + latents, columns[site]] = part.numpy() * factor
        first += latents
    return found


def unit(directions: NDArray[np.floating]) -> Doubles:
    """Each row with norm 1; a row of zeros stays."""
    wide = directions.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    found: Doubles = wide / np.where(norms > 0, norms, 1.0)
    return found
