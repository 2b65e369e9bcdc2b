"""Initialising a dictionary from activations in memory, without a store and a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rkstore.dictionaries.affine import Affine
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput, few
from rkstore.rkcnn.source import ArrayRows
from rkstore.settings import options_in
from rkstore.store.sites import Site
from rkstore.training import inits
from rkstore.training.ignored import unused
from rkstore.training.inits import INITS
from rkstore.training.reading import SAMPLE_ROWS
from rkstore.training.settings import TrainSettings

# Options besides those of the inits.
ALWAYS = ("center", "init_bias", "init_scale", "k", "seed")

Array = Tensor | np.ndarray


def initialise(
    dictionary: Dictionary,
    x: Array | Mapping[str, Array],
    init: str = "datapoint",
    *,
    directions: Tensor | None = None,
    **options: Any,
) -> list[tuple[int, int]]:
    """Fill a dictionary in place, as ``rkstore train --init`` does before its first step.

    Args:
        x: activations ``(n, d_in)``, by name for several sites; as they are, for a dictionary
            that is to read them as they are: scale or whiten them first, if you train so.
        directions: of a probe, unit rows ``(n, d_in)``, the best first, for the rkcnn inits.
        options: of the init, and ``center``, ``init_bias``, ``init_scale``, ``k`` (for
            ``init_bias="quantile"``) and ``seed``, with the defaults of ``rkstore train``.

    Returns:
        Which latents are mined, ``(first, one past the last)`` for each bank with such.

    Raises:
        BadInput: there is no such init or option, or it has no effect; a site is missing or has
            another width; or as ``rkstore train`` would refuse it.
    """
    members = {name for member in INITS.values() for name in options_in(member)}
    known = sorted({*members, *ALWAYS} - {"directions"})
    for name in options:
        if name not in known:
            raise BadInput(f"initialise has no option {name}: choose among {', '.join(known)}")
    settings = TrainSettings(init=init, **options)
    if idle := unused(settings, options.keys() - {"k"}):
        raise BadInput(next(iter(idle.values())))
    data, device = Held(_rows(dictionary, x)), dictionary.b_dec.device
    dictionary.cpu()
    try:
        return inits.initialise(dictionary, data, settings, directions)
    finally:
        dictionary.to(device)


@dataclass(frozen=True)
class Held:
    """Rows in memory, float32 ``(n, width)`` by site, as an init looks at them."""

    rows: Mapping[str, Tensor]
    maps: Mapping[str, Affine] = field(default_factory=dict)

    def of(self, sites: tuple[Site, ...]) -> Held:
        """The same rows at these sites alone."""
        return Held({site.hook_name: self.rows[site.hook_name] for site in sites})

    def sample(self, rows: int = SAMPLE_ROWS) -> Mapping[str, Tensor]:
        """At most that many rows, evenly spread."""
        count = len(next(iter(self.rows.values())))
        chosen = torch.linspace(0, count - 1, min(rows, count)).round().long()
        return {name: x[chosen] for name, x in self.rows.items()}

    def draw(self, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """That many different random rows, the same for every site; all, if there are fewer."""
        count = len(next(iter(self.rows.values())))
        chosen = torch.randperm(count, generator=generator)[:rows].sort().values
        return {name: x[chosen] for name, x in self.rows.items()}

    def mean(self, hook_name: str) -> Tensor:
        """The mean of a site, float64."""
        return self.rows[hook_name].double().mean(dim=0)

    def source(self, hook_name: str, rows: int) -> ArrayRows:  # noqa: ARG002
        """The rows for a probe."""
        return ArrayRows(self.rows[hook_name])


def _rows(dictionary: Dictionary, x: Array | Mapping[str, Array]) -> dict[str, Tensor]:
    """Activations of every site of a dictionary, checked."""
    sites = dictionary.wiring.sites
    if not isinstance(x, Mapping):
        if len(sites) > 1:
            names = few([site.hook_name for site in sites])
            raise BadInput(f"the dictionary is of {names}: give a mapping from site to activations")
        x = {sites[0].hook_name: x}
    found = {}
    for site in sites:
        if site.hook_name not in x:
            raise BadInput(f"the dictionary is of {site.hook_name}, which is missing")
        rows = torch.as_tensor(x[site.hook_name]).detach().to("cpu", torch.float32)
        if rows.dim() != 2 or rows.shape[1] != site.width or len(rows) < 2:
            shape = tuple(rows.shape)
            raise BadInput(f"{site.hook_name} has shape {shape}: give (rows, {site.width})")
        if not rows.isfinite().all():
            raise BadInput(f"{site.hook_name} holds values that are not finite: leave them out")
        found[site.hook_name] = rows
    if len({len(rows) for rows in found.values()}) > 1:
        raise BadInput("the sites have different numbers of rows: give the same tokens of each")
    return found
