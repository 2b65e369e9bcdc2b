"""The interface of selects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rkstore.settings import Settings

if TYPE_CHECKING:  # reading a select's options must not import torch
    from torch import Tensor

    from rkstore.dictionaries.losses import Coded
    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class Select(Settings, ABC):
    """Turns pre-activations ``(batch, latents)`` into a sparse code of the same shape.

    Its fields are its options. Its state and parameters are in the given :class:`Selection`, so
    that they are saved with the weights. A latent is on where the code is not zero.
    """

    name: ClassVar[str]
    architecture: ClassVar[str | None] = None
    """SAELens' name of a dictionary with this select; None if it is saved as another."""
    signed: ClassVar[bool] = False
    """Whether the code may be negative."""
    by_latent: ClassVar[bool] = False
    """Whether, at inference, each latent is on or off whatever the others are."""

    of_training: ClassVar[frozenset[str]] = frozenset()
    """Its options that matter only in training, and are not written with a dictionary."""

    @abstractmethod
    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        """The code."""

    def code_(self, pre: Tensor, kept: Selection) -> Tensor:
        """The code, overwriting the pre-activations."""
        return pre.copy_(self.code(pre, kept))

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode | None:  # noqa: ARG002
        """The code as a list, if it is so sparse that a list is faster; else None."""
        return None

    def losses(self, now: Coded) -> dict[str, Tensor]:  # noqa: ARG002
        """Terms of the training loss, scalars by name."""
        return {}

    @property
    def penalised(self) -> bool:
        """Whether its losses could be evaded by a small code and a large decoder."""
        return False

    @property
    def l1_weight(self) -> float:
        """Weight of the L1 penalty among its losses, for the hand-written gradient."""
        return 0.0

    def at(self, step: int, steps: int) -> Self:  # noqa: ARG002
        """The select at a step, from 0, of a run of so many: what is annealed depends on it."""
        return self

    def check_run(self, steps: int) -> None:
        """Raise BadInput unless its annealing fits a run of so many steps."""

    def check(self, latents: int) -> None:
        """Raise BadInput unless it can work on so many latents."""

    def state(self, latents: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Its initial state, by name."""
        return {}

    def learned(self, latents: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Its parameters before the first step, by name."""
        return {}

    def constrain(self, kept: Selection) -> None:
        """Bring its parameters back to what is allowed, after a step."""

    def rescale(self, kept: Selection, scale: float | Tensor) -> None:
        """Become the select for pre-activations divided by ``scale``, one or one a latent."""

    def at_inference(self, kept: Selection, latents: int) -> tuple[Select, dict[str, Tensor]]:  # noqa: ARG002
        """The select that replaces this one after training, and its state."""
        return self, dict(kept.named_buffers()) | dict(kept.named_parameters())

    def in_training(self, kept: Selection) -> dict[str, Tensor] | None:
        """The state to train on with, from that of a dictionary on disk; None if it has another
        select."""
        return dict(kept.state_dict()) if type(kept.rule) is type(self) else None

    @classmethod
    def to_saelens(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights and its own tensors under SAELens' names and in its form."""
        return dict(tensors)

    @classmethod
    def from_saelens(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of :meth:`to_saelens`."""
        return dict(tensors)

    def config(self) -> dict[str, Any]:
        """The entries of SAELens' ``cfg.json`` for this select besides its architecture."""
        return {}
