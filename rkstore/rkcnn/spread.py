"""A sample of rows, spread evenly over all of them."""

import numpy as np

from rkstore.rkcnn.subsets import Indices


def spread_rows(rows: int, sample: int, generator: np.random.Generator) -> Indices:
    """Row numbers of a sample: one at random from each of ``sample`` equal intervals.

    Evenly spread, but without a fixed stride, which would sample the same positions of every
    block. All rows if there are no more than ``sample``.

    Returns:
        int64 ``(min(sample, rows),)``, ascending.
    """
    sample = min(sample, rows)
    edges = np.arange(sample + 1) * rows // sample
    return generator.integers(edges[:-1], edges[1:])
