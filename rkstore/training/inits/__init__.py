"""Inits: how the tensors of a dictionary are initialised. One file each.

To add one, write its file and add it to ``INITS``. An init is given random unit rows in the
decoder, the same for every init with one seed, so that two inits differ only in what they do, and
``b_dec`` as set by ``--center`` (``centre.py``). Where encoders do not read ``x - b_dec``, as in
transcoders and crosscoders, ``b_enc`` begins as if they read ``x`` relative to its centre.
``--init-bias`` and ``--init-scale`` may follow (``calibration.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.errors import BadInput
from rkstore.settings import member_named
from rkstore.training.inits.base import Data, Init, Start
from rkstore.training.inits.controls import SparseRandom, Unscored
from rkstore.training.inits.datapoint import Datapoint
from rkstore.training.inits.exclusive import apart, beside
from rkstore.training.inits.mining import Directed
from rkstore.training.inits.random import Random
from rkstore.training.inits.rkcnn import RkCNN
from rkstore.training.inits.rkcnn_decoder import RkCNNDecoder
from rkstore.training.inits.subspace import Subspace
from rkstore.training.inits.tied import Tied

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.training.settings import TrainSettings

INITS: dict[str, type[Init]] = {
    init.name: init
    for init in (Random, Tied, Datapoint, Subspace, RkCNN, RkCNNDecoder, Unscored, SparseRandom)
}
"""What ``--init`` offers, by name."""


def initialise(
    dictionary: Dictionary,
    reading: Data,
    settings: TrainSettings,
    directions: Tensor | None = None,
) -> list[tuple[int, int]]:
    """Fill a dictionary as the settings say; all inits with one seed share their random base.

    Args:
        directions: of a probe, unit rows ``(n, d_in)``, the best first.

    Returns:
        Which latents are mined, ``(first, one past the last)`` for each bank with such: they are
        the mined directions 0, 1, … of the bank, the best first.

    Raises:
        BadInput: no init has that name, or its options do not fit the sites.
    """
    import torch

    from rkstore.dictionaries.selects.topk import TopK
    from rkstore.training.inits.calibration import SCALE_ROWS, fire_at_rate, match_reconstruction
    from rkstore.training.inits.centre import centre

    init = member_named("init", INITS, settings.init, dict(settings))
    if directions is not None:
        _check_directed(init)
    generator, wiring = torch.Generator().manual_seed(settings.seed), dictionary.wiring
    mined, first = [], 0
    with torch.no_grad():
        for _, weights in dictionary.banks:
            weights.W_dec.normal_(generator=generator)
        dictionary.normalise_decoder()
        kind = settings.center or ("mean" if init.centred else "none")
        dictionary.b_dec.copy_(centre(reading, wiring.writes, kind))
        for bank, weights in dictionary.banks:
            if bank.reads != bank.writes and not init.any_sites:
                raise BadInput(_needs_ties(init))
            b_dec = dictionary.bias(bank.writes)
            tied = bank.reads == bank.writes
            middle = b_dec if tied else centre(reading, bank.reads, kind).float()
            around = beside(bank, wiring), apart(bank, wiring)
            start = Start(bank, weights, b_dec, middle, reading, settings.seed, directions, *around)
            if count := init.fill(start, generator):
                mined.append((first, first + count))
            first += bank.latents
            if not wiring.centred:
                # As if the encoder read x - centre, as that of an autoencoder does.
                weights.b_enc.sub_(middle @ weights.W_enc)
        dictionary.normalise_decoder()
        if settings.init_bias == "quantile":
            rate = settings.options(TopK).k / dictionary.pools[0].latents
            fire_at_rate(dictionary, reading.sample(), rate)
        if (settings.init_scale or ("reconstruction" if init.scaled else "none")) != "none":
            match_reconstruction(dictionary, reading.sample(SCALE_ROWS))
    return mined


def _needs_ties(init: Init) -> str:
    able = [name for name, other in INITS.items() if other.any_sites]
    return (
        f"--init {init.name} needs latents that write what they read, and those of this wiring do "
        f"not: choose --init {' or '.join(able)}"
    )


def _check_directed(init: Init) -> None:
    """Raise BadInput unless an init can use the directions of a probe."""
    if not isinstance(init, Directed):
        able = [name for name, other in INITS.items() if issubclass(other, Directed)]
        raise BadInput(
            f"--init {init.name} does not use the directions of a probe: "
            f"leave out --directions, or choose --init {' or '.join(able)}"
        )


__all__ = ["INITS", "Init", "Start", "initialise"]
