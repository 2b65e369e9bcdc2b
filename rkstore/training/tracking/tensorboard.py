"""TensorBoard: event files beside the checkpoints, for ``tensorboard --logdir checkpoints``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rkstore.training.tracking.base import Tracker, beside, library

if TYPE_CHECKING:
    from rkstore.training.run import Run

END = ".tensorboard"


class TensorBoard(Tracker):
    """A curve for each number, in the directory ``<name>.tensorboard``."""

    name = "tensorboard"

    @classmethod
    def check(cls) -> None:
        library("torch.utils.tensorboard", cls.name)

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What was logged after the checkpoint that the run was resumed from is logged again.
        purged = run.step + 1 if run.step else None
        self._writer = SummaryWriter(str(beside(run, END)), purge_step=purged)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
