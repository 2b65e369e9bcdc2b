"""Values kept apart from the codes of a site: entries out of range, and massive rows.

One compressed file per shard and site; otherwise these values would set the scale of all others.
It is a safetensors file inside a Zstandard frame:

    entries        how many entries of each row are apart, uint16 or uint32 (rows,)
    dimension      of each entry, row after row, the same type (entries,)
    value          of each entry, float32 (entries,)
    massive        the massive rows, counted from the first of the shard, uint32 (m,)
    massive_value  their activations, float16 or, where that cannot hold one, float32 (m, d_in)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rkstore.store.formats.compression import COMPRESSIONS, content_size

LARGEST_FLOAT16 = 65504.0
ZSTD = COMPRESSIONS["zstd"]


@dataclass(frozen=True)
class Apart:
    """Sparse float32 values of some rows of a site, ``(rows, d_in)``.

    The entries of row ``i`` are ``starts[i]`` to ``starts[i + 1]``, with ``starts (rows + 1,)``.
    ``massive (m,)`` are the indices of whole rows, ascending.
    """

    starts: NDArray[np.int64]
    dimension: NDArray[np.int64]
    value: NDArray[np.float32]
    massive: NDArray[np.int64]
    massive_value: NDArray[Any]

    @classmethod
    def of(
        cls, x: NDArray[np.float32], entries: NDArray[np.int64], massive: NDArray[np.bool_]
    ) -> "Apart":
        """Entries of ``x (rows, d_in)`` by ascending flat indices, and whole rows."""
        rows = np.flatnonzero(massive)
        return cls.given((len(x), x.shape[1]), entries, x.reshape(-1)[entries], rows, x[rows])

    @classmethod
    def given(
        cls,
        shape: tuple[int, int],
        entries: NDArray[np.int64],
        values: NDArray[np.float32],
        rows: NDArray[np.int64],
        whole: NDArray[np.float32],
    ) -> "Apart":
        """Entries of a matrix of this shape by ascending flat indices, and whole rows."""
        row, dimension = np.divmod(entries, shape[1])
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))])
        return cls(starts, dimension, values, rows, _narrowed(whole))

    def with_whole(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> "Apart":
        """The same entries, and these whole rows."""
        return Apart(self.starts, self.dimension, self.value, rows, _narrowed(values))

    def __bool__(self) -> bool:
        """Whether anything is apart."""
        return bool(len(self.value) or len(self.massive))

    def part(self, first: int, stop: int) -> "Apart":
        """The part for rows ``first`` to ``stop``, counted from 0."""
        a, b = self.starts[first], self.starts[stop]
        at = slice(*np.searchsorted(self.massive, [first, stop]))
        return Apart(
            self.starts[first : stop + 1] - a,
            self.dimension[a:b],
            self.value[a:b],
            self.massive[at] - first,
            self.massive_value[at],
        )

    def put(self, x: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
        """Write the values into ``x``, which is contiguous.

        Args:
            rows: which of the rows each row of ``x`` is; all of them in order by default.
        """
        if rows is None:
            rows = np.arange(len(x))
        places, values = self.entries(rows, x.shape[1])
        x.reshape(-1)[places] = values
        places, values = self.whole(rows)
        x[places] = values

    def entries(
        self, rows: NDArray[np.int64], width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The single entries of some rows: flat indices in a matrix of these, and values."""
        begins = self.starts[rows]
        counts = self.starts[1:][rows]
        counts -= begins
        owner = np.arange(len(rows)).repeat(counts)
        # The first entry of a row, minus the entries of the rows before it.
        begins += counts
        begins -= counts.cumsum()
        entries = begins[owner]
        entries += np.arange(len(owner))
        owner *= width
        owner += self.dimension[entries]
        return owner, self.value[entries]

    def whole(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Those of some rows that are massive: their places among these, and values."""
        if not len(self.massive):
            return self.massive, self.massive_value
        place = np.minimum(self.massive.searchsorted(rows), len(self.massive) - 1)
        found = np.flatnonzero(self.massive[place] == rows)
        return found, self.massive_value[place[found]]

    def to_bytes(self) -> bytes:
        """The content of a file; the same values give the same bytes."""
        counts = np.diff(self.starts)
        narrow = np.uint16 if counts.max(initial=0) < 2**16 else np.uint32
        if self.dimension.max(initial=0) >= 2**16:
            narrow = np.uint32
        arrays = {
            "entries": counts.astype(narrow),
            "dimension": self.dimension.astype(narrow),
            "value": self.value,
            "massive": self.massive.astype(np.uint32),
            "massive_value": np.ascontiguousarray(self.massive_value),
        }
        return ZSTD.encode(np.frombuffer(save(arrays), np.uint8)).tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, rows: int, width: int) -> "Apart":
        """The inverse of :meth:`to_bytes`, for a shard of that many rows of a site of that width.

        Raises:
            ValueError: the bytes are not such a file.
        """
        size = content_size(raw)
        # The maximum: every value apart, both as an entry and in a massive row.
        if size is None or size > 16 * rows * (width + 1) + 2**16:
            raise ValueError("it is not a frame of a possible size")
        try:
            arrays = load(ZSTD.decode(raw, np.dtype(np.uint8), (size,)).tobytes())
            counts, dimension = arrays["entries"], arrays["dimension"]
            value, massive = arrays["value"], arrays["massive"].astype(np.int64)
            massive_value = arrays["massive_value"]
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        types = {counts.dtype, dimension.dtype, np.dtype(np.uint16), np.dtype(np.uint32)}
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        if (
            len(types) != 2
            or value.dtype != np.float32
            or massive_value.dtype not in (np.float16, np.float32)
            or counts.shape != (rows,)
            or not dimension.shape == value.shape == (starts[-1],)
            or massive_value.shape != (len(massive), width)
        ):
            raise ValueError("its arrays do not fit one another")
        if dimension.max(initial=0) >= width or (
            len(massive) and (massive[-1] >= rows or (np.diff(massive) <= 0).any())
        ):
            raise ValueError("it names rows or dimensions that do not exist")
        return cls(starts, dimension.astype(np.int64), value, massive, massive_value)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.starts.nbytes + 3 * self.dimension.nbytes // 2 + self.massive_value.nbytes


def _narrowed(whole: NDArray[np.float32]) -> NDArray[Any]:
    """Whole rows as float16, if it can hold them."""
    fits = np.abs(whole).max(initial=0.0) <= LARGEST_FLOAT16
    return whole.astype(np.float16) if fits else whole


def joined(parts: Sequence[Apart]) -> Apart:
    """The concatenation of consecutive parts."""
    rows = np.cumsum([0, *(len(part.starts) - 1 for part in parts)])
    counts = [np.diff(part.starts) for part in parts]
    return Apart(
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        np.concatenate([part.dimension for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.massive + row for part, row in zip(parts, rows[:-1], strict=True)]),
        np.concatenate([part.massive_value for part in parts]),
    )
