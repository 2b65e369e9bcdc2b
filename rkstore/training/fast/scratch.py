"""Memory for intermediate results, and for gradients, that is used again at every step."""

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Named pieces of memory that grow as needed.

    A fresh matrix of 50 MB takes several times longer to be mapped by the operating system,
    page by page, than to be written.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A contiguous tensor of any values; the last one of this name is overwritten."""
        key, size = (name, dtype, device), prod(shape)
        if key not in self._held or len(self._held[key]) < size:
            self._held[key] = torch.empty(size, dtype=dtype, device=device)
        return self._held[key][:size].view(shape)


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter that has one."""
    assert parameter.grad is not None
    return parameter.grad
