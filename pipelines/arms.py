"""The arms of a comparison: dictionaries that differ only in their initialisation.

Arms of one layer and seed share their random numbers, as far as the initialisation keeps them, are
trained on one reading of the store, and evaluated on one reading of its held-out rows.
"""

import hashlib
import inspect
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput
from rkstore.evaluation.evaluate import measured
from rkstore.evaluation.paired import Arms, described
from rkstore.evaluation.record import Row, Runs
from rkstore.evaluation.report.tables import with_sd
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.harvest import run as harvest
from rkstore.harvest.settings import HarvestSettings
from rkstore.settings import Settings, flag_of, option, options_in
from rkstore.store.batches.kept import left_out
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.open import open_store
from rkstore.store.sites import block_of
from rkstore.store.store import Store
from rkstore.training.inits.rkcnn_decoder import RkCNNDecoder
from rkstore.training.naming import checkpoints_beside
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train_all

# What is harvested, if no store is given.
TEXT = ("model", "dataset", "dataset_config", "text", "text_seed", "tokens", "context_size")

# Runs that differ in these may share a file: where they are, how many there are, and what the
# fingerprint of the store records better.
NOT_IDENTITY = (
    *("store", "out", "device", "checkpoint_every", "keep", "seeds", "layers"),
    *TEXT,
)

CURVE_POINTS = 50

# Inits whose first latents are directions inside random subsets of the dimensions.
MINING = ("rkcnn", "rkcnn-decoder", "rkcnn-unscored", "sparse-random")


def as_in(settings: type[Settings], name: str, **given: Any) -> Any:
    """The option of another command, with another ``default`` or ``help`` if given."""
    known, names = options_in(settings)[name], inspect.signature(option).parameters
    return option(**({key: getattr(known, key) for key in names} | given))


def directory(default: str) -> Any:
    """The option that says where a pipeline writes."""
    return as_in(TrainSettings, "out", default=default, help="Directory of everything it writes.")


def typed(names: Iterable[str]) -> list[str]:
    """Those of some options that are on the command line, as they are written there."""
    context = click.get_current_context(silent=True)
    given = click.core.ParameterSource.COMMANDLINE
    return [
        flag_of(name) for name in names if context and context.get_parameter_source(name) == given
    ]


class RecipeSettings(Settings):
    """Which activations, and the settings that all dictionaries share."""

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
    """The given store, or else one that is harvested, or resumed, under ``--out``.

    Raises:
        BadInput: the command line has both a store and what to harvest.
    """
    if settings.store is not None:
        if unused := typed(TEXT):
            raise BadInput(f"{unused[0]} has no effect with --store: leave one of them out")
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
    """What runs in one file must have in common: all settings but those ``besides``."""
    free = {*NOT_IDENTITY, *besides}
    chosen = {key: value for key, value in settings.model_dump().items() if key not in free}
    model = store.manifest.source.get("model", {}).get("name")
    of_store = {"store_fingerprint": store.manifest.fingerprint, "store_rows": store.rows}
    return chosen | of_store | {"store_model": model}


def recipe(settings: RecipeSettings, store: Store, **given: Any) -> TrainSettings:
    """The settings of one dictionary: those that all share, and those ``given``."""
    shared = options_in(type(settings)).keys() & options_in(TrainSettings).keys()
    chosen = {name: getattr(settings, name) for name in shared}
    out = str(Path(settings.out) / "checkpoints")
    one = {"store": store.where, "layers": None, "seeds": None, "out": out}
    return TrainSettings(**(chosen | one | given))


def arms_of(settings: ArmSettings, store: Store, layer: int, seed: int) -> list[TrainSettings]:
    """The settings of each arm of one layer and seed."""
    return [recipe(settings, store, layer=layer, seed=seed, init=arm) for arm in settings.arms]


def run_arms(chosen: Sequence[TrainSettings], store: Store, keep: bool = True) -> list[Row]:
    """Train dictionaries on one reading and evaluate them on one reading; one row each.

    Args:
        keep: whether to leave the checkpoints, which are larger than everything else together.
    """
    one = chosen[0]
    paths = train_all(chosen)
    measure = EvaluateSettings(
        store=str(store.where),
        device=one.device,
        chance=False,
        special_tokens=one.special_tokens,
        max_norm=one.max_norm,
    )
    orders = orders_of(one, store)
    layer, _ = block_of(store.site(one.layer, one.hook))
    rows = []
    for arm, path, (result, sums) in zip(chosen, paths, measured(paths, measure), strict=True):
        numbers = result.as_dict()
        del numbers["path"]  # the same runs may lie elsewhere
        mined = mined_latents(arm, result.d_sae)
        dead = int((sums.fired[:mined] == 0).sum())
        rows.append(
            {"layer": layer, "seed": arm.seed, "init": arm.init}
            | {"mined": mined, "dead_mined": dead, "dead_others": result.dead - dead}
            | numbers
            | {"history": curve(path)}
            | orders
        )
    if not keep:
        for path in paths:
            for _, checkpoint in checkpoints_beside(path):
                shutil.rmtree(checkpoint)
    return rows


def orders_of(one: TrainSettings, store: Store) -> Row:
    """Digests of the rows that a dictionary is trained and evaluated on, in their order."""
    site = store.site(one.layer, one.hook)
    train_chunks, held_out = split_chunks(store)
    seen, unseen = (
        left_out(store, site, chunks, special_tokens=one.special_tokens, max_norm=one.max_norm)
        for chunks in (train_chunks, held_out)
    )
    plan = plan_batches(store, train_chunks, one.batch_size, one.seed, seen)
    kept = [unseen.kept(*store.rows_of_chunk(chunk)) for chunk in held_out]
    return {
        "order_of_rows": digest(np.concatenate(list(plan.batches(epoch=0)))),
        "held_out_rows": digest(np.concatenate(kept)),
    }


def curve(checkpoint: Path) -> Row:
    """How the error of the batches fell during training, in a few points; the last is the end."""
    history = json.loads((checkpoint / TRAINING).read_text("utf-8"))["history"]
    some = history[:: -max(1, len(history) // CURVE_POINTS)][::-1]
    return {"step": [h["step"] for h in some], "fvu": [h["fvu"] for h in some]}


def mined_latents(settings: TrainSettings, d_sae: int) -> int:
    """How many latents, the first ones, are initialised inside random subsets."""
    if settings.init not in MINING:
        return 0
    mining = settings.options(RkCNNDecoder)
    share = round(d_sae * mining.rkcnn_fraction)
    return min(share, mining.rkcnn_h) if settings.init == "rkcnn-decoder" else share


def digest(rows: np.ndarray) -> str:
    """Digest of row ids: runs with the same digest saw the same rows in the same order."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]


def run_missing(settings: ArmSettings, name: str, store: Store, layers: Sequence[int]) -> Runs:
    """All arms of each layer and seed: those on record, and those made now."""
    runs = Runs(Path(settings.out) / f"{name}.json", identity(settings, store))
    wanted = [(layer, seed) for seed in settings.all_seeds for layer in layers]
    for layer, seed in tqdm(wanted, desc=name, unit="layer and seed", disable=None):
        if not runs.find(layer=layer, seed=seed):
            runs.add(run_arms(arms_of(settings, store, layer, seed), store, settings.keep))
    return runs


def summarise(
    rows: Sequence[Row], arms: Sequence[str], more: Callable[[list[tuple[Row, Row]]], Row]
) -> Row:
    """Each arm against those before it, pair by pair, and how much the baseline varies.

    Args:
        more: what else to say of the pairs of two arms.
    """
    known = Arms(rows)
    compared = [
        {
            "arm": arm,
            "against": other,
            "dead": known.differences(arm, other, "dead"),
            "explained": known.differences(arm, other, "explained_variance"),
            **more(known.pairs(arm, other)),
        }
        for other, arm in itertools.combinations(arms, 2)
    ]
    noise = {key: known.noise(arms[0], key) for key in ("dead", "explained_variance")}
    return {"compared": compared, "baseline": arms[0], "noise": noise}


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation."""
    found = described(values)
    return with_sd(found["mean"], found["sd"], form)


def noise_line(summary: Row) -> str:
    """How much of a difference another seed makes."""
    sd = summary["noise"]["dead"]
    if sd is None:
        return "Only one seed: how much another would change is not known (--seeds)."
    return f"Between seeds, {summary['baseline']} varies by {sd:.1f} dead latents (SD)."
