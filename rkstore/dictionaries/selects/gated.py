"""Gated: whether a latent is on is decided apart from how much (arXiv 2404.16014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rkstore.dictionaries.selects.penalty import Penalised

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.losses import Coded
    from rkstore.dictionaries.selection import Selection


class Gated(Penalised):
    """``f = [z > 0] · ReLU(e^r z + b)`` of the pre-activations ``z``, which are the gates.

    Rajamanoharan et al. (2024), with weights tied as there. The penalty is on the gates alone, so
    it does not shrink the code: ``l1 · Σ ReLU(z)``. What teaches the gates is the error of the
    reconstruction from ``ReLU(z)``, with the decoder held fixed. The penalty can be annealed to one
    of a smaller power (``penalty.py``), the gated-anneal of dictionary_learning.

    The paper, and SAELens, give the magnitudes a bias apart from that of the gates: ``b_gate`` is
    our ``b_enc``, and ``b_mag = b + e^r b_enc``. The functions are the same; a step of Adam is
    not, since here a change of ``b_enc`` moves the magnitudes as well.
    """

    name = "gated"
    architecture = "gated"
    by_latent = True

    def code(self, pre: Tensor, kept: Selection) -> Tensor:
        import torch

        from rkstore.dictionaries.straight import where_above

        r_mag, b = kept.get_parameter("r_mag"), kept.get_parameter("b")
        return where_above(pre.detach(), torch.addcmul(b, pre, r_mag.exp()).relu())

    def losses(self, now: Coded) -> dict[str, Tensor]:
        gates = now.pre.relu()
        return {
            "l1": now.pressure * self.l1 * self.penalty(gates, now.kept.world),
            "gates": now.error_with(gates),
        }

    def learned(self, latents: int) -> dict[str, Tensor]:
        import torch

        return {"r_mag": torch.zeros(latents), "b": torch.zeros(latents)}

    def rescale(self, kept: Selection, scale: float | Tensor) -> None:
        kept.get_parameter("b").div_(scale)

    @classmethod
    def to_saelens(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        w = dict(tensors)
        w["b_gate"] = w.pop("b_enc")
        w["b_mag"] = (w.pop("b") + w["r_mag"].double().exp() * w["b_gate"]).to(w["b_gate"])
        return w

    @classmethod
    def from_saelens(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        w = dict(tensors)
        w["b_enc"] = w.pop("b_gate")
        w["b"] = w.pop("b_mag") - w["r_mag"].double().exp() * w["b_enc"]
        return w
