"""RkCNN: directions found by scoring random subsets of an activation's dimensions.

Draw ``h`` subsets of ``m`` dimensions, score each, keep the best ``r``, and take
the principal direction of each one kept. Random subsets ranked by a score come from
Lu & Gweon 2025, "Random k conditional nearest neighbor for high-dimensional data",
PeerJ Computer Science 11:e2497, which classifies labelled rows; reading directions
off them is the idea of the RkCNN-SAE code and not of the paper.

Subsets, scores and directions are families; ``docs/probing.md`` lists their members. ``probe.py``
runs the method on rows of any kind, ``mine.py`` on a site of a store. ``classifier.py`` is the
method of the paper, and ``recovery.py`` compares directions with known features; both are
imported by name.

>>> from rkstore.rkcnn import RkCNNProbe, StoreSite
>>> site = StoreSite(rkstore.open("stores/gpt2"), "blocks.8.mlp.hook_post")  # doctest: +SKIP
>>> result = RkCNNProbe(d_model=3072).probe(site)                            # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

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

# Imported on first use: the options of a probe must not wait for torch.
_WHERE = {
    "DIRECTIONS": "directions",
    "SCORES": "scores",
    "SUBSETS": "subsets",
    "Moments": "moments",
    "RkCNNProbe": "probe",
    "RkCNNResult": "result",
    "StoreSite": "source",
    "basis_of": "subsets",
    "keep_apart": "directions",
    "principal_directions": "directions",
    "random_subsets": "subsets",
    "score_named": "scores",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"rkstore.rkcnn.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'rkstore.rkcnn' has no attribute '{name}'")
