"""The chance level of an evaluation: a random dictionary of the same shape.

Its directions owe nothing to the data: decoder rows are random unit vectors, encoders the same
vectors where a bank reads what it writes, else others. What has to be fitted for that to be a fair
comparison is fitted to some rows of the training chunks, each in closed form or by bisection: the
biases (the mean), one shift of all pre-activations (so that as many latents fire, if the select
lets a shift decide that), and one gain for each written site (least squares). Without them an
offset of the data alone would make any random dictionary look hopeless.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rownorm import ROW_NORMS
from rkstore.dictionaries.rows import Rows, side_by_side
from rkstore.evaluation.measure import Evaluation, Measure
from rkstore.evaluation.metrics import METRICS
from rkstore.evaluation.metrics.base import Given, listed
from rkstore.evaluation.metrics.decoders import Decoders
from rkstore.evaluation.metrics.published import Published
from rkstore.evaluation.metrics.sparsity import Sparsity
from rkstore.store.sites import Site

# Rows that the few fitted numbers are fitted to, and rows of these that the shift is.
CALIBRATION_ROWS, SHIFT_ROWS = 2048, 256

# Held-out rows that a random dictionary is measured on: enough for three digits of its FVU, and
# few next to an evaluation.
CHANCE_ROWS = 4096

# L0 of a random dictionary is right within this fraction, where a shift can make it so.
NEAR = 0.01

NAME = "random"

OF_CHANCE = tuple(metric for metric in METRICS if metric in (Sparsity, Published, Decoders))


@torch.no_grad()
def random_like(dictionary: Dictionary, rows: Rows, l0: float, seed: int = 0) -> Dictionary:
    """A random dictionary with the wiring, select and norms of another.

    Args:
        rows: activations at every site, that it is fitted to.
        l0: how many latents should fire in a row, if its select allows it.
        seed: of its directions.
    """
    select = dictionary.pools[0].rule
    made = Dictionary(dictionary.wiring, select, dictionary.row_norm).eval()
    made = made.to(dictionary.b_dec.device)
    # The state of the select, such as thresholds, and the units of norms.
    for name, tensor in dictionary.state_dict().items():
        if name.startswith(("select", "units")):
            if name == "units":
                made.register_buffer(name, tensor.clone())
            else:
                made.state_dict()[name].copy_(tensor)
    normed = {name: _normed(made, x) for name, x in rows.items()}
    _draw(made, normed, torch.Generator().manual_seed(seed))
    _shift(made, {name: x[:SHIFT_ROWS] for name, x in rows.items()}, l0)
    _fit_gains(made, rows)
    return made


def chance_of(
    given: Given, fitted: Rows, batches: Iterable[Rows], result: Evaluation, seed: int
) -> Evaluation:
    """What a random dictionary scores that is like one that was evaluated.

    Args:
        given: of that dictionary.
        fitted: rows of the training chunks.
        batches: held-out rows.
        result: of that dictionary.
    """
    made = random_like(given.dictionary, fitted, result.l0, seed)
    measure = Measure(made, metrics=OF_CHANCE, given=Given(made, given.means))
    for rows in batches:
        measure.add(rows)
    if result.sites:
        codec_fvu = {name: site.codec_fvu for name, site in result.sites.items()}
    else:
        codec_fvu = dict.fromkeys(measure.by_site, result.codec_fvu)
    return measure.result(NAME, codec_fvu)


def _normed(made: Dictionary, x: Tensor) -> Tensor:
    """Rows as the dictionary decodes them, before their norm is put back."""
    if made.row_norm == "none":
        return x
    mean, divisor, _ = ROW_NORMS[made.row_norm](x)
    return (x - mean) / divisor


def _draw(made: Dictionary, rows: Rows, generator: torch.Generator) -> None:
    """Random directions; biases that centre the rows."""
    wiring = made.wiring
    usual = {
        site: rows[site.hook_name].double().var(dim=0, correction=0).sum().sqrt().item() or 1.0
        for site in wiring.sites
    }
    means = [rows[site.hook_name].double().mean(dim=0) for site in wiring.writes]
    made.b_dec.copy_(torch.cat(means))
    for bank, weights in made.banks:
        written = _directions(bank.writes, bank.latents, generator)
        read = written if bank.reads == bank.writes else None
        read = read or _directions(bank.reads, bank.latents, generator)
        # In units in which every site has the same variance, so that none decides alone.
        weights.W_dec.copy_(torch.cat([written[site] * usual[site] for site in bank.writes], dim=1))
        weights.W_enc.copy_(torch.cat([read[site] / usual[site] for site in bank.reads], dim=1).T)
        if not wiring.centred:
            mean = side_by_side(rows, bank.reads).double().mean(dim=0)
            weights.b_enc.copy_(-(mean @ weights.W_enc.double()))


def _directions(
    sites: Sequence[Site], latents: int, generator: torch.Generator
) -> dict[Site, Tensor]:
    """Random unit vectors, ``(latents, width)`` at each site."""
    return {
        site: F.normalize(torch.randn(latents, site.width, generator=generator), dim=1)
        for site in sites
    }


def _shift(made: Dictionary, rows: Rows, l0: float) -> None:
    """Shift all pre-activations until about ``l0`` latents fire, if that decides how many do."""
    pre = made.pre(rows)

    def fires(shift: float) -> float:
        on = made.code(pre - shift) != 0
        on = on.any(dim=0) if on.dim() > 2 else on
        return on.sum().item() / len(pre)

    size = max(pre.abs().max().item(), 1e-12)
    low, high = -size, size
    if abs(fires(0.0) - l0) <= NEAR * l0:
        return
    while fires(low) < l0 and abs(low) < 1e6 * size:
        low *= 4
    if not fires(high) <= l0 <= fires(low):
        return  # the select decides by itself
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fires(middle) > l0 else (low, middle)
        if abs(fires(middle) - l0) <= NEAR * l0:
            break
    for _, weights in made.banks:
        weights.b_enc.sub_(middle)


def _fit_gains(made: Dictionary, rows: Rows) -> None:
    """Scale the decoder of each site so that the error is least."""
    code = listed(made.encode(rows))
    found = made.restored(code, rows)
    kept = [weights.W_dec.clone() for _, weights in made.banks]
    for _, weights in made.banks:
        weights.W_dec.zero_()
    nothing = made.restored(code, rows)
    gains = {}
    for name, y in found.items():
        change = (y - nothing[name]).double()
        square = change.square().sum().item()
        wanted = (rows[name] - nothing[name]).double()
        gains[name] = (change * wanted).sum().item() / square if square else 1.0
    for (bank, weights), W_dec in zip(made.banks, kept, strict=True):
        parts = torch.split(W_dec, [site.width for site in bank.writes], dim=1)
        scaled = [g * part for g, part in zip(_of(bank.writes, gains), parts, strict=True)]
        weights.W_dec.copy_(torch.cat(scaled, dim=1))
    if made.wiring.norm != "none":  # which latents fire does not change
        inverse = torch.tensor([1 / abs(g) if g else 1.0 for g in _of(made.wiring.writes, gains)])
        made.site_units.mul_(inverse.to(made.b_dec).reshape(-1, *[1] * (made.site_units.dim() - 1)))


def _of(sites: Sequence[Site], gains: dict[str, float]) -> list[float]:
    return [gains[site.hook_name] for site in sites]
