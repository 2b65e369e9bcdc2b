"""Which latents are alike: by their decoders, and by firing on the same rows."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.latents.directions import decoder_directions, unit
from rkstore.evaluation.samples.codes import Segment
from rkstore.evaluation.samples.samples import Ints
from rkstore.store.readable import Readable

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# Latents whose cosines are computed at once: 100 MB with 24,576.
BLOCK = 1024


def decoders(dictionary: Dictionary, store: Readable) -> Floats:
    """Directions that latents write, norm 1, ``(d_sae, Σ width)``.

    A site counts for how much of it a latent writes, in units of the size of its rows.
    """
    sizes = {
        site.hook_name: store.statistics(site.hook_name).mean_square_norm ** 0.5 or 1.0
        for site in dictionary.wiring.writes
    }
    return unit(decoder_directions(dictionary, sizes)).astype(np.float32)


def check_same_sites(one: Dictionary, other: Dictionary) -> None:
    """Raise BadInput unless two dictionaries write the same sites."""
    ours, theirs = ([site.hook_name for site in made.wiring.writes] for made in (one, other))
    if sorted(ours) != sorted(theirs):
        raise BadInput(
            f"one dictionary writes {', '.join(ours)} and --against {', '.join(theirs)}: latents "
            "can be compared only at the same sites"
        )


def together(segments: Iterable[Segment], latents: Sequence[int], d_sae: int) -> Ints:
    """Rows at which some latents fire together with each other one, ``(n, d_sae)``."""
    found = np.zeros((len(latents), d_sae), np.int64)
    for segment in segments:
        shape = (len(segment.rows), d_sae)
        ones = np.ones(len(segment.place), np.int32)
        fires = sparse.csr_matrix((ones, (segment.place, segment.latent)), shape)
        found += (fires[:, list(latents)].T @ fires).toarray()
    return found


def phi(both: Ints, own: Ints, every: Ints, rows: int) -> Doubles:
    """The correlation of firing, 0 where a latent never or always fires.

    Args:
        both: rows at which both fire, ``(n, m)``.
        own: rows at which each of the ``n`` fires; ``every`` the same of the ``m``.
    """
    one, other = own[:, None].astype(np.float64), every[None].astype(np.float64)
    spread = np.sqrt(one * (rows - one) * other * (rows - other))
    found: Doubles = np.where(spread > 0, (rows * both - one * other) / np.maximum(spread, 1), 0)
    return found


def groups(directions: Floats, alive: NDArray[np.bool_], least: float) -> list[list[int]]:
    """Live latents that a chain of cosines of at least ``least`` joins, the largest group first.

    Those that are alone are left out.
    """
    numbers = np.flatnonzero(alive)
    own = torch.from_numpy(directions[numbers])
    pairs = []
    for first in range(0, len(own), BLOCK):
        near = (own[first : first + BLOCK] @ own.T >= least).nonzero().numpy()
        pairs.append(near + np.array([first, 0]))
    edges = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    ones = np.ones(len(edges), bool)
    graph = sparse.csr_matrix((ones, (edges[:, 0], edges[:, 1])), (len(own), len(own)))
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    found: dict[int, list[int]] = {}
    for latent, label in zip(numbers.tolist(), labels.tolist(), strict=True):
        found.setdefault(label, []).append(latent)
    several = [latents for latents in found.values() if len(latents) > 1]
    return sorted(several, key=lambda latents: (-len(latents), latents[0]))


def highest(scores: NDArray[np.floating], count: int) -> list[int]:
    """The places of the largest scores, falling; of equal ones the first."""
    return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]
