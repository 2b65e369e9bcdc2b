"""Where the numbers of a training go while it runs: always to a JSONL file, and to other programs.

``values.py`` names what is logged, ``jsonl.py`` writes the file, and ``TRACKERS`` are the programs,
one file each. ``Tracking`` has all of a run.
"""

from collections.abc import Mapping

from rkstore.training.tracking.base import Tracker
from rkstore.training.tracking.tensorboard import TensorBoard
from rkstore.training.tracking.wandb import WeightsAndBiases

TRACKERS: Mapping[str, type[Tracker]] = {
    kind.name: kind for kind in (WeightsAndBiases, TensorBoard)
}
