"""The L1 penalty of a code, and its annealing to an Lp penalty (Karvonen et al. 2024).

"Measuring Progress in Dictionary Learning for Language Model Interpretability with Board Game
Models" (arXiv 2408.00113), section 4: the penalty ``Σ f^p`` with p falling from 1 to ``p_end`` in
the later part of the training. L1 shrinks activations; the smaller p is, the more the penalty is
one of how many latents are on, as L0 is, but with a gradient.

Here it is, with ``m`` the mean of the activations that are on and ``ε = m / 100``,

    l1 · Σ g(f) · (Σ f / Σ g(f))      g(f) = ((1 + f / ε)^p - 1) / p;  log(1 + f / ε) for p = 0

- ``(f + ε)^p`` in place of ``f^p``: that has an infinite derivative at 0, where most entries are.
- The quotient, a constant for the gradient, keeps the size of the penalty that of L1 while p
  falls. The paper, and PAnneal in dictionary_learning, change ``l1`` by the same quotient at each
  change of p, from the last ten batches; this is of the batch itself, so there is nothing to save.
- At p = 1 it is ``l1 · Σ f`` exactly, and at p → 0 it tends to that of the logarithm.
"""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, ClassVar, Self

from rkstore.dictionaries.selects.base import Select
from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput
from rkstore.settings import option

if TYPE_CHECKING:
    from torch import Tensor

# ε by the mean of the activations that are on: below it activations count as nearly off.
EPSILON = 0.01


class Penalised(Select, ABC):
    """A select whose code, or whose gates, have this penalty."""

    of_training: ClassVar[frozenset[str]] = frozenset(("p", "p_end", "anneal_steps"))
    l1: float = option(
        1.0,
        "Weight of the L1 penalty of a relu code, or of a gated code's gates, per token, with "
        "inputs scaled as --norm says.",
        least=0.0,
    )
    p: float = option(
        1.0,
        "Power in the penalty of a relu code, or of a gated code's gates, up to 1, which is L1.",
        least=0.0,
        newer=True,
    )
    p_end: float | None = option(
        None,
        "Power that --p falls to by the end of the run (p-annealing, Karvonen et al., who end at "
        "0.2). By default it does not fall: L1 is what most published dictionaries have.",
        least=0.0,
        newer=True,
    )
    anneal_steps: int | None = option(
        None,
        "Last steps of the run, over which --p falls to --p-end; by default half of them, as "
        "published: latents first find their directions under L1.",
        least=1,
        newer=True,
    )

    @property
    def penalised(self) -> bool:
        return self.l1 > 0

    def penalty(self, f: Tensor, world: World = ALONE) -> Tensor:
        """The penalty of a code ``f (n, latents)`` before its weight, mean over tokens.

        No entry of the code may be below zero.
        """
        total = f.sum(dim=-1).mean()
        if self.p == 1:
            return total
        on = world.sum((f > 0).sum()).clamp_min(1)
        epsilon = EPSILON * world.sum(f.detach().sum()) / on
        log = (f / epsilon.clamp_min(1e-30)).log1p()
        g = log if self.p == 0 else (self.p * log).expm1() / self.p
        found = g.sum(dim=-1).mean()
        quotient = world.mean(total.detach()) / world.mean(found.detach()).clamp_min(1e-30)
        return found * quotient

    def at(self, step: int, steps: int) -> Self:
        if self.p_end is None:
            return self
        length = self._length(steps)
        done = min(1.0, max(0.0, 1 - (steps - 1 - step) / length))
        return self.model_copy(update={"p": (1 - done) * self.p + done * self.p_end})

    def check_run(self, steps: int) -> None:
        if self.p > 1:
            raise BadInput(f"--p is {self.p:g}: it must be from 0 to 1, which is the L1 penalty")
        if self.p_end is None:
            if self.anneal_steps is not None:
                raise BadInput("--anneal-steps needs the power to fall to: give --p-end")
            return
        if self.p_end > self.p:
            raise BadInput(
                f"--p-end is {self.p_end:g}: it must be from 0 to --p, which is {self.p:g}"
            )
        if self._length(steps) >= steps:
            raise BadInput(
                f"--anneal-steps is {self._length(steps)}: annealing must be shorter than the run "
                f"of {steps} steps, give fewer or more --steps"
            )

    def _length(self, steps: int) -> int:
        return self.anneal_steps or max(1, steps // 2)
