"""Batches × dictionaries → trained dictionaries: the training loop.

Inputs are scaled so that the mean of ‖x‖² is d_in, unless ``--norm`` says otherwise, so that a
learning rate or an L1 weight means the same at every site; the scale is folded back into the
biases when the dictionary is written. A batch depends only on seed and step, so a resumed run is
bit-identical to an uninterrupted one, and dictionaries that see the same rows can be trained in one
pass over the store, whatever sites of them each reads.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rkstore.dictionaries.world import ALONE
from rkstore.errors import BadInput
from rkstore.settings import replace as changed
from rkstore.training.checkpoint import Diverged, agree, check_same, locked_run, resume, save
from rkstore.training.controls import arms
from rkstore.training.engines import ENGINES, Engine
from rkstore.training.engines.local import Local
from rkstore.training.parallel import (
    Slices,
    check_accelerate,
    check_batch,
    joined,
    launched,
    together,
)
from rkstore.training.run import Run, prepare
from rkstore.training.seeds import by_order, one_a_seed
from rkstore.training.settings import TrainSettings
from rkstore.training.sites import listed, one_a_layer
from rkstore.training.spread import bring, check_spread, gathered, spread
from rkstore.training.step import step
from rkstore.training.tracking import TRACKERS
from rkstore.training.tracking.base import Callback, Tracker
from rkstore.training.tracking.tracked import track, tracking
from rkstore.workers import check_no_number


def train(settings: TrainSettings, callbacks: Sequence[Callback] = ()) -> Path:
    """Train a dictionary from a store, or resume its training where it stopped.

    Args:
        callbacks: each is called as ``callback(step, run)`` after every step; numbers that it
            returns, by name, are tracked with those of the training.

    Returns:
        The directory of the last checkpoint, which holds the finished dictionary.

    Raises:
        BadInput: a setting does not fit the store; another run has the same name, or another
            process is training this one.
        DamagedStore: a chunk is not what was written.
        Diverged: its numbers are no longer finite.
    """
    if settings.controls:
        raise BadInput("--controls trains several dictionaries: use train_all(), or --control")
    if listed(settings) is not None:
        raise BadInput("--layers trains one dictionary per layer: use train_all(), or --layer")
    if settings.seeds is not None:
        raise BadInput("--seeds trains one dictionary per seed: use train_all(), or --seed")
    return train_all([settings], callbacks)[0]


def train_all(settings: Sequence[TrainSettings], callbacks: Sequence[Callback] = ()) -> list[Path]:
    """Train dictionaries in one pass over the sites of all, or resume them.

    Each is bit-identical to what :func:`train` alone would give. They may differ in everything,
    wiring and sites included, except the order of the rows: store, rows left out, batch size, and
    ``data_seed`` (or, without one, ``seed``) must be the same. A chunk of a site is read once,
    however many dictionaries read it.

    ``layers`` may make several dictionaries of one. If it makes equally many of each, those of a
    layer share a pass, layer after layer, which needs the memory of one layer; else all share one.
    So do the ``seeds`` of one, if a ``data_seed`` gives them the same rows; else each has its own.
    The passes are carried out by the ``engine``.

    Args:
        callbacks: as in :func:`train`, for each dictionary.

    Returns:
        The directory of the last checkpoint of each, pass by pass.

    Raises:
        BadInput: there are none, or two cannot share a pass or have the same name; or as in
        :func:`train`.
        DamagedStore: a chunk is not what was written.
        Diverged: the numbers of one are no longer finite; the others are trained.
    """
    if not settings:
        raise BadInput("there is nothing to train: give the settings of at least one dictionary")
    for name in {name for one in settings for name in one.track}:
        TRACKERS[name].check()
    for one in settings:
        check_accelerate(one.dtype, one.accumulate)
    engine, passes = _engine(settings), _passes(settings)
    jobs = [partial(_tried, one_pass, callbacks) for one_pass in passes]
    found = engine.each(jobs, max(one.device for one in settings))  # cuda, if any asks for it
    stopped = [str(one) for one in found if isinstance(one, Diverged)]
    if stopped:
        raise Diverged("; ".join(stopped))
    return [path for one in found if not isinstance(one, Diverged) for path in one]


def _tried(
    settings: Sequence[TrainSettings], callbacks: Sequence[Callback]
) -> list[Path] | Diverged:
    """Train dictionaries in one pass, and give the error if one diverges: others go on."""
    try:
        return _train_together(settings, callbacks)
    except Diverged as error:
        return error


def _engine(settings: Sequence[TrainSettings]) -> Engine:
    """What carries out the passes.

    Raises:
        BadInput: two are asked for, or it is not available.
    """
    engine, *others = [one.options(ENGINES[one.engine]) for one in settings]
    if any(other != engine for other in others):
        raise BadInput("dictionaries trained together need the same --engine and its options")
    if engine.name != Local.name and launched() > 1:
        raise BadInput(
            f"--engine {engine.name} starts workers of its own: run it in one process, without a "
            "launcher"
        )
    if engine.name != Local.name:
        for one in settings:
            check_no_number(one.device)
    engine.check()
    return engine


def _passes(settings: Sequence[TrainSettings]) -> list[Sequence[TrainSettings]]:
    """What is trained in each pass over the store."""
    seeded = [seed for one in settings for seed in one_a_seed(one)]
    of_each = [one_a_layer(arm) for one in seeded for arm in arms(one)]
    passes: list[Sequence[TrainSettings]] = list(zip(*of_each, strict=False))
    if len({len(sites) for sites in of_each}) > 1:
        passes = [[one for sites in of_each for one in sites]]
    if any(one.seeds is not None for one in settings):
        passes = [part for one_pass in passes for part in by_order(one_pass)]
    return passes


def _train_together(settings: Sequence[TrainSettings], callbacks: Sequence[Callback]) -> list[Path]:
    """Train dictionaries in one pass, or resume them."""
    world, device = joined([one.device for one in settings])
    if world.size > 1:
        # One whose latents are spread is made as a whole, in main memory.
        places = ["cpu" if one.shard_latents else device for one in settings]
        settings = [changed(one, device=at) for one, at in zip(settings, places, strict=True)]
    with together(world):
        runs = [replace(prepare(chosen), world=world) for chosen in settings]
        for other in runs[1:]:
            _check_same_reading(runs[0], other)
        _check_names(runs)
        check_batch(runs[0].settings, ALONE if runs[0].by_latent else world)
        for run in runs:
            check_spread(run, len(callbacks))
    trackers: list[Sequence[Tracker]] = [() for _ in runs]
    with ExitStack() as held:
        with together(world):
            for run in runs if world.first else ():
                held.enter_context(locked_run(run))
                resume(run)
        for run in runs:
            agree(run)
        runs = [spread(run, device) if run.by_latent else run for run in runs]
        for run in runs:
            # One works at a time, so one piece of memory is enough.
            run.scratch = runs[0].scratch
        with together(world):
            if world.first:
                trackers = [held.enter_context(tracking(run)) for run in runs]
        _train(runs, trackers, callbacks)
    return [run.directory(run.settings.steps) for run in runs]


def _train(
    runs: Sequence[Run], trackers: Sequence[Sequence[Tracker]], callbacks: Sequence[Callback]
) -> None:
    """Take every run to its last step; one that is ahead waits for the others."""
    first, last = min(run.step for run in runs), max(run.settings.steps for run in runs)
    lead = runs[0]
    sites = dict.fromkeys(site for run in runs for site in run.reading.sites)
    reading = replace(lead.reading, sites=tuple(sites))
    world, cut = lead.world, lead.settings.accumulate
    part = Slices(world, cut) if lead.over_rows.size > 1 else None
    batches = reading.batches(
        lead.settings.batch_size, lead.data_seed, first, part, lead.settings.device
    )
    name = lead.name if len(runs) == 1 else f"{len(runs)} dictionaries"
    going, stopped = list(zip(runs, trackers, strict=True)), []
    hidden = None if world.first else True
    with tqdm(total=last, initial=first, unit="step", desc=name, disable=hidden) as bar:
        for number in range(first, last):
            with together(world):
                batch = next(batches)
            for one in [one for one in going if one[0].step == number < one[0].settings.steps]:
                run, its_trackers = one
                try:
                    step(run, run.reading.rows(batch, run.settings.device), batch.whole)
                    _write(run, its_trackers, callbacks)
                except Diverged as error:
                    going.remove(one)
                    stopped.append(str(error))
            bar.update()
            if lead.history:
                found = {key: lead.history[-1][key] for key in ("fvu", "l0")}
                bar.set_postfix({k: v for k, v in found.items() if v is not None}, refresh=False)
            if all(run.finished for run, _ in going):
                break
    if stopped:
        raise Diverged("; ".join(stopped))


def _write(run: Run, trackers: Sequence[Tracker], callbacks: Sequence[Callback]) -> None:
    """Save and track the step that a run has made, in the first process."""
    due = run.step % run.settings.checkpoint_every == 0 or run.finished
    of_each = gathered(run) if due and run.by_latent else []
    if due:
        check_same(run)
    with together(run.world):
        if run.world.first:
            if due:
                save(bring(run, of_each) if run.by_latent else run)
            track(run, trackers, callbacks)


def _check_same_reading(one: Run, other: Run) -> None:
    """Raise BadInput unless two runs see the same rows in the same order."""
    for flag, value, found in (
        ("--store", one.identity["store_fingerprint"], other.identity["store_fingerprint"]),
        ("--store (its rows)", one.identity["store_rows"], other.identity["store_rows"]),
        ("--special-tokens", one.settings.special_tokens, other.settings.special_tokens),
        ("--max-norm", one.settings.max_norm, other.settings.max_norm),
        ("--batch-size", one.settings.batch_size, other.settings.batch_size),
        ("--shard-latents", one.settings.shard_latents, other.settings.shard_latents),
        ("--accumulate", one.settings.accumulate, other.settings.accumulate),
        ("--order", one.settings.order, other.settings.order),
        ("--data-seed", one.data_seed, other.data_seed),
    ):
        if value != found:
            raise BadInput(
                f"dictionaries trained in one pass need the same {flag}, "
                f"not {value} and {found}: train them separately, or make it the same"
            )
    if not np.array_equal(one.reading.left_out.rows, other.reading.left_out.rows):
        raise BadInput(
            "dictionaries trained in one pass need the same rows, and --max-norm leaves out others "
            f"at {_sites(one)} than at {_sites(other)}: train them separately, or leave it out"
        )


def _sites(run: Run) -> str:
    return ",".join(run.reading.hook_names)


def _check_names(runs: Sequence[Run]) -> None:
    """Raise BadInput if two runs would write to the same place."""
    directories = [run.directory(0).resolve() for run in runs]
    for i, run in enumerate(runs):
        if directories[i] in directories[:i]:
            raise BadInput(f"two of the dictionaries are called {run.name}: give each its own name")
