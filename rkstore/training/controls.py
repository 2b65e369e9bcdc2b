"""Control arms: dictionaries of which a part stays random, to compare trained ones with.

Korznikov et al. (2026, arXiv 2602.14111): dictionaries whose directions never leave their random
start score nearly as well as trained ones in interpretability, sparse probing and causal editing.
What an arm reaches is what a score gives to a code of this sparsity over these activations,
whatever its directions: a random baseline. Only what a trained dictionary has beyond its arms,
at the same L0, was learned.

The paper has them for autoencoders, and says that for transcoders and crosscoders they are still to
be found. Here the same matrices of every bank are frozen in any wiring; that is our extension.

Frozen are the directions alone. Biases, thresholds and the other matrix learn as always, so that
an arm can come to the L0 of the dictionary that it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rkstore.dictionaries.wirings import WIRINGS
from rkstore.errors import BadInput
from rkstore.settings import replace
from rkstore.training.helpers.resample import Resampling

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.training.settings import TrainSettings

# The inits whose directions owe nothing to the data.
RANDOM = ("random", "tied")

# Rows are brought this much closer to their start than they must be, so that rounding, of them or
# of a cosine, never takes one over the bound.
MARGIN = 1e-5


@dataclass(frozen=True)
class Control:
    """What of every bank does not learn.

    Args:
        frozen: the matrix that never changes, W_enc or W_dec.
        cosine: the smallest cosine of each decoder row to its start, over all sites that it
            writes, in the units of the training.
    """

    name: str
    frozen: str | None = None
    cosine: float | None = None

    def freeze(self, dictionary: Dictionary) -> None:
        """Keep the frozen matrices from being trained."""
        for _, weights in dictionary.banks:
            if self.frozen is not None:
                getattr(weights, self.frozen).requires_grad_(requires_grad=False)

    def start(self, dictionary: Dictionary) -> dict[str, Tensor]:
        """What :meth:`constrain` needs of a dictionary before its first step, by name."""
        if self.cosine is None:
            return {}
        banks = enumerate(dictionary.banks)
        return {f"start.{i}": weights.W_dec.detach().clone() for i, (_, weights) in banks}

    def constrain(self, dictionary: Dictionary, start: Mapping[str, Tensor]) -> None:
        """Turn back the decoder rows that have turned too far, each keeping its norm."""
        if self.cosine is None:
            return
        for i, (_, weights) in enumerate(dictionary.banks):
            turn_back(weights.W_dec.detach(), start[f"start.{i}"], self.cosine)


PLAIN = Control("none")
CONTROLS = {
    control.name: control
    for control in (
        Control("frozen-decoder", frozen="W_dec"),
        Control("soft-frozen-decoder", cosine=0.8),
        Control("frozen-encoder", frozen="W_enc"),
    )
}


def turn_back(rows: Tensor, start: Tensor, cosine: float) -> None:
    """Turn each row ``(n, width)``, in place, until its cosine to its start is ``cosine`` again.

    In the plane of both, so it is the nearest such row of the same norm. One that is near enough
    does not change.
    """
    import torch
    from torch.nn import functional as F

    unit = F.normalize(start, dim=1)
    norms, along = rows.norm(dim=1), torch.linalg.vecdot(rows, unit)
    far = along < (cosine + MARGIN) * norms
    if not far.any():
        return
    unit, norms = unit[far], norms[far].unsqueeze(1)
    across = F.normalize(rows[far] - along[far].unsqueeze(1) * unit, dim=1)
    least = cosine + 2 * MARGIN
    turned = least * unit + (1 - least**2) ** 0.5 * across
    rows[far] = norms * F.normalize(turned, dim=1)


def arms(settings: TrainSettings) -> list[TrainSettings]:
    """With ``--controls`` a dictionary and its control arms, else the dictionary alone.

    The arms have all of its options but those of its start, which is random.

    Raises:
        BadInput: it is itself one.
    """
    if not settings.controls:
        return [settings]
    if settings.control != PLAIN.name:
        raise BadInput("--controls trains all control arms: leave out --control")
    own = replace(settings, controls=False)
    start = "random" if WIRINGS[settings.wiring].paired else "tied"
    begun = {
        "init": settings.init if settings.init in RANDOM else start,
        "directions": None,
        "from_": None,
    }
    named = {name: settings.name and f"{settings.name}-{name}" for name in CONTROLS}
    return [own, *(replace(own, control=arm, name=named[arm], **begun) for arm in CONTROLS)]


def check_control(settings: TrainSettings) -> None:
    """Raise BadInput unless a control arm starts at random and stays there."""
    if settings.control == PLAIN.name:
        return
    if settings.from_ is not None:
        raise BadInput(
            f"--control {settings.control} is a random baseline, and --from a trained dictionary: "
            "leave out one of them"
        )
    if settings.init not in RANDOM:
        raise BadInput(
            f"--control {settings.control} is a random baseline, and --init {settings.init} starts "
            f"at what the data say: choose --init {' or '.join(RANDOM)}"
        )
    if settings.options(Resampling).resample_every:
        raise BadInput(
            f"--resample-every gives dead latents the directions of rows, which --control "
            f"{settings.control} must not have: leave it out"
        )
