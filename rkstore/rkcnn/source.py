"""The rows of a probe: an array in memory, or one site of a store.

Either is read in blocks of the same size, so the result does not depend on the source or on the
chunks of the store.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from rkstore.errors import BadInput
from rkstore.rkcnn.moments import Floats
from rkstore.rkcnn.subsets import Indices
from rkstore.store.batches.kept import ALL_KEPT, LeftOut
from rkstore.store.readable import Readable

# 2048 rows of 3072 dimensions are 25 MB, and enough for the matrix product to dominate adding its
# result to the sum.
BLOCK_ROWS = 2048

# Labels that are not a column: the token of the next row.
NEXT_TOKEN = "next_token"


@dataclass(frozen=True)
class StoreSite:
    """The activations of one site of a store, read a chunk at a time.

    Raises:
        BadInput: the store lacks the site or a chunk.
    """

    store: Readable
    hook_name: str
    chunks: Sequence[int] | None = None
    """Which chunks of the store to read, in this order; all by default."""
    left_out: LeftOut = ALL_KEPT
    """Rows that are skipped."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hook_name", self.store.check_site(self.hook_name))
        for chunk in self._chunks:
            self.store.check_chunk(chunk)

    @property
    def rows(self) -> int:
        """How many rows are read."""
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """Dimensions of a row."""
        return self.store.manifest.width(self.hook_name)

    def parts(self) -> Iterator[Floats]:
        """All rows in order, in parts ``(n, width)`` of any size."""
        with self.store.ahead([self.hook_name], self._chunks) as near:
            for chunk in self._chunks:
                yield self.left_out.read(near, self.hook_name, chunk)

    def column(self, name: str, rows: Indices) -> np.ndarray:
        """A column, or ``next_token``, at these rows, ascending, ``(len(rows),)``."""
        out = np.empty(len(rows), np.int32)
        # Only the chunks with one of these rows are read.
        edges = np.searchsorted(rows, self._starts)
        for i in np.flatnonzero(np.diff(edges)).tolist():
            values = self._column_of_chunk(name, self._chunks[i])
            here = slice(edges[i], edges[i + 1])
            first, stop = self.store.rows_of_chunk(self._chunks[i])
            kept = self.left_out.kept(first, stop) - first
            out[here] = values[kept[rows[here] - self._starts[i]]]
        return out

    def describe(self) -> dict[str, Any]:
        """What a result records of its source."""
        whole = sum(len(range(*self.store.rows_of_chunk(chunk))) for chunk in self._chunks)
        left_out = whole - self.rows
        return {
            "store": self.store.manifest.fingerprint,
            "hook_name": self.hook_name,
            "chunks": None if self.chunks is None else [int(chunk) for chunk in self.chunks],
            "rows": self.rows,
            **({"left_out": left_out} if left_out else {}),
        }

    def _column_of_chunk(self, name: str, chunk: int) -> np.ndarray:
        """A column of the store, or ``next_token``: that of the next row, -1 at a block's end."""
        start, stop = self.store.rows_of_chunk(chunk)
        if name != NEXT_TOKEN:
            return self.store.column(name, start, stop)
        context = self.store.manifest.context_size
        below = np.arange(start + 1, stop + 1)
        inside = (below % context > 0) & (below < self.store.manifest.rows)
        tokens = np.full(stop - start, -1, np.int32)
        if inside.any():
            # The row after the chunk only if its block continues there: it may not be stored here.
            last = stop + int(inside[-1])
            tokens[: last - start - 1] = self.store.column("token_id", start + 1, last)
        tokens[~inside] = -1
        return tokens

    @property
    def _chunks(self) -> Sequence[int]:
        return self.store.chunk_range if self.chunks is None else self.chunks

    @cached_property
    def _starts(self) -> Indices:
        """First row of each chunk, and finally the number of rows."""
        kept = [len(self.left_out.kept(*self.store.rows_of_chunk(c))) for c in self._chunks]
        return np.cumsum([0, *kept], dtype=np.int64)


@dataclass(frozen=True)
class ArrayRows:
    """Activations in memory, ``(n, d)`` of any real type; they are read as float32."""

    array: torch.Tensor | np.ndarray

    @property
    def rows(self) -> int:
        return len(self.array)

    @property
    def width(self) -> int:
        return int(self.array.shape[1])

    def parts(self) -> Iterator[Floats]:
        for start in range(0, self.rows, BLOCK_ROWS):
            part = self.array[start : start + BLOCK_ROWS]
            if isinstance(part, torch.Tensor):
                part = part.detach().to("cpu", torch.float32).numpy()
            yield part.astype(np.float32, copy=False)

    def column(self, name: str, rows: Indices) -> np.ndarray:
        raise BadInput(
            f"labels='{name}' names a column of a store, and these {len(rows)} rows come from "
            "an array: give an array of labels, or a StoreSite"
        )

    def describe(self) -> dict[str, Any]:
        return {"rows": self.rows}


# Rows of activations that can be read in order.
Source = StoreSite | ArrayRows


def open_source(activations: torch.Tensor | np.ndarray | StoreSite) -> Source:
    """The source for the rows given by a user.

    Raises:
        BadInput: it is something else, or an array that is not a matrix of real numbers.
    """
    if isinstance(activations, StoreSite):
        return activations
    if not isinstance(activations, torch.Tensor | np.ndarray):
        raise BadInput(
            f"activations are a {type(activations).__name__}: "
            "give a torch tensor, a numpy array or a StoreSite"
        )
    if activations.ndim != 2:
        raise BadInput(
            f"activations have shape {tuple(activations.shape)}: "
            "give a matrix with one row a token, (rows, d_model)"
        )
    if isinstance(activations, torch.Tensor):
        real = not activations.is_complex()
    else:
        real = activations.dtype.kind in "fiub"
    if not real:
        raise BadInput(f"activations are of type {activations.dtype}: give real numbers")
    return ArrayRows(activations)


def read_blocks(source: Source) -> Iterator[Floats]:
    """All rows of a source, in order, in blocks of ``BLOCK_ROWS``; the last may be shorter."""
    held: list[Floats] = []
    missing = BLOCK_ROWS
    for part in source.parts():
        while len(part):
            held.append(part[:missing])
            part = part[missing:]
            missing -= len(held[-1])
            if missing == 0:
                yield np.concatenate(held)
                held, missing = [], BLOCK_ROWS
    if held:
        yield np.concatenate(held)


def ahead(blocks: Iterator[Floats]) -> Iterator[Floats]:
    """The same blocks, each read by another thread while the previous one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = pool.submit(next, blocks, None)
            yield block
