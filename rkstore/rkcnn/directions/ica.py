"""ica: the least Gaussian directions of a subset."""

from typing import TYPE_CHECKING

import numpy as np

from rkstore.errors import BadInput
from rkstore.rkcnn.directions.base import Directions, blocks_of, check_rank, eigenvectors, unit
from rkstore.rkcnn.moments import Doubles, Floats
from rkstore.rkcnn.subsets import Indices
from rkstore.rkcnn.threads import one_item_a_core

if TYPE_CHECKING:
    from torch import Tensor

# Steps of one component: it converges in about ten, or not at all.
MOST_STEPS = 200
# Two steps are the same when their cosine differs from 1 by less.
SAME = 1e-10


class ICA(Directions):
    """Independent components: the fixed point of FastICA in the whitened subset.

    ``w ← E[z g(w·z)] - E[g'(w·z)] w`` with ``g = tanh``, one component after another, each kept
    orthogonal to those before it (Hyvärinen & Oja 2000, "Independent component analysis: algorithms
    and applications", Neural Networks 13, sections 6.1 and 6.2). There is no randomness: each
    starts where the kurtosis is large, at the last eigenvector of ``E[‖z‖² z zᵀ]`` over the rest
    (Cardoso 1989, "Source separation using higher order moments", ICASSP).

    Whitening uses the covariance of all rows, the fixed point a sample of them. The result is the
    projection ``w K``, ``K`` the whitening: a row of the unmixing matrix.
    """

    name = "ica"

    def axes(
        self, covariance: Doubles, subsets: Indices, rows: Floats | None, components: int = 1
    ) -> Doubles:
        import torch

        if rows is None:
            raise BadInput("ica directions need rows besides the covariance: give a sample")
        if len(rows) <= subsets.shape[1]:
            # Otherwise some direction would single out any one row, whatever the data.
            raise BadInput(
                f"ica has {len(rows)} rows for subsets of {subsets.shape[1]} dimensions and needs "
                "more: give more rows, raise sample_rows or lower m"
            )
        values, vectors = eigenvectors(blocks_of(covariance, subsets))
        check_rank(values, subsets, components)
        sample = torch.from_numpy(rows.astype(np.float64))

        def find(i: int) -> "Tensor":
            real = values[i] > 1e-6 * values[i, -1]
            whitening = torch.from_numpy(vectors[i][:, real] / np.sqrt(values[i, real]))
            z = sample[:, torch.from_numpy(subsets[i])] @ whitening
            return fast_ica(z, components) @ whitening.T

        found = one_item_a_core(find, range(len(subsets)), sample.device)
        return unit(torch.stack(list(found)).numpy())


def fast_ica(z: "Tensor", components: int) -> "Tensor":
    """Independent directions ``(components, m)``, orthonormal, of white rows ``z``, ``(n, m)``."""
    found = z.new_zeros(components, z.shape[1])
    for i in range(components):
        before = found[:i]
        found[i] = _fixed_point(z, _start(z - z @ before.T @ before), before)
    return found


def _start(rest: "Tensor") -> "Tensor":
    """A direction ``(m,)`` of large kurtosis, orthogonal to those found before."""
    import torch

    weighted = rest * rest.square().sum(dim=1, keepdim=True)
    vectors: Tensor = torch.linalg.eigh(weighted.T @ rest)[1]
    return vectors[:, -1]


def _fixed_point(z: "Tensor", start: "Tensor", before: "Tensor") -> "Tensor":
    """One direction ``(m,)``, orthogonal to those found before, ``(i, m)``."""
    w = _orthogonal(start, before)
    for _ in range(MOST_STEPS):
        activity = (z @ w).tanh_()
        step = activity @ z / len(z) - (1 - activity.square()).mean() * w
        old, w = w, _orthogonal(step, before)
        if 1 - abs(float(old @ w)) < SAME:
            break
    return w


def _orthogonal(w: "Tensor", before: "Tensor") -> "Tensor":
    w = w - w @ before.T @ before
    return w.div_(w.norm())
