"""What the code of a batch costs: the error of its reconstruction, and the losses of the select."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.dictionaries.selection import Selection


@dataclass(frozen=True)
class Coded:
    """One pool of latents in one pass: what the losses of a select may look at.

    With a code norm, ``pre`` and ``f`` are weighed by it (``norms.py``).

    Args:
        pre: pre-activations, ``(n, latents)``.
        f: the code, ``(n, latents)``.
        kept: the select's state and parameters.
        dead: which latents count as dead, bool ``(latents,)``.
        pressure: fraction of the sparsity losses to apply, 0 to 1.
        error_with: the reconstruction error with another code of this pool, weighed like ``f``, of
            the sites that it writes; no gradient reaches the decoders.
    """

    pre: Tensor
    f: Tensor
    kept: Selection
    dead: Tensor
    pressure: float
    error_with: Callable[[Tensor], Tensor]


def error(decoded: Rows, rows: Rows) -> Tensor:
    """``Σ ‖ŷ - y‖²`` over the decoded sites, mean over tokens."""
    of_sites = [(y - rows[name]).square().sum() for name, y in decoded.items()]
    return torch.stack(of_sites).sum() / len(next(iter(decoded.values())))


def losses(dictionary: Dictionary, rows: Rows, pressure: float = 1.0) -> dict[str, Tensor]:
    """What a plain dictionary minimises, by name."""
    pre = dictionary.pre(rows)
    f = dictionary.code(pre)
    (decoded,) = dictionary.decodings(f, rows=rows)
    dead = torch.zeros(dictionary.d_sae, dtype=torch.bool, device=pre.device)
    found = {"reconstruction": error(decoded, rows)}
    return found | select_losses(dictionary, rows, pre, f, dead, pressure)


def select_losses(
    dictionary: Dictionary, rows: Rows, pre: Tensor, f: Tensor, dead: Tensor, pressure: float
) -> dict[str, Tensor]:
    """The losses of the dictionary's select, summed over its pools, by name."""
    losses: dict[str, Tensor] = {}
    for now in _pools(dictionary, rows, pre, f, dead, pressure):
        for name, loss in now.kept.rule.losses(now).items():
            losses[name] = losses[name] + loss if name in losses else loss
    return losses


def _pools(
    dictionary: Dictionary, rows: Rows, pre: Tensor, f: Tensor, dead: Tensor, pressure: float
) -> list[Coded]:
    """The pass as each pool sees it."""
    normed = dictionary.wiring.norm != "none"
    weights = dictionary.weights() if normed else [None]
    found, pools = [], iter(dictionary.pools)
    for view, c in enumerate(weights):
        first, code = 0, f[view] if dictionary.wiring.views > 1 else f
        while first < dictionary.d_sae:
            kept = next(pools)
            mine = slice(first, first := first + kept.latents)

            def error_with(
                other: Tensor, view: int = view, mine: slice = mine, c: Tensor | None = c
            ) -> Tensor:
                # Dividing by the norms themselves cancels their gradient as well.
                code = other if c is None else other / c[mine].clamp_min(1e-12)
                return _error_with(dictionary, rows, f.detach(), code, view, mine)

            found.append(
                Coded(
                    pre[:, mine] if c is None else pre[:, mine] * c[mine],
                    code[:, mine] if c is None else code[:, mine] * c[mine],
                    kept,
                    dead[mine],
                    pressure,
                    error_with,
                )
            )
    return found


def _error_with(
    dictionary: Dictionary, rows: Rows, f: Tensor, other: Tensor, view: int, mine: slice
) -> Tensor:
    """The error with another code ``(n, latents)`` in one place, of the sites it is decoded to."""
    views = dictionary.wiring.views
    if other.shape == f.shape:
        f = other
    else:
        f = f.clone()
        (f[view] if views > 1 else f)[:, mine] = other
    (decoded,) = dictionary.decodings(f, rows=rows, frozen=True)
    first, written = 0, set()
    for bank, _ in dictionary.banks:
        if mine.start < first + bank.latents and first < mine.stop:
            written |= {site.hook_name for site in bank.writes}
        first += bank.latents
    if views > 1:
        written = {dictionary.wiring.writes[view].hook_name}
    return error({name: decoded[name] for name in written}, rows)
