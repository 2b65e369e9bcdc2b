"""A training run between two steps, and its checkpoints.

A checkpoint is written as a whole: the dictionary as SAELens loads it, and everything
that the next step depends on, so that a run goes on from there to the same bits.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rkstore.batches import split_chunks
from rkstore.device import check_device
from rkstore.dictionaries import (
    Dictionary,
    Scratch,
    initialise,
    save_dictionary,
    select_named,
)
from rkstore.dictionaries.inits import InitData
from rkstore.errors import BadInput
from rkstore.opening import open_store
from rkstore.settings import TrainSettings
from rkstore.store import Store

TRAINING, STATE = "training.json", "training_state.safetensors"

# Settings that say where and how long, not what: a run may be taken up with others.
NOT_IDENTITY = ("store", "out", "name", "device", "checkpoint_every")


@dataclass
class Run:
    """A training run between two steps: everything that the next step depends on."""

    settings: TrainSettings
    store: Store
    hook_name: str
    chunks: list[int]
    scale: float
    dictionary: Dictionary
    optimizer: torch.optim.Adam
    step: int = 0
    idle: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Tokens since each latent last fired, ``(d_sae,)`` int64."""
    history: list[dict[str, float]] = field(default_factory=list)
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def data(self) -> InitData:
        """The rows to train on, for whoever wants some of them besides the batches."""
        return InitData(self.store, self.hook_name, self.chunks, self.scale)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which a latent is dead.

        10 million are usual, but a latent of a run so short must be found dead while there is
        time to help it: a twentieth of the run if that is less.
        """
        tokens = self.settings.steps * self.settings.batch_size
        return self.settings.dead_after or max(1, min(10_000_000, tokens // 20))

    @property
    def name(self) -> str:
        return self.settings.name or default_name(self.settings, self.hook_name)

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
        chosen = {k: v for k, v in asdict(self.settings).items() if k not in NOT_IDENTITY}
        store = self.store
        rows = [store.first_row, store.stop_row]
        return chosen | {
            "hook": self.hook_name,
            "store_fingerprint": store.manifest.fingerprint,
            # A part with all rows of the site trains as the whole store does.
            "store_rows": store.rows if rows == [0, store.rows] else rows,
        }

    def directory(self, step: int) -> Path:
        """Where the checkpoint of a step is written."""
        model = str(self.store.manifest.source.get("model", {}).get("name", "unknown"))
        parent = Path(self.settings.out) / "sae" / model.split("/")[-1]
        return parent / f"{self.name}_{step}"


def prepare(settings: TrainSettings) -> Run:
    """Open the store and make the dictionary, initialised, at step 0."""
    check_device(settings.device)
    store = open_store(settings.store)
    hook_name = store.site(settings.layer, settings.hook)
    chunks, _ = split_chunks(store)
    d_in = store.manifest.width(hook_name)
    d_sae = settings.d_sae or int(d_in * settings.expansion)
    if settings.auxk > d_sae:
        raise BadInput(f"--auxk is {settings.auxk}: it must be from 0 to the {d_sae} latents")
    dictionary = Dictionary(d_in, d_sae, select_named(settings.dictionary, asdict(settings)))
    scale = _scale(store, hook_name, settings.norm)
    initialise(dictionary, InitData(store, hook_name, chunks, scale), settings)
    dictionary.to(settings.device)
    return Run(
        settings,
        store,
        hook_name,
        chunks,
        scale,
        dictionary,
        torch.optim.Adam(dictionary.parameters(), lr=settings.lr, fused=True),
        idle=torch.zeros(d_sae, dtype=torch.int64, device=settings.device),
    )


def _scale(store: Store, hook_name: str, norm: str) -> float:
    """The factor that gives ``‖x‖²`` the mean that ``--norm`` asks for."""
    found = store.statistics(hook_name).mean_square_norm
    if found == 0:
        raise BadInput(f"{hook_name} is zero in every row: there is nothing to train on")
    wanted = {"d_in": store.manifest.width(hook_name), "one": 1.0, "none": found}
    return math.sqrt(wanted[norm] / found)


def default_name(settings: TrainSettings, hook_name: str) -> str:
    """A name that says what was trained, and differs wherever two runs differ."""
    identity = {k: v for k, v in asdict(settings).items() if k not in NOT_IDENTITY}
    digest = hashlib.sha256(
        json.dumps(identity, sort_keys=True, allow_nan=False).encode()
    ).hexdigest()
    return f"{hook_name}-{settings.dictionary}-{settings.init}-{digest[:6]}"


def save(run: Run) -> None:
    """Write the checkpoint of this step as a whole, then drop the state of the one before."""
    directory = run.directory(run.step)
    aside = directory.with_name(f".{directory.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    source = run.store.manifest.source
    save_dictionary(
        run.dictionary.rescaled(run.scale),
        aside,
        {
            "model_name": source.get("model", {}).get("name"),
            "hook_name": run.hook_name,
            "context_size": run.store.manifest.context_size,
            "prepend_bos": source.get("tokens", {}).get("prepend_bos"),
            "dataset_path": source.get("text", {}).get("dataset"),
            "rkstore": run.identity | {"step": run.step, "scale": run.scale},
        },
    )
    report = {"identity": run.identity, "step": run.step, "history": run.history}
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    (aside / TRAINING).write_text(text, "utf-8")
    save_file(_state(run), aside / STATE)
    shutil.rmtree(directory, ignore_errors=True)
    aside.replace(directory)
    for step, other in _checkpoints(run):
        if step != run.step:
            (other / STATE).unlink(missing_ok=True)


def resume(run: Run) -> None:
    """Go back to the last checkpoint of this run, if it has one."""
    found = [(step, path) for step, path in _checkpoints(run) if (path / STATE).is_file()]
    if not found:
        return
    step, path = max(found)
    try:
        report = json.loads((path / TRAINING).read_text("utf-8"))
        tensors = load_file(path / STATE, device=run.settings.device)
        before = report["identity"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"cannot take up {path} ({error}): remove it to train from the start"
        ) from None
    different = sorted(k for k in run.identity if before.get(k) != run.identity[k])
    if different:
        key = different[0]
        raise BadInput(
            f"{path} is another run with this name ({key} was {before.get(key)}, "
            f"is {run.identity[key]}): choose another --name"
        )
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


def _checkpoints(run: Run) -> Iterator[tuple[int, Path]]:
    parent = run.directory(0).parent
    for path in sorted(parent.glob(f"{run.name}_*")):
        step = path.name.removeprefix(f"{run.name}_")
        if step.isdigit() and (path / TRAINING).is_file():
            yield int(step), path
