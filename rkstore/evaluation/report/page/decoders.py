"""What the weights say of each latent: its nearest by decoder, and where it reads and writes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import split
from rkstore.store.readable import Readable

# Latents whose cosines are computed at once: 50 MB with 24,576.
BLOCK = 512

Neighbours = list[list[tuple[int, float]]]


@dataclass(frozen=True, eq=False)
class BankWires:
    """The wires of one bank: its sites, and how strongly each of its latents is wired to them."""

    first: int
    """Its first latent."""
    reads: list[str]
    writes: list[str]
    read_norms: NDArray[np.float64]
    """Norms of the encoder's columns at each site, ``(reads, latents)``, times the site's size."""
    write_norms: NDArray[np.float64]
    """Norms of the decoder's rows at each site, ``(writes, latents)``, over the site's size."""

    @property
    def latents(self) -> int:
        return int(self.read_norms.shape[1])


def wires(dictionary: Dictionary, store: Readable) -> list[BankWires]:
    """The wires of every bank.

    Norms are in units of the root mean square norm of a site's rows, so that sites of large
    activations do not count for more; massive rows are left out, which would decide it alone.
    """
    found, first = [], 0
    sizes = {
        site.hook_name: store.ordinary_statistics(site.hook_name).mean_square_norm ** 0.5 or 1.0
        for site in dictionary.wiring.sites
    }
    for bank, weights in dictionary.banks:
        reads = split(weights.W_enc.detach().T, bank.reads)
        writes = split(weights.W_dec.detach(), bank.writes)
        found.append(
            BankWires(
                first,
                [site.hook_name for site in bank.reads],
                [site.hook_name for site in bank.writes],
                np.stack([_norms(part) * sizes[site.hook_name] for site, part in reads]),
                np.stack([_norms(part) / sizes[site.hook_name] for site, part in writes]),
            )
        )
        first += bank.latents
    return found


def _norms(rows: Tensor) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = rows.double().norm(dim=1).cpu().numpy()
    return norms


def shares_of_first(dictionary: Dictionary, banks: list[BankWires]) -> NDArray[np.float64] | None:
    """``a / (a + b)`` of each latent's norms at the two written sites, ``(d_sae,)``.

    NaN for a latent that writes neither; None unless a dictionary writes two sites which it also
    reads. (Lindsey et al. 2024, "Sparse Crosscoders"; Minder et al. 2025, arXiv 2504.02922.)
    """
    sites = [site.hook_name for site in dictionary.wiring.writes]
    if len(sites) != 2 or set(dictionary.wiring.reads) != set(dictionary.wiring.writes):
        return None
    norms = np.zeros((2, dictionary.d_sae))
    for bank in banks:
        for name, part in zip(bank.writes, bank.write_norms, strict=True):
            norms[sites.index(name), bank.first : bank.first + bank.latents] = part
    total = norms.sum(axis=0)
    shares: NDArray[np.float64] = np.full(len(total), np.nan)
    np.divide(norms[0], total, out=shares, where=total > 0)
    return shares


def decoder_norms(dictionary: Dictionary) -> NDArray[np.float64]:
    """Norm of each latent's decoder row over all sites, ``(d_sae,)``."""
    return np.concatenate([_norms(weights.W_dec.detach()) for _, weights in dictionary.banks])


def cosines_of_coders(dictionary: Dictionary) -> NDArray[np.float64] | None:
    """Cosine of each latent's encoder and decoder; None if it writes other sites than it reads."""
    found = []
    for bank, weights in dictionary.banks:
        if bank.reads != bank.writes:
            return None
        pair = weights.W_enc.detach().T.double(), weights.W_dec.detach().double()
        found.append(torch.nn.functional.cosine_similarity(*pair, dim=1, eps=1e-30))
    cosines: NDArray[np.float64] = torch.cat(found).cpu().numpy()
    return cosines


def nearest(dictionary: Dictionary, most: int) -> Neighbours:
    """For each latent those of the nearest decoder in its bank, best first: number and cosine."""
    found: Neighbours = []
    first = 0
    for bank, weights in dictionary.banks:
        rows = weights.W_dec.detach()
        unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
        count = min(most, bank.latents - 1)
        for start in range(0, bank.latents, BLOCK):
            cosines = unit[start : start + BLOCK] @ unit.T
            own = torch.arange(len(cosines), device=cosines.device)
            cosines[own, start + own] = -2
            best = cosines.topk(count, dim=1)
            found += [
                [(first + int(j), float(c)) for j, c in zip(others, values, strict=True)]
                for others, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        first += bank.latents
    return found


def mutual(of: Neighbours) -> list[list[tuple[int, float, bool]]]:
    """The same neighbours, with whether each has this latent among its own."""
    known = [{other for other, _ in neighbours} for neighbours in of]
    return [
        [(other, value, latent in known[other]) for other, value in neighbours]
        for latent, neighbours in enumerate(of)
    ]


def units(dictionary: Dictionary, most: int) -> list[list[tuple[int, float]]]:
    """The dimensions that each latent writes most, with their weights in a decoder of norm 1.

    Only of a dictionary that writes one site: of several, a dimension would be ambiguous.
    """
    if len(dictionary.wiring.writes) != 1:
        return [[] for _ in range(dictionary.d_sae)]
    found = []
    for _, weights in dictionary.banks:
        rows = weights.W_dec.detach()
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
        places = rows.abs().topk(min(most, rows.shape[1]), dim=1).indices
        values = rows.gather(1, places)
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        found += [list(zip(*both, strict=True)) for both in pairs]
    return found
