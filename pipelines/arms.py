"""The arms of a comparison: dictionaries that differ in nothing but how they begin.

Arms of one layer and seed share their random base, as far as their beginning leaves it, are
trained on one reading of the store, and measured on one reading of its held-out rows.
"""

import hashlib
import inspect
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from results import Row, deviation

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import Measure
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.harvest import run as harvest
from rkstore.harvest.settings import HarvestSettings
from rkstore.settings import Settings, flag_of, option, options_in
from rkstore.store.batches.assemble import read_rows
from rkstore.store.batches.kept import LeftOut, left_out
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.open import open_store
from rkstore.store.store import Store
from rkstore.training.naming import checkpoints_beside
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train_all

# What is harvested, if no store is given.
TEXT = ("model", "dataset", "dataset_config", "text", "text_seed", "tokens", "context_size")

# Another choice of these may add to the same file: where runs lie, how many there are, and what
# the fingerprint of the store says better.
NOT_IDENTITY = (
    *("store", "out", "device", "checkpoint_every", "keep", "seeds", "layers"),
    *TEXT,
)

CURVE_POINTS = 50

# Inits whose first latents begin as directions inside random subsets of the dimensions.
MINING = ("rkcnn", "rkcnn-decoder", "rkcnn-unscored", "sparse-random")


def as_in(settings: type[Settings], name: str, **given: Any) -> Any:
    """The option of that name of another command, with ``default`` or ``help`` if given."""
    known, names = options_in(settings)[name], inspect.signature(option).parameters
    return option(**({key: getattr(known, key) for key in names} | given))


def directory(default: str) -> Any:
    """The option of where a pipeline writes."""
    return as_in(TrainSettings, "out", default=default, help="Directory of everything it writes.")


def typed(names: Iterable[str]) -> list[str]:
    """Those of some options that stand on the command line, as they are written there."""
    context = click.get_current_context(silent=True)
    given = click.core.ParameterSource.COMMANDLINE
    return [
        flag_of(name) for name in names if context and context.get_parameter_source(name) == given
    ]


class RecipeSettings(Settings):
    """Which activations, and what all dictionaries have in common."""

    store: str | None = as_in(
        TrainSettings, "store", help="Store; without it, one is harvested under --out."
    )
    model: str = as_in(HarvestSettings, "model")
    dataset: str = as_in(HarvestSettings, "dataset")
    dataset_config: str | None = as_in(HarvestSettings, "dataset_config")
    text: tuple[str, ...] = as_in(HarvestSettings, "text")
    text_seed: int = as_in(HarvestSettings, "seed")
    tokens: int = as_in(HarvestSettings, "tokens")
    context_size: int = as_in(HarvestSettings, "context_size")
    hook: str = as_in(HarvestSettings, "hook", default="mlp.hook_post")
    dictionary: str = as_in(TrainSettings, "dictionary")
    expansion: float = as_in(TrainSettings, "expansion")
    d_sae: int | None = as_in(TrainSettings, "d_sae")
    k: int = as_in(TrainSettings, "k")
    steps: int = as_in(TrainSettings, "steps")
    batch_size: int = as_in(TrainSettings, "batch_size", default=256)
    lr: float = as_in(TrainSettings, "lr", default=1e-3)
    warmup: int = as_in(TrainSettings, "warmup")
    center: str | None = as_in(TrainSettings, "center")
    norm: str = as_in(TrainSettings, "norm")
    init_scale: str | None = as_in(TrainSettings, "init_scale")
    datapoint_share: float | None = as_in(TrainSettings, "datapoint_share")
    auxk: int = as_in(TrainSettings, "auxk")
    resample_every: int = as_in(TrainSettings, "resample_every")
    special_tokens: bool = as_in(TrainSettings, "special_tokens")
    max_norm: float | None = as_in(TrainSettings, "max_norm")
    checkpoint_every: int = as_in(TrainSettings, "checkpoint_every")
    seed: int = as_in(TrainSettings, "seed", default=42)
    device: str = as_in(TrainSettings, "device")
    out: str = directory("results")


class ArmSettings(RecipeSettings):
    """A comparison of initialisations."""

    arms: tuple[str, ...] = option(
        ("random", "datapoint", "rkcnn"),
        "Initialisations to compare, the baseline first. datapoint is what rkcnn does besides "
        "choosing directions.",
    )
    seeds: int = option(1, "Seeds: --seed and those that follow it, all arms with each.", least=1)
    l1: float = as_in(TrainSettings, "l1")
    rkcnn_fraction: float = as_in(TrainSettings, "rkcnn_fraction")
    rkcnn_oversample: float = as_in(TrainSettings, "rkcnn_oversample")
    rkcnn_h: int = as_in(TrainSettings, "rkcnn_h")
    rkcnn_m: int | None = as_in(TrainSettings, "rkcnn_m")
    rkcnn_score: str = as_in(TrainSettings, "rkcnn_score")
    keep: bool = option(True, "Keep the dictionaries once they are measured.")

    def model_post_init(self, _: Any) -> None:
        if len(self.arms) < 2 or len(set(self.arms)) < len(self.arms):
            raise BadInput(f"--arms is {', '.join(self.arms)}: give at least two different ones")
        for arm in self.arms:
            TrainSettings(init=arm)  # now, and not after an hour of harvesting

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)


def the_store(settings: RecipeSettings, layers: str) -> Store:
    """The store that is given, or else one harvested under ``--out``, or taken up there.

    Raises:
        BadInput: it is given, and so is on the command line what to harvest.
    """
    if settings.store is not None:
        if unused := typed(TEXT):
            raise BadInput(
                f"{unused[0]} has no part where there is a --store: leave one of them out"
            )
        return open_store(settings.store)
    wanted = HarvestSettings(
        model=settings.model,
        dataset=settings.dataset,
        dataset_config=settings.dataset_config,
        text=settings.text,
        tokens=settings.tokens,
        context_size=settings.context_size,
        hook=(settings.hook,),
        layers=layers,
        seed=settings.text_seed,
        device=settings.device,
        out=str(Path(settings.out) / "store"),
    )
    return harvest.run(harvest.prepare(wanted))


def identity(settings: RecipeSettings, store: Store, besides: Sequence[str] = ()) -> Row:
    """What runs must have in common to lie in one file; all settings but those ``besides``."""
    free = {*NOT_IDENTITY, *besides}
    chosen = {key: value for key, value in settings.model_dump().items() if key not in free}
    model = store.manifest.source.get("model", {}).get("name")
    of_store = {"store_fingerprint": store.manifest.fingerprint, "store_rows": store.rows}
    return chosen | of_store | {"store_model": model}


def recipe(settings: RecipeSettings, store: Store, **given: Any) -> TrainSettings:
    """The settings to train one dictionary with: those it shares, and those ``given``."""
    shared = options_in(type(settings)).keys() & options_in(TrainSettings).keys()
    chosen = {name: getattr(settings, name) for name in shared}
    where = {"store": store.where, "layers": None, "out": str(Path(settings.out) / "checkpoints")}
    return TrainSettings(**(chosen | where | given))


def arms_of(settings: ArmSettings, store: Store, layer: int, seed: int) -> list[TrainSettings]:
    """The settings of each arm of one layer and seed."""
    return [recipe(settings, store, layer=layer, seed=seed, init=arm) for arm in settings.arms]


def run_arms(chosen: Sequence[TrainSettings], store: Store, keep: bool = True) -> list[Row]:
    """Train dictionaries on one reading, measure them on one reading; one row each.

    Args:
        keep: whether the checkpoints are left; they are as large as all else together.
    """
    one = chosen[0]
    paths = train_all(chosen)
    hook_name = store.site(one.layer, one.hook)
    train_chunks, held_out = split_chunks(store)
    seen, unseen = (
        left_out(store, hook_name, chunks, special_tokens=one.special_tokens, max_norm=one.max_norm)
        for chunks in (train_chunks, held_out)
    )
    plan = plan_batches(store, train_chunks, one.batch_size, one.seed, seen)
    orders = {
        "order_of_rows": digest(np.concatenate(list(plan.batches(epoch=0)))),
        "held_out_rows": digest(
            np.concatenate([unseen.kept(*store.rows_of_chunk(c)) for c in held_out])
        ),
    }
    found = measure(store, hook_name, held_out, unseen, paths, chosen)
    rows = [
        {"layer": arm.layer, "seed": arm.seed, "init": arm.init, **numbers, **orders}
        for arm, numbers in zip(chosen, found, strict=True)
    ]
    if not keep:
        for path in paths:
            for _, checkpoint in checkpoints_beside(path):
                shutil.rmtree(checkpoint)
    return rows


def measure(
    store: Store,
    hook_name: str,
    chunks: Sequence[int],
    passed_over: LeftOut,
    paths: Sequence[Path],
    chosen: Sequence[TrainSettings],
) -> list[Row]:
    """What dictionaries of one site do to held-out rows, all on the same batches.

    As :func:`rkstore.evaluation.evaluate.evaluate`, and with the dead among the latents that
    began as mined directions counted apart from the others.
    """
    device = chosen[0].device
    measures = [Measure(load_dictionary(path)[0].to(device)) for path in paths]
    size = EvaluateSettings().batch_size
    for batch in read_rows(store, [hook_name], chunks, size, passed_over):
        x = torch.from_numpy(batch.x[hook_name]).to(device)
        for one in measures:
            one.add(x)
    rows = []
    for one, path, arm in zip(measures, paths, chosen, strict=True):
        result = one.result(path.name, hook_name, store.codec_fvu(hook_name))
        numbers = replace(result, left_out=len(passed_over.rows)).as_dict()
        del numbers["path"]  # the same runs may lie elsewhere
        mined = mined_latents(arm, result.d_sae)
        dead = int((one.fired[:mined] == 0).sum())
        rows.append(
            {"mined": mined, "dead_mined": dead, "dead_others": result.dead - dead}
            | numbers
            | {"history": curve(path)}
        )
    return rows


def curve(checkpoint: Path) -> Row:
    """How the error of the batches fell in training, in few points, the end among them."""
    history = json.loads((checkpoint / TRAINING).read_text("utf-8"))["history"]
    some = history[:: -max(1, len(history) // CURVE_POINTS)][::-1]
    return {"step": [h["step"] for h in some], "fvu": [h["fvu"] for h in some]}


def mined_latents(settings: TrainSettings, d_sae: int) -> int:
    """How many latents, the first ones, began inside random subsets."""
    if settings.init not in MINING:
        return 0
    share = round(d_sae * settings.rkcnn_fraction)
    return min(share, settings.rkcnn_h) if settings.init == "rkcnn-decoder" else share


def digest(rows: np.ndarray) -> str:
    """Digest of row ids in order: two that are the same saw the same rows in the same order."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def improvement(baseline: Row, arm: Row) -> float | None:
    """How many per cent fewer latents are dead; None if none of the baseline is."""
    if not baseline["dead"]:
        return None
    return float(100 * (baseline["dead"] - arm["dead"]) / baseline["dead"])


def differences(rows: Sequence[Row], arm: str, baseline: str, key: str) -> list[float]:
    """``arm`` less ``baseline``, for each layer and seed that has both."""
    value = {(row["layer"], row["seed"], row["init"]): row[key] for row in rows}
    return [
        float(value[layer, seed, arm] - value[layer, seed, baseline])
        for layer, seed, init in value
        if init == arm and (layer, seed, baseline) in value
    ]


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, as far as there are values for them."""
    if not values:
        return "-"
    mean, sd = sum(values) / len(values), deviation(values)
    return f"{mean:{form}}" + ("" if sd is None else f" ± {sd:{form.lstrip('+')}}")


def noise(rows: Sequence[Row], baseline: str, key: str) -> float | None:
    """Standard deviation of the baseline between seeds, mean over layers; None with one seed."""
    layers = {row["layer"] for row in rows}
    found = [
        deviation([row[key] for row in rows if (row["layer"], row["init"]) == (layer, baseline)])
        for layer in layers
    ]
    known = [sd for sd in found if sd is not None]
    return sum(known) / len(known) if known else None
