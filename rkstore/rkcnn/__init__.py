"""RkCNN: directions found by scoring random subsets of an activation's dimensions.

Draw ``h`` subsets of ``m`` dimensions, score each, keep the best ``r``, and take the principal
direction of each. Random subsets ranked by a score come from Lu & Gweon 2025, "Random k conditional
nearest neighbor for high-dimensional data", PeerJ Computer Science 11:e2497, which classifies
labelled rows; taking directions from them is the idea of the RkCNN-SAE code, not of the paper.

Subsets, scores and directions are families; ``docs/probing.md`` lists their members. ``probe.py``
runs the method on rows of any kind, ``mine.py`` on a site of a store. ``classifier.py`` is the
method of the paper, and ``recovery.py`` compares directions with known features; both are
imported by name.

>>> from rkstore.rkcnn import RkCNNProbe, StoreSite
>>> site = StoreSite(rkstore.open("stores/gpt2"), "blocks.8.mlp.hook_post")  # doctest: +SKIP
>>> result = RkCNNProbe(d_model=3072).probe(site)                            # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from rkstore.door import door

if TYPE_CHECKING:
    from rkstore.rkcnn.directions import DIRECTIONS, keep_apart, principal_directions
    from rkstore.rkcnn.moments import Moments
    from rkstore.rkcnn.probe import RkCNNProbe
    from rkstore.rkcnn.result import RkCNNResult
    from rkstore.rkcnn.scores import SCORES, score_named
    from rkstore.rkcnn.source import StoreSite
    from rkstore.rkcnn.subsets import SUBSETS, basis_of, random_subsets

__all__ = [
    "DIRECTIONS",
    "SCORES",
    "SUBSETS",
    "Moments",
    "RkCNNProbe",
    "RkCNNResult",
    "StoreSite",
    "basis_of",
    "keep_apart",
    "principal_directions",
    "random_subsets",
    "score_named",
]

# Imported on first use: reading the options of a probe must not import torch.
__getattr__ = door(
    __name__,
    {
        "rkstore.rkcnn.directions": "DIRECTIONS keep_apart principal_directions",
        "rkstore.rkcnn.moments": "Moments",
        "rkstore.rkcnn.probe": "RkCNNProbe",
        "rkstore.rkcnn.result": "RkCNNResult",
        "rkstore.rkcnn.scores": "SCORES score_named",
        "rkstore.rkcnn.source": "StoreSite",
        "rkstore.rkcnn.subsets": "SUBSETS basis_of random_subsets",
    },
)
