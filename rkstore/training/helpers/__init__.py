"""Helpers: more losses, and changes after a step, as against dead latents. One file each.

To add one, write its file and add it to ``HELPERS``.
"""

from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.base import Helper
from rkstore.training.helpers.delta import Delta
from rkstore.training.helpers.entropy import Entropy
from rkstore.training.helpers.ghost import Ghost
from rkstore.training.helpers.resample import Resampling
from rkstore.training.helpers.temporal import Temporal

HELPERS: dict[str, type[Helper]] = {
    helper.name: helper for helper in (AuxK, Resampling, Ghost, Delta, Entropy, Temporal)
}
"""All helpers, by name: each helps if its options ask for it."""

__all__ = ["HELPERS", "Helper"]
