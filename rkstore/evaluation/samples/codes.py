"""Rows of a store → what fires on them: one pass of the encoder, kept as lists in a file.

A code as a list has some hundred bytes a row, so it can be gone through again for next to nothing:
which samples belong to which band is known only when the largest activation of a latent is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.samples.looking import Looking
from rkstore.store.batches.assemble import read_rows
from rkstore.store.files import writing

# A segment ends at the first end of a block behind so many rows or entries: 50 MB of entries.
SEGMENT_ROWS, SEGMENT_ENTRIES = 16_384, 2**21


@dataclass(frozen=True, eq=False)
class Segment:
    """Some rows, whole blocks of the text, and what fires on them."""

    rows: NDArray[np.int64]
    """The store's rows, ascending, ``(r,)``; without those left out."""
    text: NDArray[np.int64]
    """Their rows in the store that has the text, ``(r,)``: others only if it is aligned."""
    place: NDArray[np.int32]
    """Of each entry, ordered: its row's index in ``rows``, ``(n,)``."""
    latent: NDArray[np.int32]
    """The latent that fires, ``(n,)``."""
    value: NDArray[np.float32]
    """Its activation, not zero, ``(n,)``."""

    def split(self, row: int) -> tuple["Segment", "Segment"]:
        """The rows before an index, and those from it on."""
        at = int(np.searchsorted(self.place, row))
        first = Segment(
            self.rows[:row], self.text[:row], self.place[:at], self.latent[:at], self.value[:at]
        )
        place = self.place[at:] - np.int32(row)
        rest = Segment(self.rows[row:], self.text[row:], place, self.latent[at:], self.value[at:])
        return first, rest


class Codes:
    """Segments in a file, to be read again and again, one at a time."""

    def __init__(self, file: BinaryIO, where: Path) -> None:
        """Begin an empty file.

        Args:
            where: its directory, for errors.
        """
        self._file, self._where = file, where
        self._sizes: list[tuple[int, int]] = []

    def add(self, segment: Segment) -> None:
        """Write a segment behind the others.

        Raises:
            RkstoreError: the disk is full.
        """
        with writing(self._where, "nothing else was touched"):
            for array in _arrays(segment):
                self._file.write(array.tobytes())
        self._sizes.append((len(segment.rows), len(segment.place)))

    def __iter__(self) -> Iterator[Segment]:
        self._file.seek(0)
        dtypes = (np.int64, np.int64, np.int32, np.int32, np.float32)
        for rows, entries in self._sizes:
            counts = (rows, rows, entries, entries, entries)
            arrays = [np.fromfile(self._file, *of) for of in zip(dtypes, counts, strict=True)]
            yield Segment(*arrays)


def _arrays(segment: Segment) -> tuple[NDArray[np.generic], ...]:
    return segment.rows, segment.text, segment.place, segment.latent, segment.value


@torch.no_grad()
def encoded(dictionary: Dictionary, looking: Looking, shown: str = "samples") -> Iterator[Segment]:
    """The code of every row that is looked at, segment by segment; shows a bar.

    Raises:
        BadInput: an activation is not finite.
        DamagedStore: a chunk is not what was written.
    """
    dictionary = dictionary.to(looking.device).eval()
    pending: list[Segment] = []
    with tqdm(total=looking.count, unit="row", desc=shown, disable=None) as bar:
        for rows, x in _batches(looking):
            pending.append(_segment(dictionary, looking, rows, x))
            bar.update(len(rows))
            if (
                sum(len(part.rows) for part in pending) >= SEGMENT_ROWS
                or sum(len(part.place) for part in pending) >= SEGMENT_ENTRIES
            ):
                whole = _joined(pending)
                block = whole.text // looking.context_size
                last = int(np.searchsorted(block, block[-1]))  # there may be more of it
                done, rest = whole.split(last)
                pending = [rest]
                if len(done.rows):
                    yield done
    if pending:
        yield _joined(pending)


def _batches(looking: Looking) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Rows and their activations, at most ``batch_size`` at a time."""
    size = looking.batch_size
    batches = read_rows(looking.store, looking.sites, looking.chunks, size, looking.left_out)
    for batch in batches:
        for first in range(0, len(batch.rows), size):
            some = slice(first, first + size)
            x = {name: torch.from_numpy(batch.x[name][some]) for name in looking.sites}
            yield batch.rows[some], {n: part.to(looking.device) for n, part in x.items()}


def _segment(
    dictionary: Dictionary, looking: Looking, rows: NDArray[np.int64], x: dict[str, Tensor]
) -> Segment:
    """One batch as a segment, which may end within a block."""
    place, latent, value = (part.cpu().numpy() for part in _entries(dictionary, x))
    if looking.threshold:
        on = np.abs(value) > looking.threshold
        place, latent, value = place[on], latent[on], value[on]
    if not np.isfinite(value).all():
        raise BadInput(
            f"an activation of rows {rows[0]}:{rows[-1] + 1} of {looking.store.where} is not "
            "finite: leave such rows out with --max-norm, or check the store with 'rkstore verify'"
        )
    return Segment(
        rows, looking.in_text(rows), place.astype(np.int32), latent.astype(np.int32), value
    )


def _entries(dictionary: Dictionary, x: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The code of a batch as a list: token, latent and value of each entry, by token."""
    pools = dictionary.pools
    if dictionary.wiring.norm == "none" and len(pools) == 1 and not pools[0].rule.by_latent:
        # Those that choose among latents have the list first, and make the matrix of it.
        code = pools[0].sparse(dictionary.pre(x))
        if code is not None:
            return code.tokens, code.latents, code.values
    f = dictionary.encode(x)
    if f.dim() > 2:  # a code for each site: the largest of a latent's activations
        f = f.gather(0, f.abs().argmax(dim=0, keepdim=True)).squeeze(0)
    flat = f.ne(0).flatten().nonzero().squeeze(1)
    value = f.flatten()[flat].float()
    return flat // f.shape[1], flat % f.shape[1], value


def _joined(parts: list[Segment]) -> Segment:
    """Segments that follow one another as one."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(part.rows) for part in parts)])
    places = [part.place + np.int32(n) for part, n in zip(parts, before, strict=False)]
    rows, text, _, latent, value = (
        np.concatenate(same) for same in zip(*map(_arrays, parts), strict=True)
    )
    return Segment(rows, text, np.concatenate(places), latent, value)
