"""What a latent does at the tokens around its samples."""

import numpy as np

from rkstore.evaluation.samples.codes import Codes, Segment
from rkstore.evaluation.samples.samples import Floats, Ints


def around(codes: Codes, latents: Ints, rows: Ints, reach: int, context_size: int) -> Floats:
    """Activations of each sample's latent at the tokens around, ``(n, 2 reach + 1)``.

    Args:
        latents: of each sample, ``(n,)``.
        rows: of each sample, of the store.
        reach: tokens on either side, of the same block; 0 beyond it.
    """
    found = np.zeros((len(rows), 2 * reach + 1), np.float32)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    for segment in codes:
        if len(segment.rows):
            ends = np.searchsorted(ascending, [segment.rows[0], segment.rows[-1] + 1])
            some = np.sort(order[slice(*ends)])  # by latent, as the entries will be
            _fill(found, some, latents[some], rows[some], segment, context_size)
    return found


def _fill(
    found: Floats, some: Ints, latents: Ints, rows: Ints, segment: Segment, context_size: int
) -> None:
    """Fill in the samples ``some``, whose rows are in this segment."""
    reach = found.shape[1] // 2
    # From here on rows are those of the text, counted from the segment's first.
    first = int(segment.text[0])
    span = int(segment.text[-1]) - first + 1
    keys = segment.latent.astype(np.int64) * span + (segment.text - first)[segment.place]
    by_latent = np.argsort(keys, kind="stable")
    keys = keys[by_latent]
    at = segment.text[np.searchsorted(segment.rows, rows)]
    block = at // context_size * context_size
    begin = np.maximum(at - reach, np.maximum(block, first)) - first
    end = np.minimum(at + reach, np.minimum(block + context_size, first + span) - 1) - first
    start = np.searchsorted(keys, latents * span + begin)
    counts = np.searchsorted(keys, latents * span + end, side="right") - start
    sample = np.repeat(np.arange(len(some)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    entry = np.arange(len(sample)) - before + start[sample]
    offset = keys[entry] % span - (at - first)[sample] + reach
    found[some[sample], offset] = segment.value[by_latent[entry]]
