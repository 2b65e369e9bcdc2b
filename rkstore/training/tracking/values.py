"""What is logged of a training, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rkstore.training.helpers import HELPERS
from rkstore.training.schedules import rate_of

if TYPE_CHECKING:
    from rkstore.training.run import Run


def logged(run: Run, entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an entry of a run's history, by the names of the crosslayer-transcoder code.

    ``train_loss`` is what was minimised: the sum of ``train_mse``, the reconstruction error
    (``Σ (x - x̂)²`` of a token, mean over tokens and prefixes), ``train_sparsity``, the losses of
    the select, and each helper's loss under its own name. With them ``L0``, ``fvu`` of the batch,
    ``dead_features``, ``lr`` and, if it is clipped, ``grad_norm``. What has no value is left out.
    """
    losses = dict(entry["losses"])
    found = {"train_loss": sum(losses.values()), "train_mse": losses.pop("reconstruction")}
    helped = {f"train_{name}": losses.pop(name) for name in HELPERS if name in losses}
    found |= {"train_sparsity": sum(losses.values())} | helped
    found |= {
        "L0": entry["l0"],
        "fvu": entry["fvu"],
        "dead_features": entry["dead"],
        "lr": rate_of(run.settings, entry["step"] - 1),
        "grad_norm": entry.get("grad_norm"),
    }
    return {name: value for name, value in found.items() if value is not None}
