"""What every select does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.settings import Settings

if TYPE_CHECKING:  # the options of a select are needed where torch is not
    from torch import Tensor

    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.sparse import SparseCode


class Select(Settings, ABC):
    """Turns pre-activations ``(batch, latents)`` into a non-negative code of the same shape.

    Its fields are the options that define it. What it remembers of batches, and what it learns,
    lies in the :class:`Selection` that it is given, so that it is saved with the weights.

    A latent that is on keeps its pre-activation, so the code's derivative is 1 where it is above
    zero and 0 elsewhere: the gradient by hand relies on it.
    """

    name: ClassVar[str]
    architecture: ClassVar[str | None] = None
    """What SAELens calls a dictionary with this select; None if it is saved as another."""
    trained: ClassVar[bool] = True
    """Whether it can be trained; else it is only what others are loaded or saved as."""

    @abstractmethod
    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        """The code."""

    def code_(self, pre: Tensor, kept: Selection) -> Tensor:
        """The code, written over the pre-activations."""
        return pre.copy_(self.code(pre, kept))

    def sparse(self, pre: Tensor, kept: Selection) -> SparseCode | None:  # noqa: ARG002
        """The code as a list, if it is so sparse that a list is faster; else None."""
        return None

    def losses(self, f: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """What the training loss adds for the code ``f (n, latents)``: scalars by name."""
        return {}

    @property
    def l1_weight(self) -> float:
        """Weight of the L1 penalty among its losses, for the gradient by hand."""
        return 0.0

    def check(self, latents: int) -> None:
        """Raise BadInput unless it can work on so many latents."""

    def state(self, latents: int) -> dict[str, Tensor]:  # noqa: ARG002
        """What it remembers, by name, at the beginning."""
        return {}

    def rescale(self, kept: Selection, scale: float) -> None:
        """Become the select for pre-activations divided by ``scale``."""

    def at_inference(self, kept: Selection, latents: int) -> tuple[Select, dict[str, Tensor]]:  # noqa: ARG002
        """The select that stands for this one once training is over, and what it keeps."""
        return self, dict(kept.named_buffers())

    def config(self) -> dict[str, Any]:
        """What SAELens' ``cfg.json`` says of this select besides its architecture."""
        return {}
