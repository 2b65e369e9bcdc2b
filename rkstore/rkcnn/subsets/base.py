"""The interface of subsets, and how a subset is represented."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rkstore.rkcnn.rotation import Doubles, Rotation
from rkstore.settings import Settings

Indices = NDArray[np.int64]

NO_ROTATION = 0


class Subsets(Settings, ABC):
    """Draws subspaces of ``m`` of ``d`` dimensions.

    Each is a row of ``m`` numbers: column ``c`` of rotation ``j`` is written ``j · d + c``,
    and rotation 0 is the identity, so that dimension ``c`` itself is written ``c``. A number fully
    determines its column: :func:`basis_of` needs no seed. The fields of a member are its options.
    """

    name: ClassVar[str]

    def distinct(self, d: int, m: int) -> float:
        """How many distinct subspaces there are."""
        return math.comb(d, m)

    @abstractmethod
    def draw(self, d: int, m: int, h: int, generator: np.random.Generator) -> Indices:
        """Distinct subsets ``(min(h, distinct), m)``, each row sorted."""


def basis_of(subset: Indices, d: int) -> Doubles:
    """The orthonormal basis ``(d, m)`` of a subset ``(m,)`` of any kind."""
    number, columns = int(subset[0]) // d, np.asarray(subset) % d
    if number == NO_ROTATION:
        return np.eye(d)[:, columns]
    return Rotation(d, number).columns(columns)


def by_rotation(subsets: Indices, d: int) -> Iterator[tuple[int, Indices]]:
    """Each rotation among subsets ``(h, m)``, and which of them are its columns."""
    numbers = subsets[:, 0] // d
    for number in np.unique(numbers):
        yield int(number), np.flatnonzero(numbers == number)


def first_of_each(subsets: Indices) -> Indices:
    """The rows of ``(h, m)`` without duplicates of earlier ones."""
    first = np.unique(subsets, axis=0, return_index=True)[1]
    return subsets[np.sort(first)]
