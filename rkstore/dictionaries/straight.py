"""Straight-through gradients of a jump (Rajamanoharan et al. 2024, arXiv 2407.14435, eq. 11-12).

A step has no useful derivative by its threshold. These are the derivatives of the expected loss,
estimated with a rectangle kernel, ``K(u) = 1`` for ``|u| < 1/2``, over a bandwidth ``ε``. They
reach the threshold alone; a pre-activation gets the derivative of what is above it.
"""

from typing import Any

import torch
from torch import Tensor


def jump(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """``ReLU(z) · [z > θ]``; the derivative by ``θ`` is ``-(θ/ε) K((z - θ)/ε)``.

    Args:
        pre: ``z``, ``(..., latents)``.
        threshold: ``θ``, ``(latents,)``.
        bandwidth: ``ε``, above 0.
    """
    code: Tensor = _Jump.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return code


def step(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """``[z > θ]`` as numbers; the derivative by ``θ`` is ``-(1/ε) K((z - θ)/ε)``."""
    on: Tensor = _Step.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return on


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre.relu().mul_(_numbers(pre > threshold, pre))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = _near(grad, pre, threshold, ctx.bandwidth)
        above = grad * _numbers(pre > threshold.clamp_min(0), grad)
        return above, near * (-threshold / ctx.bandwidth), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        return None, _near(grad, pre, threshold, ctx.bandwidth) * (-1 / ctx.bandwidth), None


def _near(grad: Tensor, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The sum of a gradient over where the kernel is 1, ``(latents,)``."""
    inside = (pre - threshold).abs_() < bandwidth / 2
    return (grad * _numbers(inside, grad)).to(threshold.dtype).sum_to_size(threshold.shape)


def _numbers(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers: a product with it takes a third of the time of one with the mask."""
    return mask.to(like.dtype)
