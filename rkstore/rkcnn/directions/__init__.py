"""Directions: what stands for a subset in the whole space. One file each.

To add a kind, write its file, with the options that it needs, and add it to ``DIRECTIONS``.
"""

from typing import Any

from rkstore.rkcnn.directions.apart import keep_apart
from rkstore.rkcnn.directions.base import Directions
from rkstore.rkcnn.directions.finding import find_directions, principal_directions
from rkstore.rkcnn.directions.ica import ICA
from rkstore.rkcnn.directions.mixing import Mixing
from rkstore.rkcnn.directions.principal import Principal
from rkstore.settings import member_named

DIRECTIONS: dict[str, type[Directions]] = {kind.name: kind for kind in (Principal, ICA, Mixing)}


def directions_named(name: str, **options: Any) -> Directions:
    """Return the directions of that name, with those of the options that are their own.

    Raises:
        BadInput: no directions have that name, or an option is out of bounds.
    """
    return member_named("directions", DIRECTIONS, name, **options)


__all__ = [
    "DIRECTIONS",
    "Directions",
    "directions_named",
    "find_directions",
    "keep_apart",
    "principal_directions",
]
