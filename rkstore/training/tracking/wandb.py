"""Weights & Biases; without a network with ``WANDB_MODE=offline``, and ``wandb sync`` later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rkstore.errors import BadInput, one_line
from rkstore.store.jsontext import canonical
from rkstore.training.tracking.base import Tracker, library

if TYPE_CHECKING:
    from rkstore.training.run import Run

# Unless the environment names another one.
PROJECT = "rkstore"


class WeightsAndBiases(Tracker):
    """A run of the project ``$WANDB_PROJECT``, under the name of the training.

    Its id depends on the training alone, so a resumed training continues it.
    """

    name = "wandb"

    @classmethod
    def check(cls) -> None:
        library("wandb", cls.name)

    def __init__(self, run: Run) -> None:
        wandb = library("wandb", self.name)
        told = {"run": run.identity, "out": str(run.directory(0).resolve())}
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.name,
                id=hashlib.sha256(canonical(told).encode()).hexdigest()[:16],
                config=run.identity,
                resume="allow",
                # Several trainings of one pass are tracked at the same time.
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise BadInput(
                f"Weights & Biases does not take the run ({one_line(error)}): log in with 'wandb "
                "login', or set WANDB_MODE=offline"
            ) from None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
