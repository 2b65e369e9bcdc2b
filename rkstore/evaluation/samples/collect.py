"""A dictionary × rows of a store → samples of every latent: one pass over the store.

The strongest are chosen during the pass. The rest needs the largest activations, and is read of the
codes that the pass left in a file: samples of each band, the histograms, what is around a sample.
Memory depends on the dictionary and on the samples asked for, not on the rows.
"""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.samples.around import around
from rkstore.evaluation.samples.best import Best, drawn, falling, ranked
from rkstore.evaluation.samples.codes import Codes, Segment, encoded
from rkstore.evaluation.samples.looking import Looking, look
from rkstore.evaluation.samples.samples import Floats, Ints, Samples, starts_of
from rkstore.evaluation.samples.settings import CollectSettings
from rkstore.evaluation.samples.totals import Totals, blocks_of
from rkstore.store.batches.kept import LeftOut
from rkstore.store.readable import Readable

# Bins of a latent's histogram, at least, and equally many in each band: eight in each of five.
BINS = 40


def collect(
    dictionary: Dictionary, store: Readable, settings: CollectSettings, scratch: Path | None = None
) -> Samples:
    """What makes each latent of a dictionary fire, on the rows of a store.

    Args:
        scratch: an existing directory on a disk with room for the codes, 8 bytes for each
            activation; the system's by default. Nothing is left there.

    Raises:
        BadInput: the store lacks a site of the dictionary, or every row is left out; an activation
            is not finite; or the quantiles leave no room for the strongest samples.
        DamagedStore: a chunk is not what was written.
        RkstoreError: the disk is full.
    """
    check_room(settings)
    where = Path(tempfile.gettempdir()) if scratch is None else scratch
    with tempfile.TemporaryFile(dir=where) as file:
        return choose(dictionary, look(dictionary, store, settings), settings, Codes(file, where))


def check_room(settings: CollectSettings) -> None:
    """Raise BadInput unless there is room for the strongest samples."""
    if settings.strongest < 1:
        raise BadInput(
            f"--quantiles {settings.quantiles} with --samples-per-quantile "
            f"{settings.samples_per_quantile} leave no room for the strongest samples: raise "
            f"--max-samples-per-feature above {settings.quantiles * settings.samples_per_quantile}"
        )


def choose(
    dictionary: Dictionary, looking: Looking, settings: CollectSettings, codes: Codes
) -> Samples:
    """The samples of :func:`collect`, which leaves the codes of all rows in ``codes``."""
    d_sae = dictionary.d_sae
    block = looking.context_size if settings.distinct_blocks else 0
    totals = Totals(d_sae, looking.count, looking.context_size)
    strongest = Best(d_sae, settings.strongest)
    for segment in encoded(dictionary, looking):
        codes.add(segment)
        totals.add(segment)
        magnitude = np.abs(segment.value)
        _offer(strongest, segment.latent.astype(np.int64), falling(magnitude), segment, block)
    each = -(-BINS // settings.quantiles) if settings.quantiles else BINS
    histogram = np.zeros((d_sae, each * max(1, settings.quantiles)), np.int64)
    banded = Best(d_sae * settings.quantiles, settings.samples_per_quantile)
    taken = _Taken(strongest, looking.store.stop_row)
    for segment in codes:
        share = np.abs(segment.value).astype(np.float64) / totals.largest[segment.latent]
        latent = segment.latent.astype(np.int64)
        bins = histogram.shape[1]
        bin = np.minimum((share * bins).astype(np.int64), bins - 1)
        histogram += np.bincount(latent * bins + bin, minlength=histogram.size).reshape(-1, bins)
        if settings.quantiles:
            band = settings.quantiles - 1 - bin // each
            keys = drawn(segment.rows[segment.place], segment.latent, settings.seed)
            _offer(banded, latent * settings.quantiles + band, keys, segment, block, taken)
    latent, band, row, value = _in_order(strongest, banded, settings.quantiles)
    reach = settings.sample_context_size
    return Samples(
        hook_name=",".join(looking.sites),
        fingerprint=looking.store.manifest.fingerprint,
        rows=looking.count,
        before=reach,
        after=reach,
        bands=settings.quantiles,
        latent=latent.astype(np.int32),
        band=band.astype(np.int8),
        row=row,
        value=value,
        around=around(codes, latent, row, reach, looking.context_size),
        starts=starts_of(latent, d_sae),
        fired=totals.fired,
        blocks=totals.blocks,
        largest=totals.largest,
        mean=totals.mean,
        deviation=totals.deviation,
        histogram=histogram,
        windows=totals.windows,
        window_rows=totals.window_rows,
    )


class _Taken:
    """The entries that are among the strongest already."""

    def __init__(self, strongest: Best, stop_row: int) -> None:
        latent, row, _ = strongest.entries()
        self.stop_row = stop_row
        self.cells = LeftOut(np.sort(latent * stop_row + row))

    def holds(self, latent: NDArray[np.int32], row: Ints) -> NDArray[np.bool_]:
        return self.cells.holds(latent * np.int64(self.stop_row) + row)


def _offer(
    best: Best,
    owners: Ints,
    keys: NDArray[np.uint64],
    segment: Segment,
    block_size: int,
    taken: _Taken | None = None,
) -> None:
    """Offer the entries of a segment, each to its owner.

    Args:
        block_size: tokens in a block, of which each owner gets the best entry; 0 for all.
        taken: entries that are not offered.
    """
    near = best.near(owners, keys)
    if taken is not None:
        near = near[~taken.holds(segment.latent[near], segment.rows[segment.place[near]])]
    if block_size and len(near):
        block, count = blocks_of(segment, block_size)
        group = owners[near] * count + block[segment.place[near]]
        order = ranked(group, keys[near])
        first = np.diff(group[order], prepend=-1) != 0
        near = np.sort(near[order[first]])
    row, value = segment.rows[segment.place[near]], segment.value[near]
    best.offer(owners[near], keys[near], row, value)


def _in_order(strongest: Best, banded: Best, bands: int) -> tuple[Ints, Ints, Ints, Floats]:
    """Latent, band, row and value of all samples, in the order of :class:`Samples`."""
    of_strongest, of_banded = strongest.entries(), banded.entries()
    latents = np.concatenate([of_strongest[0], of_banded[0]])
    rows = np.concatenate([of_strongest[1], of_banded[1]])
    values = np.concatenate([of_strongest[2], of_banded[2]])
    band = np.zeros(len(latents), np.int64)
    if bands:
        here = slice(len(of_strongest[0]), None)
        latents[here], band[here] = np.divmod(of_banded[0], bands)
        band[here] += 1
    order = np.lexsort((rows, -np.abs(values), band, latents))
    return latents[order], band[order], rows[order], values[order]
