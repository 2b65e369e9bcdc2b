"""What carries out many trainings: this process, or workers on one machine or many.

All give the same checkpoints. A pass over the store is a job of its own, with a run of everything
that it trains; a job that is tried again goes on from its last checkpoints.
"""

from collections.abc import Mapping

from rkstore.training.engines.base import Engine
from rkstore.training.engines.local import Local
from rkstore.training.engines.ray import Ray

__all__ = ["ENGINES", "Engine"]

ENGINES: Mapping[str, type[Engine]] = {kind.name: kind for kind in (Local, Ray)}
