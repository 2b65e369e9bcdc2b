"""JumpReLU: a threshold for each latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.base import Select
from rkstore.errors import BadInput
from rkstore.settings import option

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.losses import Coded
    from rkstore.dictionaries.selection import Selection
    from rkstore.dictionaries.world import World

SPARSITY = ("step", "tanh", "quadratic")


class JumpReLU(Select):
    """A pre-activation ``z`` above its latent's threshold ``θ`` stays.

    ``θ (latents,)`` is learned itself, not its logarithm, which Adam would hardly move, and is
    kept at 0 or above. Its gradients are straight-through (``straight.py``). The penalty is one of

    - step: ``l0 · L0``, of the paper;
    - tanh: ``l0 · Σ tanh(c · f)``, of Anthropic's "Circuits Updates - January 2025";
    - quadratic: ``l0 · (L0 / target_l0 - 1)²``, of Gemma Scope 2 and dictionary_learning, with L0
      the mean of the batch (in SAELens of each token).

    To ``θ`` each gives the derivative of the penalty convolved with the kernel; for tanh that is
    ``-tanh(c θ) K / ε``, where the chain rule through ``f`` would give a slope that is right only
    for a small ``c θ``. ``pre_act · Σ ReLU(θ - z)`` over dead latents, also Anthropic's, pulls them
    up to their thresholds. Decoder rows have norm 1, or ``--code-norm`` weighs ``f``, ``z`` and so
    ``θ``; this is the ``‖W_dec‖`` in the original losses.

    Adam moves a threshold by at most about ``--lr`` a step, so a short run with a small rate does
    not reach the sparsity that the weight asks for, nor ``target_l0``.

    The defaults are for inputs with a mean ``‖x‖²`` of ``d_in``; Anthropic's own are a bandwidth of
    2, a threshold of 0.1 and 4 in the tanh, for the same scale.
    """

    name = "jumprelu"
    architecture = "jumprelu"
    by_latent = True
    sparsity: str = option(
        "step", "Sparsity loss of a jumprelu code.", choices=SPARSITY, newer=True
    )
    l0: float = option(
        1.0, "Weight of the sparsity loss of a jumprelu code, per token.", least=0.0, newer=True
    )
    target_l0: float = option(
        32.0,
        "Active latents per token that the quadratic sparsity loss aims at.",
        least=1.0,
        newer=True,
    )
    tanh_scale: float = option(
        4.0, "Factor of the activations in the tanh sparsity loss.", least=0.0, newer=True
    )
    threshold: float = option(
        0.1, "Initial thresholds of a jumprelu code, before --init-scale.", least=0.0, newer=True
    )
    bandwidth: float = option(
        1.0,
        "Width of the window around a threshold from which it learns, in units of pre-activations "
        "with inputs scaled as --norm says.",
        least=0.0,
        newer=True,
    )
    pre_act: float = option(
        0.0,
        "Weight of the loss that pulls dead latents of a jumprelu code up to their thresholds; "
        "0 is off.",
        least=0.0,
        newer=True,
    )

    @property
    def penalised(self) -> bool:
        return self.l0 > 0 or self.pre_act > 0

    def check(self, latents: int) -> None:
        if self.bandwidth == 0:
            raise BadInput("--bandwidth is 0: thresholds would never learn, choose a width above 0")
        if self.sparsity == "quadratic" and self.target_l0 > latents:
            raise BadInput(
                f"--target-l0 is {self.target_l0:g}: it must be at most the {latents} latents"
            )

    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        from rkstore.dictionaries.straight import jump

        return jump(pre, kept.get_parameter("threshold"), self.bandwidth)

    def losses(self, now: Coded) -> dict[str, Tensor]:
        theta = now.kept.get_parameter("threshold")
        losses = {"l0": now.pressure * self.l0 * self._sparsity(now.pre, theta, now.kept.world)}
        if self.pre_act and now.dead.any():
            below = (theta - now.pre)[:, now.dead].relu()
            losses["pre_act"] = self.pre_act * below.sum(dim=-1).mean()
        return losses

    def _sparsity(self, pre: Tensor, theta: Tensor, world: World) -> Tensor:
        """The loss of its kind before its weight, mean over tokens."""
        from rkstore.dictionaries.straight import step

        on = step(pre, theta, self.bandwidth)
        if self.sparsity == "tanh":
            return (on * (self.tanh_scale * pre.relu()).tanh()).sum(dim=-1).mean()
        l0 = on.sum(dim=-1).mean()
        if self.sparsity == "step":
            return l0
        return (world.mean(l0) / self.target_l0 - 1).square()

    def learned(self, latents: int) -> dict[str, Tensor]:
        import torch

        return {"threshold": torch.full((latents,), self.threshold)}

    def constrain(self, kept: Selection) -> None:
        kept.get_parameter("threshold").clamp_(min=0)

    def rescale(self, kept: Selection, scale: float | Tensor) -> None:
        kept.get_parameter("threshold").div_(scale)
