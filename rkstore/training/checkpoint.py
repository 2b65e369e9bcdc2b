"""Checkpoints of a run: written atomically, resumed bit for bit.

One holds the dictionary as SAELens loads it, and everything that the next step depends on.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rkstore.dictionaries import save_dictionary
from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import directory_aside
from rkstore.training.naming import check_free, checkpoints_beside
from rkstore.training.run import Run

STATE = "training_state.safetensors"


class Diverged(RkstoreError):
    """A run whose numbers are no longer finite; its last good checkpoint stays."""


def save(run: Run) -> None:
    """Write the checkpoint of this step atomically, then drop the state of the one before.

    Raises:
        Diverged: a number in it is not finite; nothing is written.
    """
    check_finite(run)
    directory = run.directory(run.step)
    source = run.store.manifest.source
    metadata = {
        "model_name": run.model["name"],
        "hook_name": run.hook_name,
        "context_size": run.store.manifest.context_size,
        "prepend_bos": source.get("tokens", {}).get("prepend_bos"),
        "dataset_path": source.get("text", {}).get("dataset"),
        "rkstore": run.identity
        | {"step": run.step, "scale": _scale(run)}
        | {"model": run.model, "text": source.get("text")},
    }
    report = {"identity": run.identity, "step": run.step, "history": run.history}
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    with directory_aside(directory) as aside:
        save_dictionary(run.dictionary.rescaled(run.reading.scales), aside, metadata)
        (aside / TRAINING).write_text(text, "utf-8")
        save_file(_state(run), aside / STATE)
        shutil.rmtree(directory, ignore_errors=True)
    for step, other in checkpoints_beside(directory):
        if step != run.step:
            (other / STATE).unlink(missing_ok=True)


def check_finite(run: Run) -> None:
    """Raise Diverged unless everything that the next step depends on is finite."""
    for name, tensor in _state(run).items():
        # A sum is finite only if all of its terms are.
        if not tensor.sum().isfinite():
            raise diverged(run, f"{name} is")


def diverged(run: Run, what: str) -> Diverged:
    """The error for a run with a value that is not finite at this step."""
    kept = checkpoints_beside(run.directory(0))
    last = f"its checkpoint of step {kept[-1][0]} is kept" if kept else "nothing was written"
    return Diverged(
        f"{run.name} has diverged: at step {run.step} {what} not finite; {last}. "
        f"Choose a lower --lr than {run.settings.lr:g}"
    )


def resume(run: Run) -> None:
    """Go back to the last checkpoint of this run, if it has one.

    Raises:
        BadInput: the checkpoint under its name is another run's, or cannot be read.
    """
    check_free(run.parent, run.name)
    found = checkpoints_beside(run.directory(0))
    reports = {path: _report(run, path) for _, path in found}
    whole = [(step, path) for step, path in found if (path / STATE).is_file()]
    if not whole:
        return
    step, path = whole[-1]
    try:
        tensors = load_file(path / STATE, device=run.settings.device)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    report = reports[path]
    run.step, run.history, run.idle = step, report["history"], tensors["idle"]
    run.dictionary.load_state_dict({name: tensors[name] for name in run.dictionary.state_dict()})
    for name, parameter in run.dictionary.named_parameters():
        moments = {k: tensors[f"{name}.{k}"] for k in ("exp_avg", "exp_avg_sq")}
        # They need the memory layout of their parameter, which fused Adam relies on.
        run.optimizer.state[parameter] = {"step": tensors[f"{name}.step"]} | {
            key: torch.empty_like(parameter).detach().copy_(moment)
            for key, moment in moments.items()
        }


def _state(run: Run) -> dict[str, Tensor]:
    """Training weights, the select's state, Adam's moments, and how long each latent was idle."""
    tensors = run.dictionary.state_dict() | {"idle": run.idle}
    for name, parameter in run.dictionary.named_parameters():
        for key, value in run.optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _report(run: Run, path: Path) -> dict[str, Any]:
    """The identity in a checkpoint, which must be this run's."""
    try:
        report: dict[str, Any] = json.loads((path / TRAINING).read_text("utf-8"))
        # Version 0.1 kept the layer as it was typed, and left no row out.
        before = {"special_tokens": True, **report["identity"]}
        before.pop("layer", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None
    # Options that did not exist when it was written are None.
    keys = before.keys() | run.identity.keys()
    different = sorted(k for k in keys if before.get(k) != run.identity.get(k))
    if different:
        key = different[0]
        raise BadInput(
            f"{path} is another run with this name ({key} was {before.get(key)}, "
            f"is {run.identity.get(key)}): choose another --name"
        )
    return report


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"cannot resume {path} ({error}): remove it to train from the start")


def _scale(run: Run) -> float | dict[str, float]:
    """The factor of the rows; by name if there are several sites."""
    scales = dict(run.reading.scales)
    return scales if len(scales) > 1 else next(iter(scales.values()))
