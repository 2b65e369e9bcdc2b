"""What every select does."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from rkstore.dictionaries.sparse import SparseCode


class Select(nn.Module, ABC):
    """Turns pre-activations ``(batch, d_sae)`` into a non-negative code of the same shape.

    A latent that is on keeps its pre-activation, so the code's derivative is 1 where
    it is above zero and 0 elsewhere: training relies on it.
    """

    name: str
    architecture: str | None = None
    """What SAELens calls a dictionary with this select; None if it is saved as another."""
    options: tuple[str, ...] = ()
    """Names of the arguments that define it, as in the command's options."""
    l1: float = 0.0
    """Weight of the L1 penalty on the code."""

    @abstractmethod
    def forward(self, pre: Tensor) -> Tensor:
        """The code."""

    def forward_(self, pre: Tensor) -> Tensor:
        """The code, written over the pre-activations."""
        return pre.copy_(self(pre))

    def sparse(self, pre: Tensor) -> SparseCode | None:  # noqa: ARG002
        """The code as a list, if it is so sparse that a list is faster; else None."""
        return None

    def penalty(self, f: Tensor) -> Tensor:
        """What the training loss adds for the code ``f``, per token, a scalar."""
        return self.l1 * f.sum(dim=-1).mean()

    def fit(self, d_sae: int) -> None:
        """Get ready for that many latents, or raise BadInput."""

    def rescale(self, scale: float) -> None:
        """Become the select for pre-activations divided by ``scale``."""

    def at_inference(self, d_sae: int) -> "Select":  # noqa: ARG002
        """The select that stands for this one once training is over."""
        return self

    def config(self) -> dict[str, Any]:
        """What SAELens' ``cfg.json`` says of this select besides its architecture."""
        return {}
