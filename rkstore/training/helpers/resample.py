"""Resampling: dead latents are reinitialised at inputs that are reconstructed badly.

Bricken et al. (2023), "Towards Monosemanticity", appendix on neuron resampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rkstore.settings import option
from rkstore.training.helpers.base import Helper
from rkstore.training.schedules import flat_until

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.rows import Rows
    from rkstore.dictionaries.wirings import Bank
    from rkstore.training.run import Run

# Norm of a resampled encoder row, as a fraction of the mean norm of the living ones.
ENCODER_NORM = 0.2

# Rows that resampled latents are drawn from, and how many are decoded at once.
RESAMPLING_ROWS, BLOCK_ROWS = 8192, 1024


class Resampling(Helper):
    """Every so many steps, until the learning rate decays: after that too few steps remain."""

    name = "resample"
    resample_every: int = option(
        0,
        "Steps between resamplings, which reinitialise dead latents at rows that are reconstructed "
        "badly (Bricken et al.); none while the learning rate decays. 0 is off: AuxK revives more "
        "in the same steps.",
        least=0,
    )

    @property
    def asked_for(self) -> bool:
        return self.resample_every > 0

    def after_step(self, run: Run) -> None:
        last = flat_until(run.settings)
        if run.step % self.resample_every == 0 and run.step <= last:
            resample_dead(run)


def resample_dead(run: Run) -> None:
    """Resample the dead latents of a run. The rows depend only on seed and step."""
    import torch

    seed = np.random.SeedSequence([run.settings.seed, run.step]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(seed[0]))
    dead = (run.idle >= run.dead_after).nonzero().squeeze(1)
    if len(dead):
        drawn = run.reading.draw(RESAMPLING_ROWS, generator)
        rows = {name: x.to(run.settings.device) for name, x in drawn.items()}
        resample(run.dictionary, run.optimizer, dead, rows, generator)
        run.idle[dead] = 0


def resample(
    dictionary: Dictionary,
    optimizer: torch.optim.Adam,
    dead: Tensor,
    rows: Rows,
    generator: torch.Generator,
) -> None:
    """Reinitialise the latents ``dead (n,)`` as directions of rows, ``(n, width)``.

    A row is drawn with probability proportional to its squared loss at the sites that the latent
    writes, without replacement unless there are too few. Its direction, relative to ``b_dec``,
    becomes the decoder row and, shorter, the encoder row; the bias becomes zero, what the select
    learned of the latent becomes as it was before the first step, and Adam's moments are reset. An
    encoder that does not read ``x - b_dec`` gets the direction relative to the mean of the rows,
    and the bias for it.
    """
    import torch
    from torch.nn import functional as F

    from rkstore.dictionaries.rows import side_by_side

    if not len(dead):
        return
    with torch.no_grad():
        losses = _losses(dictionary, rows)
        first = 0
        for bank, (W_enc, b_enc, W_dec) in dictionary.banks:
            mine = dead[(dead >= first) & (dead < first + bank.latents)] - first
            first += bank.latents
            if not len(mine):
                continue
            # Of the sites it writes: what is wrong elsewhere is no reason to read a row here.
            of_sites = [losses[site.hook_name] for site in bank.writes]
            odds = sum(of_sites[1:], of_sites[0]).square().clamp_min(1e-30)
            drawn = torch.multinomial(
                odds, len(mine), replacement=len(mine) > len(odds), generator=generator
            )
            chosen = {name: x[drawn.to(x.device)] for name, x in rows.items()}
            middle = _middle(dictionary, rows, bank)
            read = dictionary.read(chosen, bank) - middle
            written = side_by_side(chosen, bank.writes) - dictionary.bias(bank.writes)
            living = torch.ones(bank.latents, dtype=torch.bool, device=dead.device)
            living[mine] = False
            norms = W_enc.norm(dim=0)
            typical = (norms[living] if living.any() else norms).mean()
            W_dec[mine] = F.normalize(written, dim=1)
            W_enc.T[mine] = ENCODER_NORM * typical * F.normalize(read, dim=1)
            b_enc[mine] = -middle @ W_enc[:, mine]
            for moment in ("exp_avg", "exp_avg_sq"):
                optimizer.state[W_dec][moment][mine] = 0
                optimizer.state[W_enc][moment].T[mine] = 0
                optimizer.state[b_enc][moment][mine] = 0
        _restart_selects(dictionary, optimizer, dead)


def _restart_selects(dictionary: Dictionary, optimizer: torch.optim.Adam, dead: Tensor) -> None:
    """Reset what the selects learned of these latents, such as a threshold that none reaches."""
    first = 0
    for pool in dictionary.pools:
        mine = dead[(dead >= first) & (dead < first + pool.latents)] - first
        # With a code per site the next pool has the first latents again.
        first = (first + pool.latents) % dictionary.d_sae
        for name, begun in pool.rule.learned(pool.latents).items():
            parameter = pool.get_parameter(name)
            parameter[mine] = begun.to(parameter)[mine]
            for moment in ("exp_avg", "exp_avg_sq"):
                optimizer.state[parameter][moment][mine] = 0


def _middle(dictionary: Dictionary, rows: Rows, bank: Bank) -> Tensor:
    """What new encoder rows are relative to, ``(d_in,)``, where it is not ``b_dec`` already."""
    mean = dictionary.read(rows, bank).mean(dim=0)
    return mean.zero_() if dictionary.wiring.centred else mean


def _losses(dictionary: Dictionary, rows: Rows) -> dict[str, Tensor]:
    """``‖ŷ - y‖²`` of each row at each written site, float64 ``(rows,)`` on the CPU."""
    import torch

    # As at inference: in training every batch updates batchtopk's threshold.
    dictionary.eval()
    split = {name: torch.split(x, BLOCK_ROWS) for name, x in rows.items()}
    losses: dict[str, list[Tensor]] = {}
    for i in range(len(next(iter(split.values())))):
        block = {name: parts[i] for name, parts in split.items()}
        _, decoded = dictionary.reconstruct(block)
        for name, y in decoded.items():
            losses.setdefault(name, []).append((y - block[name]).square().sum(dim=1))
    dictionary.train()
    return {name: torch.cat(parts).double().cpu() for name, parts in losses.items()}
