"""Affine maps of the rows of a site, and folding one into a dictionary trained on mapped rows."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import split


@dataclass(frozen=True, eq=False)
class Affine:
    """``z = (x - mean) · factor``, and back.

    Args:
        mean: ``(d,)`` float64.
        factor: float64; one number ``()``, one a dimension ``(d,)``, or a symmetric matrix
            ``(d, d)``.
        inverse: of the factor, in the same form.
    """

    mean: Tensor
    factor: Tensor
    inverse: Tensor
    _held: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Rows ``x (..., d)`` float32 → ``z``, on the device of ``x``."""
        assert x.dtype == torch.float32
        if x.device not in self._held:
            self._held[x.device] = self.mean.to(x), self.factor.to(x)
        mean, factor = self._held[x.device]
        return _times(x - mean, factor)

    @property
    def inverted(self) -> "Affine":
        """The map from ``z`` to ``x``."""
        return Affine(-_times(self.mean, self.factor), self.inverse, self.factor)

    def directions(self, x: Tensor) -> Tensor:
        """What a step along directions ``x (n, d)`` is in ``z``, of norm 1."""
        z = _times(x.double(), self.factor)
        unit: Tensor = z / z.norm(dim=1, keepdim=True).clamp_min(1e-30)
        return unit.to(x.dtype)


def _times(x: Tensor, factor: Tensor) -> Tensor:
    return x @ factor if factor.dim() == 2 else x * factor


@torch.no_grad()
def rescaled(dictionary: Dictionary, scales: Mapping[str, float]) -> Dictionary:
    """The dictionary for ``x`` of one that was trained on ``scale · x`` at each site.

    Every select is positively homogeneous, except for its threshold. So a scale common to all
    sites changes only the biases and the threshold; the rest multiplies encoders and divides
    decoders, site by site. For one site: ``x̂(x) = x̂'(scale · x) / scale``, with the decoder as it
    was and the code divided by the scale.
    """
    other, wiring = copy.deepcopy(dictionary), dictionary.wiring
    common = scales[wiring.reads[0].hook_name]
    for bank, weights in other.banks:
        weights.b_enc.div_(common)
        for matrix, sites, power in (
            (weights.W_enc.T, bank.reads, 1),
            (weights.W_dec, bank.writes, -1),
        ):
            for site, part in split(matrix, sites):
                if scales[site.hook_name] != common:
                    part.mul_((scales[site.hook_name] / common) ** power)
    for i, bank in enumerate(wiring.banks if wiring.skip else ()):
        W_skip = other.skip(i)
        for site, part in split(W_skip, bank.reads):
            part.mul_(scales[site.hook_name])
        for site, part in split(W_skip.T, bank.writes):
            part.div_(scales[site.hook_name])
    for site, unit in zip(wiring.writes, other.site_units, strict=True):
        unit.mul_(scales[site.hook_name] / common)
    for site, part in split(other.b_dec, wiring.writes):
        part.div_(scales[site.hook_name])
    for pool in other.pools:
        pool.rescale(common)
    return other


@torch.no_grad()
def folded(dictionary: Dictionary, maps: Mapping[str, Affine]) -> Dictionary:
    """The dictionary for ``x`` of one that was trained on ``z`` at some sites.

    It gives the same code, and its reconstruction is that of the other, mapped back: with the
    factor ``F``, encoders become ``F W_enc`` and decoders ``W_dec F⁻¹``, so rows of norm 1 do not
    keep it. Code norms stay those of the training: ``units`` holds, for each site and latent, what
    the new norm is to be multiplied by. In float64, then rounded once.
    """
    if not maps:
        return dictionary
    other, wiring = copy.deepcopy(dictionary).double(), dictionary.wiring
    trained = other.decoder_norms()
    for i, (bank, weights) in enumerate(other.banks):
        for site, part in split(weights.W_enc.T, bank.reads):
            if found := maps.get(site.hook_name):
                part.copy_(_times(part, found.factor))
                if not wiring.centred:
                    weights.b_enc.sub_(part @ found.mean)
        for site, part in split(weights.W_dec, bank.writes):
            if found := maps.get(site.hook_name):
                part.copy_(_times(part, found.inverse))
        if wiring.skip:
            _fold_skip(other, i, maps)
    for site, part in split(other.b_dec, wiring.writes):
        if found := maps.get(site.hook_name):
            part.copy_(_times(part, found.inverse) + found.mean)
    if wiring.skip and not wiring.centred:
        _fold_skipped_means(other, maps)
    if wiring.norm != "none" and any(found.factor.dim() for found in maps.values()):
        _keep_norms(other, trained)
    return other.float()


def _fold_skip(dictionary: Dictionary, i: int, maps: Mapping[str, Affine]) -> None:
    """Fold the maps into the linear map beside a bank."""
    bank, W_skip = dictionary.wiring.banks[i], dictionary.skip(i)
    for site, part in split(W_skip, bank.reads):
        if found := maps.get(site.hook_name):
            part.copy_(_times(part, found.factor))
    for site, part in split(W_skip.T, bank.writes):
        if found := maps.get(site.hook_name):
            part.copy_(_times(part, found.inverse))


def _fold_skipped_means(dictionary: Dictionary, maps: Mapping[str, Affine]) -> None:
    """Take what the skips make of the means, which their inputs now have, out of ``b_dec``."""
    biases = dict(split(dictionary.b_dec, dictionary.wiring.writes))
    for i, bank in enumerate(dictionary.wiring.banks):
        for site, part in split(dictionary.skip(i), bank.reads):
            if found := maps.get(site.hook_name):
                for target, made in split(part @ found.mean, bank.writes):
                    biases[target].sub_(made)


def _keep_norms(dictionary: Dictionary, trained: list[Tensor]) -> None:
    """Set ``units`` so that decoder norms are the trained ones, ``(writes, latents)`` by bank."""
    wiring, first = dictionary.wiring, 0
    units = dictionary.units_of_latents().clone()
    for bank, before, after in zip(wiring.banks, trained, dictionary.decoder_norms(), strict=True):
        ratio = torch.where(after > 0, before / after, 1.0)
        for site, of_site in zip(bank.writes, ratio, strict=True):
            units[wiring.writes.index(site), first : first + bank.latents] *= of_site
        first += bank.latents
    dictionary.register_buffer("units", units)
