"""Memory for intermediate results and gradients, reused at every step."""

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Named pieces of memory that grow as needed.

    Mapping a fresh matrix of 50 MB page by page takes several times longer than writing it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A contiguous uninitialised tensor; it overwrites the last one of this name."""
        key, size = (name, dtype, device), prod(shape)
        if key not in self._held or len(self._held[key]) < size:
            self._held[key] = torch.empty(size, dtype=dtype, device=device)
        return self._held[key][:size].view(shape)


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which must exist."""
    assert parameter.grad is not None
    return parameter.grad
