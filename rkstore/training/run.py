"""A training run between two steps, and its checkpoints.

A checkpoint is written as a whole: the dictionary as SAELens loads it, and everything
that the next step depends on, so that a run goes on from there to the same bits.
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput, RkstoreError
from rkstore.rkcnn.mine import Probed, probed
from rkstore.settings import check_device, identity_of
from rkstore.store.batches.kept import LeftOut, left_out
from rkstore.store.batches.plan import BatchPlan, plan_batches, split_chunks
from rkstore.store.files import directory_aside
from rkstore.store.open import open_store
from rkstore.store.store import Store
from rkstore.training.fast.scratch import Scratch
from rkstore.training.inits import InitData, initialise
from rkstore.training.naming import (
    check_free,
    check_name,
    checkpoint_of,
    checkpoints_beside,
    parent_of,
)
from rkstore.training.settings import TrainSettings

STATE = "training_state.safetensors"

# Settings of which the identity has what they come to: the site, and a digest.
RESOLVED = ("layer", "layers", "hook", "directions")


class Diverged(RkstoreError):
    """A run whose numbers are no longer finite; its last good checkpoint stays."""


@dataclass(eq=False)
class Run:
    """A training run between two steps: everything that the next step depends on."""

    settings: TrainSettings
    store: Store
    hook_name: str
    chunks: list[int]
    left_out: LeftOut
    scale: float
    dictionary: Dictionary
    optimizer: torch.optim.Adam
    step: int = 0
    idle: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Tokens since each latent last fired, ``(d_sae,)`` int64."""
    history: list[dict[str, float | None]] = field(default_factory=list)
    scratch: Scratch = field(default_factory=Scratch)
    directions: str | None = None
    """Digest of the directions of a probe that it began at."""

    @property
    def data(self) -> InitData:
        """The rows to train on, for whoever wants some of them besides the batches."""
        return InitData(self.store, self.hook_name, self.chunks, self.scale, left_out=self.left_out)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which a latent is dead.

        10 million are usual, but a latent of a run so short must be found dead while there is
        time to help it: a twentieth of the tokens that the run sees if that is less.
        """
        return self.settings.dead_after or max(1, min(10_000_000, self._tokens // 20))

    @cached_property
    def _tokens(self) -> int:
        return self.plan.rows_before(self.settings.steps)

    @property
    def plan(self) -> BatchPlan:
        """Which rows the run sees at which step."""
        size, seed = self.settings.batch_size, self.data_seed
        return plan_batches(self.store, self.chunks, size, seed, self.left_out)

    @cached_property
    def name(self) -> str:
        return self.settings.name or default_name(self.identity)

    @property
    def finished(self) -> bool:
        return self.step == self.settings.steps

    @property
    def data_seed(self) -> int:
        """The seed that the order of the rows depends on."""
        chosen = self.settings.data_seed
        return self.settings.seed if chosen is None else chosen

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        chosen = {k: v for k, v in identity_of(self.settings).items() if k not in RESOLVED}
        store = self.store
        rows = [store.first_row, store.stop_row]
        given = {"directions_sha256": self.directions} if self.directions else {}
        return (chosen | given) | {
            "hook": self.hook_name,
            "store_fingerprint": store.manifest.fingerprint,
            # A part with all rows of the site trains as the whole store does.
            "store_rows": store.rows if rows == [0, store.rows] else rows,
        }

    def directory(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        return checkpoint_of(self.parent, self.name, step)

    @property
    def parent(self) -> Path:
        """The directory of this model's runs."""
        return parent_of(self.settings.out, self.model["name"])

    @property
    def model(self) -> dict[str, Any]:
        """Whose activations it trains on: name, and digest of the weights where it is known."""
        found = self.store.manifest.source.get("model", {})
        return {key: found.get(key) for key in ("name", "weights_sha256")}


def prepare(settings: TrainSettings) -> Run:
    """Open the store and make the dictionary, initialised, at step 0."""
    check_device(settings.device)
    if settings.name is not None:
        check_name(settings.name)
    store = open_store(settings.store)
    found = None if settings.directions is None else probed(settings.directions, store)
    hook_name = _site(settings, store, found)
    chunks, _ = split_chunks(store)
    d_in = store.manifest.width(hook_name)
    d_sae = settings.d_sae or int(d_in * settings.expansion)
    if settings.auxk > d_sae:
        raise BadInput(f"--auxk is {settings.auxk}: it must be from 0 to the {d_sae} latents")
    dictionary = Dictionary(d_in, d_sae, select_named(settings.dictionary, settings.model_dump()))
    data = InitData(
        store,
        hook_name,
        chunks,
        scale=1.0,
        directions=None if found is None else found.directions,
        left_out=left_out(
            store,
            hook_name,
            chunks,
            special_tokens=settings.special_tokens,
            max_norm=settings.max_norm,
        ),
    )
    data = replace(data, scale=_scale(data, settings.norm))
    initialise(dictionary, data, settings)
    dictionary.to(settings.device)
    return Run(
        settings,
        store,
        hook_name,
        chunks,
        data.left_out,
        data.scale,
        dictionary,
        torch.optim.Adam(dictionary.parameters(), lr=settings.lr, fused=True),
        idle=torch.zeros(d_sae, dtype=torch.int64, device=settings.device),
        directions=None if found is None else found.sha256,
    )


def _site(settings: TrainSettings, store: Store, found: Probed | None) -> str:
    """The site that is asked for, which a probe that is given must be of."""
    if found is None:
        return store.site(settings.layer, settings.hook)
    if settings.layer is None and not settings.hook:
        return found.hook_name
    hook_name = store.site(settings.layer, settings.hook)
    if hook_name != found.hook_name:
        raise BadInput(
            f"the probe in {settings.directions} is of {found.hook_name}, not of {hook_name}: "
            "give one of the same site"
        )
    return hook_name


def _scale(data: InitData, norm: str) -> float:
    """The factor that gives ``‖x‖²`` the mean that ``--norm`` asks for."""
    found = data.statistics.mean_square_norm
    if found == 0:
        raise BadInput(f"{data.hook_name} is zero in every row: there is nothing to train on")
    wanted = {"d_in": len(data.statistics.mean), "one": 1.0, "none": found}
    return math.sqrt(wanted[norm] / found)


def default_name(identity: dict[str, Any]) -> str:
    """A name that says what was trained, and differs wherever two runs differ."""
    digest = hashlib.sha256(
        json.dumps(identity, sort_keys=True, allow_nan=False).encode()
    ).hexdigest()
    return f"{identity['hook']}-{identity['dictionary']}-{identity['init']}-{digest[:8]}"


def save(run: Run) -> None:
    """Write the checkpoint of this step as a whole, then drop the state of the one before.

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
        | {"step": run.step, "scale": run.scale}
        | {"model": run.model, "text": source.get("text")},
    }
    report = {"identity": run.identity, "step": run.step, "history": run.history}
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    with directory_aside(directory) as aside:
        save_dictionary(run.dictionary.rescaled(run.scale), aside, metadata)
        (aside / TRAINING).write_text(text, "utf-8")
        save_file(_state(run), aside / STATE)
        shutil.rmtree(directory, ignore_errors=True)
    for step, other in checkpoints_beside(directory):
        if step != run.step:
            (other / STATE).unlink(missing_ok=True)


def check_finite(run: Run) -> None:
    """Raise Diverged unless all that the next step depends on is finite."""
    for name, tensor in _state(run).items():
        # A sum is finite only if all of its terms are.
        if not tensor.sum().isfinite():
            raise diverged(run, f"{name} is")


def diverged(run: Run, what: str) -> Diverged:
    """The error of a run of which something is not finite at this step."""
    kept = checkpoints_beside(run.directory(0))
    last = f"its checkpoint of step {kept[-1][0]} is kept" if kept else "nothing was written"
    return Diverged(
        f"{run.name} has diverged: at step {run.step} {what} not finite; {last}. "
        f"Choose a lower --lr than {run.settings.lr:g}"
    )


def resume(run: Run) -> None:
    """Go back to the last checkpoint of this run, if it has one.

    Raises:
        BadInput: what lies under its name is another run's, or cannot be read.
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
        # They lie in memory as their parameter does, which fused Adam relies on.
        run.optimizer.state[parameter] = {"step": tensors[f"{name}.step"]} | {
            key: torch.empty_like(parameter).detach().copy_(moment)
            for key, moment in moments.items()
        }


def _state(run: Run) -> dict[str, Tensor]:
    """Weights as they are trained, what the select keeps, Adam's moments, and how long each
    latent was idle."""
    tensors = run.dictionary.state_dict() | {"idle": run.idle}
    for name, parameter in run.dictionary.named_parameters():
        for key, value in run.optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _report(run: Run, path: Path) -> dict[str, Any]:
    """What a checkpoint says of its training, which must be this run's."""
    try:
        report: dict[str, Any] = json.loads((path / TRAINING).read_text("utf-8"))
        # Version 0.1 kept the layer as it was typed, and left no row out.
        before = {"special_tokens": True, **report["identity"]}
        before.pop("layer", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from None
    # What went without saying when it was written is None.
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
    return BadInput(f"cannot take up {path} ({error}): remove it to train from the start")
