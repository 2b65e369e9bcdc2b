"""All rows of a probe, read once."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Floats, Moments
from rkstore.rkcnn.source import Source, ahead, read_blocks
from rkstore.rkcnn.subsets import Indices


def scan(
    source: Source, chosen: Indices, comoment: bool, largest: bool, show_progress: bool = True
) -> tuple[Moments, Floats]:
    """Read all rows once: their moments, and the chosen ones, centred, ``(sample, d)``.

    Centring preserves the precision of differences in float32, and changes neither a distance nor
    a skewness.
    """
    sample = np.empty((len(chosen), source.width), np.float32)

    def blocks() -> Iterator[Floats]:
        start = 0
        hidden = None if show_progress else True
        with tqdm(total=source.rows, desc="probe", unit="row", disable=hidden) as bar:
            for block in read_blocks(source):
                _check_finite(block, start)
                first, last = np.searchsorted(chosen, [start, start + len(block)])
                sample[first:last] = block[chosen[first:last] - start]
                yield block
                start += len(block)
                bar.update(len(block))

    moments = Moments.over(ahead(blocks()), comoment, np.float32, largest)
    return moments, (sample - moments.mean).astype(np.float32)


def _check_finite(block: Floats, start: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        row, dimension = (int(i) for i in np.argwhere(~finite)[0])
        raise BadInput(
            f"row {start + row} of the activations has {block[row, dimension]} in dimension "
            f"{dimension}: they must be finite in float32, leave that row out"
        )


def labels_at(source: Source, labels: str | ArrayLike | torch.Tensor, rows: Indices) -> np.ndarray:
    """Labels of these rows, ``(len(rows),)``."""
    if isinstance(labels, str):
        return source.column(labels, rows)
    array = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if array.shape != (source.rows,):
        raise BadInput(
            f"labels have shape {array.shape} and the activations {source.rows} rows: "
            "give one label a row"
        )
    return array[rows]
