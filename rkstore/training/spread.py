"""Latents spread over processes, for a dictionary too wide for one device.

Each process has some of the latents and sees all rows. The k largest of a token are found among the
candidates of all processes, and what each decodes is added up: one all-reduce of ``(batch,
d_out)``. Nothing else is sent: the derivative by the reconstruction is then the same everywhere,
and the gradients of a latent depend on it and on that latent alone; only the part of ``b_dec``'s
that comes through the encoders is a sum, ``(d_in,)``.

A run begins, is saved and is resumed as a whole, in the main memory of the first process, so its
checkpoints are those of one process.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selects.batchtopk import BatchTopK
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.dictionaries.world import ALONE
from rkstore.errors import BadInput, RkstoreError
from rkstore.settings import replace as changed
from rkstore.training import fast
from rkstore.training.average import start_average
from rkstore.training.checkpoint import restore, state_of
from rkstore.training.controls import PLAIN
from rkstore.training.fast import Scratch
from rkstore.training.fast.covers import has_formula
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.optim import Adam
from rkstore.training.run import Run

# The dimension of the latents in what a run consists of; the rest every process has.
LATENTS = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "idle": 0}


def check_spread(run: Run, callbacks: int) -> None:
    """Raise BadInput if the latents of such a run cannot be spread.

    Args:
        callbacks: how many look at the dictionary while it is trained.
    """
    if not run.by_latent:
        return
    wiring, objective = run.dictionary.wiring, run.objective
    others = [one.name for one in objective.helpers if not isinstance(one, AuxK)]
    for here, what in (
        (type(run.select) not in (ReLU, TopK, BatchTopK), f"a {run.settings.dictionary} code"),
        (len(wiring.banks) > 1 or wiring.skip, f"--wiring {run.settings.wiring}"),
        (wiring.norm != "none", "a --code-norm"),
        (not objective.prefixes.whole, "--prefixes"),
        (bool(others), ", ".join(f"--{name}" for name in others)),
        (run.control is not PLAIN, "--control"),
        (run.settings.accumulate > 1, "--accumulate"),
        (callbacks > 0, "what evaluates or samples it while it is trained"),
        (not fast.covers(run.dictionary, objective), "this loss"),
        (not has_formula(run.dictionary, objective), "this penalty"),
    ):
        if here:
            raise BadInput(
                f"--shard-latents does not know {what}: leave out one of them, or share the rows "
                "of a batch instead, without --shard-latents"
            )
    if wiring.latents < run.world.size:
        raise BadInput(f"{wiring.latents} latents are too few for {run.world.size} processes")
    run.select.check(wiring.latents // run.world.size)  # of the process with the fewest


def spread(run: Run, device: str) -> Run:
    """The part of a run that this process trains on its device; the whole stays in the first."""
    bank, world = run.dictionary.wiring.banks[0], run.world
    a, b = (bank.latents * rank // world.size for rank in (world.rank, world.rank + 1))
    wiring = replace(run.dictionary.wiring, banks=(replace(bank, latents=b - a),))
    dictionary = Dictionary(wiring, run.select).to(device)
    for pool in dictionary.pools:
        pool.across = world
    part = replace(
        run,
        settings=changed(run.settings, device=device),
        dictionary=dictionary,
        optimizer=Adam(
            list(dictionary.parameters()),
            run.settings.lr,
            [dictionary.W_dec] if run.settings.unit_decoder else (),
        ),
        scratch=Scratch(),
        held={} if run.settings.ema is None else start_average(dictionary),
        whole=run if world.first else None,
    )
    state = {}
    for name, tensor in state_of(run).items():
        dim = _dim(name)
        own = tensor if dim is None else tensor.narrow(dim, a, b - a)
        state[name] = own.clone().to(device)
    restore(part, {"step": run.step, "history": run.history}, state)
    run.world = ALONE  # from now on only the first process has it
    return part


def gathered(part: Run) -> list[dict[str, Tensor]]:
    """The state of each process's part, in the first process; elsewhere nothing."""
    own = {name: tensor.detach().cpu() for name, tensor in state_of(part).items()}
    return part.world.to_first(own)


def bring(part: Run, of_each: list[dict[str, Tensor]]) -> Run:
    """The whole run, brought to where its parts are.

    Raises:
        RkstoreError: what every process has is not the same in all.
    """
    whole, first = part.whole, of_each[0]
    assert whole is not None
    state: dict[str, Any] = {}
    for name, tensor in first.items():
        dim = _dim(name)
        parts = [one[name] for one in of_each]
        if dim is None and any(not torch.equal(tensor, other) for other in parts):
            raise RkstoreError(
                f"at step {part.step} the processes that train {part.name} have different {name}: "
                "are they different machines or versions? Its last checkpoint is as it was"
            )
        state[name] = tensor if dim is None else torch.cat(parts, dim=dim)
    restore(whole, {"step": part.step, "history": part.history}, state)
    return whole


def _dim(name: str) -> int | None:
    """The dimension of the latents in a tensor of a run's state."""
    base = name.removeprefix("average.").removesuffix(".exp_avg").removesuffix(".exp_avg_sq")
    return LATENTS.get(base)
