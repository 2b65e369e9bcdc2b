"""One step of one run: gradient, optimiser, constraints, help for dead latents."""

import math
from typing import Any

import torch
from torch import Tensor

from rkstore.dictionaries.rows import Rows
from rkstore.training import fast
from rkstore.training.average import follow
from rkstore.training.checkpoint import check_finite, diverged
from rkstore.training.dead import idle_after
from rkstore.training.fast import Measured
from rkstore.training.optim import clip
from rkstore.training.run import Run
from rkstore.training.schedules import pressure_of, rate_of

LOG_EVERY = 20


def step(run: Run, rows: Rows) -> None:
    """Make one step on scaled rows, ``(n, width)`` by site.

    Raises:
        Diverged: a number that is logged, or that the next step depends on, is not finite.
    """
    settings, dictionary = run.settings, run.dictionary
    for group in run.optimizer.param_groups:
        group["lr"] = rate_of(settings, run.step)
    for pool in dictionary.pools:
        pool.rule = run.select.at(run.step, settings.steps)
    found = _differentiated(run, rows)
    norm = clip(run.trained, settings.clip)
    if settings.unit_decoder and not run.optimizer.keeps_unit:
        dictionary.project_decoder_gradient()
    run.optimizer.step()
    run.constrain(dictionary)
    run.idle = idle_after(run.idle, found.fired, len(found.residual))
    run.step += 1
    follow(run)
    if run.step % LOG_EVERY == 0 or run.finished:
        run.history.append(_measure(run, rows, found, norm))
    for helper in run.objective.helpers:
        helper.after_step(run)


def _differentiated(run: Run, rows: Rows) -> Measured:
    """Fill the gradients, by hand where that is supported."""
    dictionary, dtype = run.dictionary, getattr(torch, run.settings.dtype)
    asked, dead = pressure_of(run.settings, run.step), run.idle >= run.dead_after
    if fast.covers(dictionary, run.objective):
        return fast.gradients(
            dictionary, rows, run.scratch, run.objective, dead, asked, run.shares, dtype
        )
    run.optimizer.zero_grad()
    with torch.autocast(run.dictionary.b_dec.device.type, dtype, dtype != torch.float32):
        losses, now = run.objective(dictionary, rows, dead, asked, run.shares)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    on = now.f.detach() != 0
    if dictionary.wiring.views > 1:
        on = on.any(dim=0)
    residuals = [y.detach() - rows[name] for name, y in now.decoded.items()]
    residual = torch.cat(residuals, dim=-1)
    return Measured(residual, on.any(dim=0), lambda: int(on.count_nonzero()), lambda: losses)


def _measure(run: Run, rows: Rows, found: Measured, norm: Tensor | None) -> dict[str, Any]:
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
    error = found.residual.square().sum()
    if not error.isfinite():
        raise diverged(run, "its loss is")
    losses = {name: loss.item() for name, loss in found.losses().items()}
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise diverged(run, f"its loss {name} is")
    targets = [rows[site.hook_name] for site in run.dictionary.wiring.writes]
    variations = [(y - y.mean(dim=0)).square().sum() for y in targets]
    variation = sum(variations[1:], variations[0])
    return {
        "step": run.step,
        # Identical rows, or a single one, leave nothing to explain.
        "fvu": (error / variation).item() if variation > 0 else None,
        "l0": found.l0,
        "idle_10k": int((run.idle >= 10_000).sum()),
        "dead": int((run.idle >= run.dead_after).sum()),
        **({} if norm is None else {"grad_norm": norm.item()}),
        # Of the batch before the step, as weighed: they add up to what was minimised.
        "losses": losses,
    }
