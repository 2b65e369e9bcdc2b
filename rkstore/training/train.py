"""Batches × dictionaries → trained dictionaries: the one training loop.

Inputs are scaled so that the mean of ‖x‖² is d_in, unless ``--norm`` says otherwise, which
makes a learning rate or an L1 weight mean the same at every site; the scale is folded back
into the biases when the dictionary is written. A batch depends on seed and step alone, so a run
that was stopped goes on from its last checkpoint to the very bits of one that was not,
and dictionaries that see the same batches can be trained on one reading of the store.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput
from rkstore.store.batches.assemble import Batch, read_batches
from rkstore.training.fast.gradient import Forward, fill_gradients
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.resample import resample
from rkstore.training.run import (
    STATE,
    Diverged,
    Run,
    check_finite,
    default_name,
    diverged,
    prepare,
    resume,
    save,
)
from rkstore.training.settings import TrainSettings
from rkstore.training.sites import listed, one_a_layer

# The learning rate falls to zero over this last share of the steps.
DECAY = 0.2
LOG_EVERY = 20

# Rows whose losses decide where resampled latents begin.
RESAMPLING_ROWS = 8192


def train(settings: TrainSettings) -> Path:
    """Train a dictionary from a store, or take up its training where it stopped.

    Returns:
        The directory of the last checkpoint, which holds the finished dictionary.

    Raises:
        BadInput: a setting does not fit the store; another run has the same name.
        DamagedStore: a chunk is not what was written.
        Diverged: its numbers are no longer finite.
    """
    if listed(settings) is not None:
        raise BadInput("--layers trains one dictionary a layer: use train_all(), or --layer")
    return train_all([settings])[0]


def train_all(settings: Sequence[TrainSettings]) -> list[Path]:
    """Train dictionaries of one site, all on one reading of it, or take them up.

    Each comes out as :func:`train` alone would make it, to the bit. They may differ in
    everything but the order of the rows: store, site, batch size, and ``data_seed`` (or,
    without one, ``seed``) must be the same. With ``layers``, site after site.

    Returns:
        The directory of the last checkpoint of each, layer by layer.

    Raises:
        BadInput: there are none, or two cannot share a reading or have the same name; or
            as :func:`train` does.
        DamagedStore: a chunk is not what was written.
        Diverged: the numbers of one are no longer finite; the others are trained.
    """
    if not settings:
        raise BadInput("there is nothing to train: give the settings of at least one dictionary")
    of_each = [one_a_layer(one) for one in settings]
    if len({len(sites) for sites in of_each}) > 1:
        raise BadInput("dictionaries trained on one reading need the same --layers")
    paths, stopped = [], []
    for together in zip(*of_each, strict=True):
        try:
            paths += _train_together(together)
        except Diverged as error:
            stopped.append(str(error))
    if stopped:
        raise Diverged("; ".join(stopped))
    return paths


def _train_together(settings: Sequence[TrainSettings]) -> list[Path]:
    """Train dictionaries of one site, or take them up."""
    runs = [prepare(chosen) for chosen in settings]
    for other in runs[1:]:
        _check_same_reading(runs[0], other)
    _check_names(runs)
    for run in runs:
        # One works at a time, so one piece of memory is enough.
        run.scratch = runs[0].scratch
        resume(run)
    _train(runs)
    return [run.directory(run.settings.steps) for run in runs]


def _train(runs: Sequence[Run]) -> None:
    """Take every run to its last step; one that is ahead waits for the others."""
    first, last = min(run.step for run in runs), max(run.settings.steps for run in runs)
    lead = runs[0]
    batches = read_batches(lead.store, [lead.hook_name], lead.plan, start=first)
    name = lead.name if len(runs) == 1 else f"{len(runs)} dictionaries"
    going, stopped = list(runs), []
    with tqdm(total=last, initial=first, unit="step", desc=name, disable=None) as bar:
        for step in range(first, last):
            batch = next(batches)
            for run in [run for run in going if run.step == step < run.settings.steps]:
                try:
                    _step(run, batch)
                    if run.step % run.settings.checkpoint_every == 0 or run.finished:
                        save(run)
                except Diverged as error:
                    going.remove(run)
                    stopped.append(str(error))
            bar.update()
            if lead.history:
                found = {key: lead.history[-1][key] for key in ("fvu", "l0")}
                bar.set_postfix({k: v for k, v in found.items() if v is not None}, refresh=False)
            if all(run.finished for run in going):
                break
    if stopped:
        raise Diverged("; ".join(stopped))


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: up over ``warmup``, flat, down to zero."""
    rising = (step + 1) / (warmup + 1)
    falling = (steps - step) / max(1.0, DECAY * steps)
    return min(1.0, rising, falling)


def _step(run: Run, batch: Batch) -> None:
    settings, dictionary = run.settings, run.dictionary
    for group in run.optimizer.param_groups:
        group["lr"] = settings.lr * schedule(run.step, settings.steps, settings.warmup)
    x = torch.from_numpy(batch.x[run.hook_name]).to(settings.device) * run.scale
    # Sparsity is asked for as gradually as the learning rate rises: latents that an
    # early penalty switches off seldom come back.
    pressure = min(1.0, (run.step + 1) / (settings.warmup + 1))
    dtype = getattr(torch, settings.dtype)
    aux = AuxK(run.idle >= run.dead_after, settings.auxk) if settings.auxk else None
    found = fill_gradients(dictionary, x, run.scratch, pressure=pressure, dtype=dtype, aux=aux)
    dictionary.project_decoder_gradient()
    run.optimizer.step()
    dictionary.normalise_decoder()
    run.idle = torch.where(found.fired, 0, run.idle + len(x))
    run.step += 1
    if run.step % LOG_EVERY == 0 or run.finished:
        run.history.append(_measure(run, x, found))
    if _resampling_is_due(run):
        _resample(run)


def _resampling_is_due(run: Run) -> bool:
    """Every ``--resample-every`` steps until the rate falls: then none could learn enough."""
    every, last = run.settings.resample_every, (1 - DECAY) * run.settings.steps
    return every > 0 and run.step % every == 0 and run.step <= last


def _resample(run: Run) -> None:
    """Let the dead latents begin again; which rows they begin at depends on seed and step alone."""
    seed = np.random.SeedSequence([run.settings.seed, run.step]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(seed[0]))
    dead = (run.idle >= run.dead_after).nonzero().squeeze(1)
    if len(dead):
        x = run.data.draw(RESAMPLING_ROWS, generator).to(run.settings.device)
        resample(run.dictionary, run.optimizer, dead, x, generator)
        run.idle[dead] = 0


def _measure(run: Run, x: torch.Tensor, found: Forward) -> dict[str, float | None]:
    """What the history keeps of a step that was just made on ``x (batch, d_in)``.

    Raises:
        Diverged: the error of the reconstructions, or what they are made with, is not finite.
    """
    check_finite(run)
    error = found.residual.square().sum()
    if not error.isfinite():
        raise diverged(run, "its loss is")
    variation = (x - x.mean(dim=0)).square().sum()
    return {
        "step": run.step,
        # Rows that are all the same, as one is, leave nothing to explain.
        "fvu": (error / variation).item() if variation > 0 else None,
        "l0": found.l0,
        "idle_10k": int((run.idle >= 10_000).sum()),
        "dead": int((run.idle >= run.dead_after).sum()),
    }


def _check_same_reading(one: Run, other: Run) -> None:
    """Raise BadInput unless two runs see the same rows in the same order."""
    for flag, value, found in (
        ("--store", one.identity["store_fingerprint"], other.identity["store_fingerprint"]),
        ("--store (its rows)", one.identity["store_rows"], other.identity["store_rows"]),
        ("--hook or --layer", one.hook_name, other.hook_name),
        ("--batch-size", one.settings.batch_size, other.settings.batch_size),
        ("--data-seed", one.data_seed, other.data_seed),
    ):
        if value != found:
            raise BadInput(
                f"dictionaries trained on one reading need the same {flag}, "
                f"not {value} and {found}: train them apart, or make it the same"
            )


def _check_names(runs: Sequence[Run]) -> None:
    """Raise BadInput if two runs would write to the same place."""
    directories = [run.directory(0).resolve() for run in runs]
    for i, run in enumerate(runs):
        if directories[i] in directories[:i]:
            raise BadInput(f"two of the dictionaries are called {run.name}: give each its own name")


__all__ = ["STATE", "TRAINING", "default_name", "prepare", "schedule", "train", "train_all"]
