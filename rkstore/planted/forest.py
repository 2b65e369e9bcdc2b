"""How often features fire, and which fire only under another.

Features are numbered by falling nominal probability. The first are roots, then level by level
their children, breadth first, as in SynthSAEBench (arXiv 2602.14687); the rest are in no tree. A
child can fire only if its parent fires, and of siblings at most one fires.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """Trees over ``F`` features and the probabilities that these fire."""

    parent: Indices
    """``(F,)``: the parent of a feature, which comes before it; -1 for a root or outside trees."""
    given_parent: Doubles
    """``(F,)``: probability to fire if the parent does; of a feature without one, at all."""

    @cached_property
    def probability(self) -> Doubles:
        """``(F,)``: probability to fire at all, exactly as drawn; its sum is the true L0."""
        found = self.given_parent.copy()
        for child in np.flatnonzero(self.parent >= 0):  # parents come first
            found[child] *= found[self.parent[child]]
        return found

    @cached_property
    def levels(self) -> list[Indices]:
        """The children of roots, then their children, and so on."""
        found, above = [], np.flatnonzero(self.parent < 0)
        while len(above := np.flatnonzero(np.isin(self.parent, above))):
            found.append(above)
        return found

    @cached_property
    def shares(self) -> tuple[Doubles, Doubles]:
        """``(F,)`` each: where a child's part of [0, 1) begins and ends among its siblings'.

        A uniform number of the parent chooses the sibling in whose part it falls, or none.
        """
        end = np.zeros(len(self.parent))
        for parent in np.unique(self.parent[self.parent >= 0]):
            children = np.flatnonzero(self.parent == parent)
            end[children] = np.cumsum(self.given_parent[children])
        return np.where(self.parent >= 0, end - self.given_parent, 0.0), end


def zipf(features: int, p_max: float, p_min: float, exponent: float) -> Doubles:
    """Probabilities ``(features,)`` that fall as ``rank^-exponent``, scaled to p_max … p_min."""
    if features == 1 or exponent == 0:  # then linear
        return np.linspace(p_max, p_min, features)
    power = np.arange(1.0, features + 1) ** -exponent
    scaled: Doubles = (power - power[-1]) / (power[0] - power[-1])
    return p_min + (p_max - p_min) * scaled


def forest(nominal: Doubles, roots: int, branching: int, depth: int) -> Forest:
    """The trees over features of nominal probabilities ``(F,)``.

    As in SynthSAEBench, each sibling is a candidate with a probability raised to make up for its
    parent and its rivals, and one candidate fires. Near the leaves that would need more than 1, so
    the true probabilities are below the nominal ones there.
    """
    parent = np.full(len(nominal), -1)
    given = nominal.copy()
    level, after = range(min(roots, len(nominal))), min(roots, len(nominal))
    for _ in range(depth):
        begin = after
        for node in level:
            children = np.arange(after, min(after + branching, len(nominal)))
            if len(children):
                parent[children] = node
                given[children] = _chosen(nominal[children] / nominal[node])
            after += len(children)
        level = range(begin, after)
    return Forest(parent, given)


def _chosen(wanted: Doubles) -> Doubles:
    """Probability of each sibling to be the one that fires.

    Candidate ``j`` has probability ``c_j = wanted_j · (1 + Σ of the others)``, at most 1; one of
    the candidates is chosen evenly. So ``j`` fires with ``c_j ∫₀¹ Π_{k≠j} (1 - c_k + c_k t) dt``.
    """
    candidate = np.minimum(1.0, wanted * (1 + wanted.sum() - wanted))
    nodes, weights = np.polynomial.legendre.leggauss(len(candidate) // 2 + 1)  # exact here
    t = (nodes + 1) / 2
    factors = 1 - candidate[:, None] + candidate[:, None] * t
    rest = np.stack([np.delete(factors, j, 0).prod(axis=0) for j in range(len(candidate))])
    chosen: Doubles = candidate * (rest @ weights) / 2
    return chosen
