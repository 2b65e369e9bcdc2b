"""The gradient by hand: the numbers of ``objective.py``, faster, for what it covers."""

from rkstore.training.fast.covers import covers
from rkstore.training.fast.gradient import Measured, gradients
from rkstore.training.fast.scratch import Scratch

__all__ = ["Measured", "Scratch", "covers", "gradients"]
