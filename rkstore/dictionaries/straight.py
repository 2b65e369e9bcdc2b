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
    if torch.compiler.is_compiling():
        on = torch.where(pre > threshold, pre, 0).relu()
        return on + _felt(pre, threshold, bandwidth, -threshold.detach() / bandwidth)
    code: Tensor = _Jump.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return code


def step(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """``[z > θ]`` as numbers; the derivative by ``θ`` is ``-(1/ε) K((z - θ)/ε)``."""
    if torch.compiler.is_compiling():
        above = (pre > threshold).to(threshold.dtype)
        return above + _felt(pre, threshold, bandwidth, -1 / bandwidth)
    on: Tensor = _Step.apply(pre, threshold, bandwidth)  # type: ignore[no-untyped-call]
    return on


def _felt(pre: Tensor, threshold: Tensor, bandwidth: float, slope: Tensor | float) -> Tensor:
    """Zero, whose derivative by the threshold is ``slope · K``.

    What is compiled is fused anyway, and torch 2.11 drops derivatives of the functions below when
    it compiles them.
    """
    inside = (pre.detach() - threshold.detach()).abs() < bandwidth / 2
    line = inside * slope * threshold
    return line - line.detach()


# A comparison and a product with its result are four passes. The kernels for the derivatives of
# torch's own thresholds do the same in one.


def where_above(key: Tensor, values: Tensor) -> Tensor:
    """The values where the key is above 0, and 0 elsewhere."""
    return torch.ops.aten.threshold_backward(values, key, 0)  # type: ignore[no-any-return]


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        above = pre - threshold
        code = where_above(above, pre).relu_()
        ctx.save_for_backward(above, code, threshold)
        ctx.bandwidth = bandwidth
        return code

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        above, code, threshold = ctx.saved_tensors
        near = _near(grad, above, threshold, ctx.bandwidth)
        return where_above(code, grad), near * (-threshold / ctx.bandwidth), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        above = pre - threshold
        ctx.save_for_backward(above, threshold)
        ctx.bandwidth = bandwidth
        return above.sign().relu_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        above, threshold = ctx.saved_tensors
        return None, _near(grad, above, threshold, ctx.bandwidth) * (-1 / ctx.bandwidth), None


def _near(grad: Tensor, above: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The sum of a gradient over where the kernel is 1, ``(latents,)``.

    Args:
        above: ``z - θ``, ``(..., latents)``.
    """
    inside = torch.ops.aten.hardtanh_backward(grad, above, -bandwidth / 2, bandwidth / 2)
    return inside.to(threshold.dtype).sum_to_size(threshold.shape)  # type: ignore[no-any-return]
