"""The interface of helpers: add to the loss, or change the run after a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from rkstore.settings import Settings

if TYPE_CHECKING:  # reading a helper's options must not import torch
    from torch import Tensor

    from rkstore.dictionaries.wirings import Wiring
    from rkstore.training.objective import Pass
    from rkstore.training.run import Run


class Helper(Settings, ABC):
    """An addition to a training. Its fields are its options, off by default."""

    name: ClassVar[str]
    order: ClassVar[str | None] = None
    """The order of rows that it needs, one of ``store.batches.orders.ORDERS``; None for any."""

    @property
    @abstractmethod
    def asked_for(self) -> bool:
        """Whether its options enable it."""

    def check(self, wiring: Wiring) -> None:
        """Raise BadInput unless it can help such a dictionary."""

    @property
    def penalised(self) -> bool:
        """Whether its loss could be evaded by a small code and a large decoder."""
        return False

    def loss(self, now: Pass) -> Tensor | None:  # noqa: ARG002
        """What it adds to the loss, a scalar; None if nothing."""
        return None

    def after_step(self, run: Run) -> None:
        """Change the run after a step."""
