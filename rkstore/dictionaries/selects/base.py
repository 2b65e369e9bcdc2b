"""What every select does."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor


class Select(ABC):
    """Turns pre-activations ``(batch, d_sae)`` into a non-negative code of the same shape."""

    name: str
    architecture: str
    """What SAELens calls a dictionary with this select."""
    options: tuple[str, ...] = ()
    """Names of the attributes that define it, as in the command's options."""

    @abstractmethod
    def __call__(self, pre: Tensor) -> Tensor:
        """The code."""

    def penalty(self, f: Tensor) -> Tensor:
        """What the training loss adds for the code ``f``, per token, a scalar."""
        return f.new_zeros(())

    def check(self, d_sae: int) -> None:  # noqa: B027 - most selects fit any number
        """Raise BadInput if the select does not fit that many latents."""

    def config(self) -> dict[str, Any]:
        """What SAELens' ``cfg.json`` says of this select besides its architecture."""
        return {}
