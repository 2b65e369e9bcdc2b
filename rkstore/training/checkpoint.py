"""Checkpoints of a run: written atomically, resumed bit for bit.

One holds the dictionary as SAELens loads it, and everything that the next step depends on.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rkstore.dictionaries import save_dictionary
from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput, RkstoreError, one_line, warn
from rkstore.store.files import clear_aside, directory_aside, writing
from rkstore.store.sites import head_of
from rkstore.store.writing.lock import locked
from rkstore.training.average import dictionary_for_use
from rkstore.training.naming import check_free, checkpoints_beside, is_checkpoint
from rkstore.training.run import Run

STATE = "training_state.safetensors"


class Diverged(RkstoreError):
    """A run whose numbers are no longer finite; its last good checkpoint stays."""


@contextmanager
def locked_run(run: Run) -> Iterator[None]:
    """Hold the name of a run, which one process at a time trains.

    Raises:
        BadInput: another process is training it, or something else has its name.
    """
    check_free(run.parent, run.name)
    with locked(run.parent / run.name, f"the run {run.name} in {run.parent}"):
        yield


class Damaged(Exception):
    """A checkpoint of which something cannot be read."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"cannot resume {path} ({one_line(reason)})")


def save(run: Run) -> None:
    """Write the checkpoint of this step as a whole, then drop the state of earlier ones.

    Until the run is finished two states are kept: should one be damaged, the other can be resumed.

    Raises:
        BadInput: by now there is a checkpoint of another run.
        Diverged: a number in it is not finite; nothing is written.
        RkstoreError: the disk is full or failed; the checkpoints before are as they were.
    """
    check_finite(run)
    directory = run.directory(run.step)
    before = [path for step, path in checkpoints_beside(directory) if step < run.step]
    kept = f"its checkpoint {before[-1].name} is intact" if before else "nothing was there before"
    with writing(directory, kept):
        with directory_aside(directory, replaces=True) as aside:
            _write(run, aside)
            if is_checkpoint(directory):
                with suppress(Damaged):
                    _report(run, directory)
        _drop_states(run)


def _drop_states(run: Run) -> None:
    """Remove the states of the checkpoints before this step, but the last of an unfinished run."""
    before = [path for step, path in checkpoints_beside(run.directory(0)) if step < run.step]
    for path in before if run.finished else before[:-1]:
        (path / STATE).unlink(missing_ok=True)


def _hook(site: str) -> dict[str, Any]:
    """The names by which SAELens knows a site: that of one head is the hook and its number."""
    hook, head = head_of(site)
    return {"hook_name": hook} | ({} if head is None else {"hook_head_index": head})


def _write(run: Run, directory: Path) -> None:
    """Fill the directory of a checkpoint."""
    source = run.store.manifest.source
    metadata = {
        "model_name": run.model["name"],
        **({"hook_name": run.hook_name} if run.hook_name_out else _hook(run.hook_name)),
        **({"hook_name_out": run.hook_name_out} if run.hook_name_out else {}),
        "context_size": run.store.manifest.context_size,
        "prepend_bos": source.get("tokens", {}).get("prepend_bos"),
        "dataset_path": source.get("text", {}).get("dataset"),
        "rkstore": run.identity
        | {"step": run.step, "scale": _scale(run)}
        | ({"mined": run.mined} if run.mined else {})
        | {"model": run.model, "text": source.get("text")},
    }
    report = {"identity": run.identity, "step": run.step, "history": run.history}
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    try:
        dictionary = run.reading.in_store_units(dictionary_for_use(run))
        save_dictionary(dictionary, directory, metadata)
        (directory / TRAINING).write_text(text, "utf-8")
        save_file(state_of(run), directory / STATE)
    except SafetensorError as error:  # so it wraps what the system says
        raise OSError(str(error)) from None


def check_finite(run: Run) -> None:
    """Raise Diverged unless everything that the next step depends on is finite."""
    # A sum is finite only if all of its terms are.
    found = [name for name, tensor in state_of(run).items() if not tensor.sum().isfinite()]
    # Of the latents of another process it is known there alone.
    for names in run.across.said(found):
        if names:
            raise diverged(run, f"{names[0]} is")


def diverged(run: Run, what: str) -> Diverged:
    """The error for a run with a value that is not finite at this step."""
    kept = checkpoints_beside(run.directory(0))
    last = f"its checkpoint of step {kept[-1][0]} is kept" if kept else "nothing was written"
    return Diverged(
        f"{run.name} has diverged: at step {run.step} {what} not finite; {last}. "
        f"Choose a lower --lr than {run.settings.lr:g}"
    )


def resume(run: Run) -> None:
    """Go back to the last checkpoint of this run that is whole, if it has one.

    A damaged one is passed over, and said on stderr.

    Raises:
        BadInput: what lies under its name is another run's, or none of it can be read.
    """
    check_free(run.parent, run.name)
    first = run.directory(0)
    clear_aside(first.parent, rf"{re.escape(first.name.removesuffix('_0'))}_\d+")
    damaged: list[Damaged] = []
    whole: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    for _, path in reversed(checkpoints_beside(first)):
        try:
            report = _report(run, path)
            if not whole and (path / STATE).is_file():
                whole.append((report, _tensors(run, path)))
        except Damaged as error:
            damaged.append(error)
    if damaged and not whole:
        raise BadInput(f"{damaged[0]}: remove it to train from the start")
    for one in damaged:
        warn(f"{one}; going on from step {whole[0][0]['step']}")
    if whole:
        restore(run, *whole[0])
        _drop_states(run)  # a kill may have come between a checkpoint and this


def agree(run: Run) -> None:
    """Give every process the state of the first one, which has resumed the run or begun it."""
    if run.world.size == 1:
        return
    state = {name: tensor.detach().cpu() for name, tensor in state_of(run).items()}
    report, tensors = run.world.told(({"step": run.step, "history": run.history}, state))
    if not run.world.first:
        device = run.settings.device
        restore(run, report, {name: tensor.to(device) for name, tensor in tensors.items()})


def check_same(run: Run) -> None:
    """Raise RkstoreError unless every process has come to the same numbers."""
    if run.over_rows.size == 1:
        return
    sums = {name: tensor.double().sum().item() for name, tensor in state_of(run).items()}
    first, *others = run.world.said(sums)
    different = [name for name in first if any(one[name] != first[name] for one in others)]
    if different:
        raise RkstoreError(
            f"at step {run.step} the processes that train {run.name} have different {different[0]}"
            ": are they different machines or versions? Its last checkpoint is as it was"
        )


def restore(run: Run, report: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Bring a run to a step that a report tells of, with tensors as :func:`state_of` names them."""
    run.step, run.history, run.idle = report["step"], report["history"], tensors["idle"]
    run.dictionary.load_state_dict({name: tensors[name] for name in run.dictionary.state_dict()})
    for name, tensor in run.held.items():
        tensor.copy_(tensors[name])
    for name, parameter in run.trained:
        if f"{name}.step" not in tensors:  # before the first step
            continue
        moments = {k: tensors[f"{name}.{k}"] for k in ("exp_avg", "exp_avg_sq")}
        # They need the memory layout of their parameter, which fused Adam relies on.
        run.optimizer.state[parameter] = {"step": tensors[f"{name}.step"]} | {
            key: torch.empty_like(parameter).detach().copy_(moment)
            for key, moment in moments.items()
        }


def _tensors(run: Run, path: Path) -> dict[str, Tensor]:
    """What a checkpoint keeps for the next step, under the names that :func:`state_of` gives.

    Raises:
        Damaged: it cannot be read, or a tensor is missing or of another shape.
    """
    try:
        tensors = load_file(path / STATE, device=run.settings.device)
    except (OSError, ValueError, SafetensorError) as error:
        raise Damaged(path, error) from None
    due = run.dictionary.state_dict() | {"idle": run.idle} | run.held
    for name, parameter in run.trained:
        due |= {f"{name}.exp_avg": parameter, f"{name}.exp_avg_sq": parameter}
        due[f"{name}.step"] = torch.zeros(())
    for name, tensor in due.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise Damaged(path, f"{STATE} has no {name} of this run's shape")
    return tensors


def state_of(run: Run) -> dict[str, Tensor]:
    """Training weights, the select's state, Adam's moments, how long each latent was idle, and
    whatever else is held."""
    tensors = run.dictionary.state_dict() | {"idle": run.idle} | run.held
    for name, parameter in run.trained:
        for key, value in run.optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _report(run: Run, path: Path) -> dict[str, Any]:
    """What a checkpoint says of its training, which must be this run's.

    Raises:
        BadInput: it is another run's.
        Damaged: it cannot be read.
    """
    try:
        report: dict[str, Any] = json.loads((path / TRAINING).read_text("utf-8"))
        # Version 0.1 kept the layer as it was typed, and left no row out.
        before = {"special_tokens": True, **report["identity"]}
        before.pop("layer", None)
        step = int(path.name.rpartition("_")[2])
        if report["step"] != step or not isinstance(report["history"], list):
            raise ValueError(f"{TRAINING} is of another checkpoint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(path, error) from None
    # What went without saying when it was written is None.
    keys = before.keys() | run.identity.keys()
    different = sorted(k for k in keys if before.get(k) != run.identity.get(k))
    if different == ["steps"]:
        raise BadInput(
            f"{path} is of a run of {before['steps']} steps, and its schedules end with it: for "
            f"{run.identity['steps']} steps choose another --name, and to train on from this "
            "dictionary give it as --from"
        )
    if different:
        key = different[0]
        raise BadInput(
            f"{path} is another run with this name ({key} was {before.get(key)}, "
            f"is {run.identity.get(key)}): choose another --name"
        )
    return report


def _scale(run: Run) -> float | dict[str, float]:
    """The factor of the rows; by name if there are several sites."""
    scales = dict(run.reading.scales)
    return scales if len(scales) > 1 else next(iter(scales.values()))
