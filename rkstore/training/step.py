"""One step of one run: gradient, optimiser, constraints, help for dead latents."""

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from rkstore.dictionaries.rows import Rows
from rkstore.training.average import follow
from rkstore.training.checkpoint import check_finite, diverged
from rkstore.training.dead import idle_after
from rkstore.training.optim import clip
from rkstore.training.run import Run
from rkstore.training.schedules import rate_of
from rkstore.training.whole import Whole, differentiate

LOG_EVERY = 20


def step(run: Run, rows: Rows, whole: int | None = None) -> None:
    """Make one step on scaled rows, ``(n, width)`` by site.

    Args:
        whole: rows of the batch, if these are the part of one process.

    Raises:
        Diverged: a number that is logged, or that the next step depends on, is not finite.
    """
    settings, dictionary = run.settings, run.dictionary
    for group in run.optimizer.param_groups:
        group["lr"] = rate_of(settings, run.step)
    for pool in dictionary.pools:
        pool.rule = run.select.at(run.step, settings.steps)
    measured = (run.step + 1) % LOG_EVERY == 0 or run.step + 1 == settings.steps
    found = differentiate(run, rows, whole, measured)
    norm = clip(run.trained, settings.clip, run.across)
    if settings.unit_decoder and not run.optimizer.keeps_unit:
        dictionary.project_decoder_gradient()
    run.optimizer.step()
    run.constrain(dictionary)
    run.idle = idle_after(run.idle, found.fired, found.rows)
    run.step += 1
    follow(run)
    if measured:
        run.history.append(_measure(run, rows, found, norm))
    for helper in run.objective.helpers:
        helper.after_step(run)


def _measure(run: Run, rows: Rows, found: Whole, norm: Tensor | None) -> dict[str, Any]:
    """The history entry of a step that was just made on these rows.

    Args:
        norm: of the gradient before it was clipped; None if it is not.

    Raises:
        Diverged: the reconstruction error, another loss, this norm, or the state of the run is not
            finite.
    """
    check_finite(run)
    if norm is not None and not norm.isfinite():
        raise diverged(run, "the norm of its gradient is")
    if not found.error.isfinite():
        raise diverged(run, "its loss is")
    for name, loss in found.losses.items():
        if not math.isfinite(loss):
            raise diverged(run, f"its loss {name} is")
    targets = [rows[site.hook_name] for site in run.dictionary.wiring.writes]
    own = replace(run.over_rows, share=found.share)
    across = run.across
    variations = [(y - own.mean(y.mean(dim=0))).square().sum() for y in targets]
    variation = own.sum(sum(variations[1:], variations[0]))
    return {
        "step": run.step,
        # Identical rows, or a single one, leave nothing to explain.
        "fvu": (found.error / variation).item() if variation > 0 else None,
        "l0": found.l0,
        "idle_10k": int(across.sum((run.idle >= 10_000).sum())),
        "dead": int(across.sum((run.idle >= run.dead_after).sum())),
        **({} if norm is None else {"grad_norm": norm.item()}),
        # Of the batch before the step, as weighed: they add up to what was minimised.
        "losses": found.losses,
    }
