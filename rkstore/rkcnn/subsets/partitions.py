"""partitions: the dimensions shuffled and cut into disjoint groups."""

import numpy as np

from rkstore.rkcnn.subsets.base import Indices, Subsets, first_of_each


class Partitions(Subsets):
    """Groups of ``m`` dimensions, ``⌊d / m⌋`` disjoint ones from each random permutation.

    Their directions are orthogonal within a permutation, and every dimension is in nearly the same
    number of subsets. If ``m`` does not divide ``d``, each permutation leaves ``d mod m``
    dimensions out. From the orthogonal subsets of the RkCNN-SAE code, which draws a single
    permutation.
    """

    name = "partitions"

    def draw(self, d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
        wanted, groups = int(min(h, self.distinct(d, m))), d // m
        subsets = np.empty((0, m), np.int64)
        # Each permutation is equally likely, so every subset occurs eventually.
        while len(subsets) < wanted:
            permutations = -(-(wanted - len(subsets)) // groups)
            shuffled = generator.permuted(np.tile(np.arange(d), (permutations, 1)), axis=1)
            cut = np.sort(shuffled[:, : groups * m].reshape(-1, m), axis=1)
            subsets = first_of_each(np.concatenate([subsets, cut]))
        return subsets[:wanted]
