"""Directions: vectors of the whole space found in a subset. One file each.

To add a kind, write its file, with the options that it needs, and add it to ``DIRECTIONS``.
"""

from rkstore.rkcnn.directions.apart import keep_apart
from rkstore.rkcnn.directions.base import Directions
from rkstore.rkcnn.directions.finding import find_directions, principal_directions
from rkstore.rkcnn.directions.ica import ICA
from rkstore.rkcnn.directions.mixing import Mixing
from rkstore.rkcnn.directions.principal import Principal

DIRECTIONS: dict[str, type[Directions]] = {kind.name: kind for kind in (Principal, ICA, Mixing)}
"""What ``probe --directions`` offers, by name."""

__all__ = ["DIRECTIONS", "Directions", "find_directions", "keep_apart", "principal_directions"]
