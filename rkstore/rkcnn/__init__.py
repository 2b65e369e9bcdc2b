"""RkCNN: directions found by scoring random subsets of an activation's dimensions.

Draw ``h`` subsets of ``m`` dimensions, score each, keep the best ``r``, and take
the principal direction of each one kept. Random subsets ranked by a score come from
Lu & Gweon 2025, "Random k conditional nearest neighbor for high-dimensional data",
PeerJ Computer Science 11:e2497, which classifies labelled rows; reading directions
off them is the idea of the RkCNN-SAE code and not of the paper.

>>> from rkstore.rkcnn import RkCNNProbe, StoreSite
>>> site = StoreSite(rkstore.open("stores/gpt2"), "blocks.8.mlp.hook_post")  # doctest: +SKIP
>>> result = RkCNNProbe(d_model=3072).probe(site)                            # doctest: +SKIP
"""

from rkstore.rkcnn.directions import principal_directions
from rkstore.rkcnn.moments import Moments
from rkstore.rkcnn.probe import RkCNNProbe
from rkstore.rkcnn.result import RkCNNResult
from rkstore.rkcnn.scores import SCORES, score_named
from rkstore.rkcnn.source import StoreSite
from rkstore.rkcnn.subsets import random_subsets

__all__ = [
    "SCORES",
    "Moments",
    "RkCNNProbe",
    "RkCNNResult",
    "StoreSite",
    "principal_directions",
    "random_subsets",
    "score_named",
]
