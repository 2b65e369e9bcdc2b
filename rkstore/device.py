"""Torch devices."""

import torch

from rkstore.errors import BadInput


def check_device(device: str) -> None:
    """Raise BadInput unless a tensor can be made on that device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"device '{device}' is not to be had: {reason}") from None
