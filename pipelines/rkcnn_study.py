"""Does RkCNN's initialisation leave fewer dead latents? Paired arms, many seeds, every layer.

    python pipelines/rkcnn_study.py --config configs/rkcnn.yaml

For each layer and seed, all arms are trained on one reading of the store, with the same random
numbers and the same rows in the same order: only the initialisation differs. They are evaluated on
a store of other text. Each layer and seed is recorded when it is done, so a study that was stopped
continues with the missing ones.
"""

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import click
import torch
from arms import as_in
from results import start
from tqdm import tqdm

from rkstore.cli.options import Command, options_of
from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.lifetimes import Lifetimes
from rkstore.evaluation.measure import Measure
from rkstore.evaluation.record import Row, Runs
from rkstore.settings import Settings, option
from rkstore.store.batches.assemble import read_rows
from rkstore.store.batches.kept import LeftOut, left_out
from rkstore.store.open import open_store
from rkstore.store.store import Store
from rkstore.training.inits.rkcnn import RkCNN
from rkstore.training.settings import TrainSettings
from rkstore.training.sites import layers_of
from rkstore.training.train import train_all


@dataclass(frozen=True)
class Arm:
    """An initialisation: what it is, and what it changes of the settings that all arms share."""

    what: str
    init: str
    seed: int = 0
    """Added to the seed of weights and subsets; the order of the rows stays the same."""
    change: dict[str, Any] = field(default_factory=dict)


ARMS = {
    "random": Arm("RkCNN-SAE's baseline: a Xavier encoder, independent of the decoder", "random"),
    "random, another seed": Arm(
        "the same with other random numbers: what no change at all does", "random", seed=1000
    ),
    "tied": Arm(
        "random unit decoder rows, the encoder their transpose, `b_dec` the mean of the rows, "
        "as in all arms below but `rkcnn-decoder`",
        "tied",
    ),
    "subspace": Arm(
        "`tied`, projected into the subspace of 99 % of the variance (arXiv 2508.16929)",
        "subspace",
    ),
    "datapoint": Arm(
        "`tied`, each latent 0.8 of a row and 0.2 random (Anthropic, October 2025)", "datapoint"
    ),
    "datapoint, half random": Arm(
        "the same, half and half", "datapoint", change={"datapoint_share": 0.5}
    ),
    "rkcnn-decoder": Arm(
        "as published: mined directions in `random`'s decoder alone", "rkcnn-decoder"
    ),
    "rkcnn": Arm(
        "half of the latents half way between a row and a mined direction, the other half "
        "between a row and a random one; encoder tied",
        "rkcnn",
    ),
    "rkcnn, no rows": Arm(
        "half of the latents mined directions, the other half random; encoder tied",
        "rkcnn",
        change={"datapoint_share": 0.0, "init_scale": "none"},
    ),
    "rkcnn-unscored": Arm("`rkcnn` with random subsets in place of the best", "rkcnn-unscored"),
    "sparse-random": Arm("`rkcnn` with random directions inside random subsets", "sparse-random"),
    "random + AuxK": Arm("", "random", change={"auxk": 256}),
    "rkcnn + AuxK": Arm("", "rkcnn", change={"auxk": 256}),
}

# Runs that differ in these may share a record: how much is done, where files are, and on what.
NOT_IDENTITY = ("store", "held_out", "out", "layers", "arms", "seeds", "device", "jobs")

# What every arm is trained with.
SHARED = (
    *("dictionary", "d_sae", "k", "l1", "steps", "batch_size", "lr", "warmup", "device"),
    *("special_tokens", "max_norm"),
)


class StudySettings(Settings):
    """What is trained, on what, and the windows of dead latents."""

    store: str | None = as_in(TrainSettings, "store", help="Store to train on.")
    held_out: str | None = as_in(
        TrainSettings, "store", help="Store of other text to count dead latents on."
    )
    layers: str = option("all", "Blocks: 'all', or a list such as 0-3,8.")
    arms: tuple[str, ...] = option(tuple(ARMS), "Arms, of those in the pipeline.")
    seeds: int = option(8, "Seeds of each arm.", least=1)
    windows: tuple[str, ...] = option(
        ("10000", "100000", "1000000"), "Tokens in which a latent must fire to be alive."
    )
    fvu_rows: int = option(16_384, "Held-out rows for FVU and L0.", least=1)
    special_tokens: bool = as_in(TrainSettings, "special_tokens")
    max_norm: float | None = as_in(TrainSettings, "max_norm")
    dictionary: str = option("topk", "Kind of sparse code.", choices=("topk", "relu"))
    d_sae: int = option(2048, "Latents.", least=1)
    k: int = option(32, "Active latents of a topk code.", least=1)
    l1: float = option(1.0, "Weight of the L1 penalty of a relu code.", least=0.0)
    steps: int = option(500, "Batches to train on.", least=1)
    batch_size: int = option(1024, "Rows in a batch.", least=1)
    lr: float = option(3e-3, "Peak learning rate of Adam.", least=0.0)
    warmup: int = option(100, "Steps over which the learning rate rises.", least=0)
    out: str = as_in(
        TrainSettings, "out", default="results/rkcnn_study.json", help="JSON with every run."
    )
    device: str = as_in(TrainSettings, "device")
    jobs: int = option(
        0,
        "Processes that each take a layer and a seed at a time, in one thread; 0 is this process "
        "with all its threads.",
        least=0,
    )


@dataclass(frozen=True)
class Cell:
    """The arms of one layer and seed that are trained on one reading."""

    layer: int
    seed: int
    arms: tuple[str, ...]


def study(settings: StudySettings) -> Runs:
    """All runs, those that are missing made now."""
    train_store, held_out = open_store(settings.store), open_store(settings.held_out)
    layers = layers_of(train_store, settings.layers)
    _check(settings, train_store, held_out, layers)
    runs = Runs(Path(settings.out), _identity(settings, train_store, held_out))
    done = {(run["layer"], run["seed"], run["arm"]) for run in runs.rows}
    left = [
        Cell(layer, seed, arms)
        for seed in range(settings.seeds)
        for layer in layers
        if (arms := tuple(arm for arm in settings.arms if (layer, seed, arm) not in done))
    ]
    with tqdm(total=len(left), unit="layer and seed", desc="study", disable=None) as bar:
        for found in _finished(settings, left):
            runs.rows = sorted(runs.rows + found, key=_place)
            runs.write()
            bar.update()
    return runs


def _finished(settings: StudySettings, cells: list[Cell]) -> Iterator[list[Row]]:
    """The runs of each cell, as soon as it is done."""
    if not settings.jobs:
        yield from (_runs(settings, cell) for cell in cells)
        return
    with _workers(settings.jobs) as pool:
        yield from pool.imap_unordered(partial(_runs, settings), cells)


@contextmanager
def _workers(jobs: int) -> Iterator[Pool]:
    """Processes of one thread each. Ctrl-C reaches all of them; only the first handles it."""
    # Inherited, so that it holds while they still import.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # Not forked: a copy of a process that has threads may hang.
        pool = multiprocessing.get_context("spawn").Pool(jobs, _begin_worker)
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield pool
    finally:
        pool.terminate()
        pool.join()


def _begin_worker() -> None:
    torch.set_num_threads(1)


def _place(run: Row) -> tuple[int, int, int]:
    """The place of a run in the record, whichever was done first."""
    return run["layer"], run["seed"], list(ARMS).index(run["arm"])


def _runs(settings: StudySettings, cell: Cell) -> list[Row]:
    """Train the arms of one layer and seed on one reading, and evaluate them on another."""
    held_out = open_store(settings.held_out)
    with tempfile.TemporaryDirectory() as directory:
        chosen = [_train_settings(settings, cell, arm, directory) for arm in cell.arms]
        paths = train_all(chosen)
        dictionaries = [load_dictionary(path)[0].to(settings.device) for path in paths]
    site = held_out.site(cell.layer)
    passed_over = _passed_over(settings, held_out, site)
    lives, measures = list(map(Lifetimes, dictionaries)), list(map(Measure, dictionaries))
    for rows in _rows(held_out, site, passed_over, max(_windows(settings))):
        x = rows.to(settings.device)
        for life, measure in zip(lives, measures, strict=True):
            if life.tokens < settings.fvu_rows:
                measure.add(x[: settings.fvu_rows - life.tokens])
            life.add(x)
    runs = []
    for arm, trained, life, measure in zip(cell.arms, chosen, lives, measures, strict=True):
        found = measure.result(arm, {site: held_out.codec_fvu(site)})
        mined = round(settings.d_sae * trained.options(RkCNN).rkcnn_fraction)
        runs.append(
            {"layer": cell.layer, "seed": cell.seed, "arm": arm}
            | _dead(life, _windows(settings), mined)
            | {"l0": found.l0, "fvu": found.fvu, "dense": found.dense}
            | {"left_out": len(passed_over.rows)}
        )
    return runs


def _passed_over(settings: StudySettings, held_out: Store, site: str) -> LeftOut:
    """The rows of the held-out store that are not measured."""
    return left_out(
        held_out,
        site,
        held_out.chunk_range,
        special_tokens=settings.special_tokens,
        max_norm=settings.max_norm,
    )


def _dead(life: Lifetimes, windows: list[int], first: int) -> Row:
    """Dead latents by window: of all, and of the first ones, which may be mined directions."""
    dead = {str(window): life.dead(window) for window in windows}
    return {
        "dead": {window: int(which.sum()) for window, which in dead.items()},
        "dead_first": {window: int(which[:first].sum()) for window, which in dead.items()},
        "first": first,
    }


def _train_settings(settings: StudySettings, cell: Cell, arm: str, out: str) -> TrainSettings:
    chosen = ARMS[arm]
    common = {name: getattr(settings, name) for name in SHARED}
    return TrainSettings(
        store=settings.store,
        layer=cell.layer,
        init=chosen.init,
        seed=cell.seed + chosen.seed,
        data_seed=cell.seed,
        name=arm,
        out=out,
        checkpoint_every=settings.steps,
        **(common | chosen.change),
    )


def _rows(store: Store, site: str, passed_over: LeftOut, most: int) -> Iterator[torch.Tensor]:
    """The first ``most`` rows of a site that are kept, in batches."""
    left = most
    for batch in read_rows(store, [site], store.chunk_range, 4096, passed_over):
        x = torch.from_numpy(batch.x[site][:left])
        yield x
        left -= len(x)
        if not left:
            return


def _windows(settings: StudySettings) -> list[int]:
    return [int(window) for window in settings.windows]


def _check(settings: StudySettings, store: Store, held_out: Store, layers: list[int]) -> None:
    unknown = [arm for arm in settings.arms if arm not in ARMS]
    if unknown:
        raise BadInput(f"--arms has no '{unknown[0]}': choose of {', '.join(ARMS)}")
    for flag, chosen in (("--arms", settings.arms), ("--windows", settings.windows)):
        if not chosen or len(set(chosen)) < len(chosen):
            raise BadInput(f"{flag} is {', '.join(chosen) or 'empty'}: give some, each once")
    if any(not window.isdigit() or int(window) < 1 for window in settings.windows):
        raise BadInput(f"--windows takes numbers of tokens, not {', '.join(settings.windows)}")
    if store.hook_names != held_out.hook_names:
        raise BadInput(f"{store.where} and {held_out.where} do not have the same sites")
    needed, rows = max(_windows(settings)), held_out.stop_row - held_out.first_row
    for site in map(held_out.site, layers):
        out = len(_passed_over(settings, held_out, site).rows)
        if rows - out < needed:
            raise BadInput(
                f"the largest window is {needed:,} tokens and {held_out.where} has "
                f"{rows - out:,} rows of {site} that are not left out: harvest more, or give "
                "smaller --windows"
            )


def _identity(settings: StudySettings, store: Store, held_out: Store) -> Row:
    """What studies must have in common to share a record."""
    chosen = {key: value for key, value in settings.model_dump().items() if key not in NOT_IDENTITY}
    return chosen | {
        "model": store.manifest.source.get("model", {}).get("name"),
        "hook_names": list(store.hook_names),
        "d_in": store.manifest.sites[0].width,
        "codec": f"{store.manifest.codec} of schema {store.manifest.schema}",
        "store_fingerprint": store.manifest.fingerprint,
        "store_rows": [store.first_row, store.stop_row],
        "held_out_fingerprint": held_out.manifest.fingerprint,
        "held_out_rows": [held_out.first_row, held_out.stop_row],
    }


@click.command("rkcnn_study", cls=Command)
@options_of(StudySettings)
def main(settings: StudySettings) -> None:
    """Train and evaluate the arms that are not on record yet."""
    runs = study(settings)
    click.echo(f"{runs.path}: {len(runs.rows)} runs")


if __name__ == "__main__":
    start(main)
