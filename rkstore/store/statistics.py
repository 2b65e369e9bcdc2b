"""Exact streaming statistics of rows, merged without loss."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Doubles = NDArray[np.float64]

FIELDS = ("count", "mean", "m2", "min", "max", "positive")

# Rows at a time: a block fits in the cache, and a byte can count its rows.
BLOCK_ROWS = 32


@dataclass(frozen=True)
class Statistics:
    """Per-dimension statistics of ``count`` rows; every array is float64 of shape ``(d_in,)``.

    ``m2`` is the sum of squared deviations from the mean, so the variance is
    ``m2 / count``. ``positive`` counts the rows whose value is above zero.

    Merging follows Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise
    algorithm for computing sample variances": no difference of large sums is taken.
    """

    count: int
    mean: Doubles
    m2: Doubles
    min: Doubles
    max: Doubles
    positive: Doubles

    @classmethod
    def of(cls, x: np.ndarray) -> "Statistics":
        """Statistics of at least one row, ``x`` of shape ``(rows, d_in)``.

        In one pass, in blocks of rows that fit in the processor's cache. Deviations are from the
        first row, so that a common offset costs no precision and a constant dimension has a
        variance of exactly zero.
        """
        count, shift = len(x), x[0].astype(np.float64)
        total, squares = np.zeros_like(shift), np.zeros_like(shift)
        positive = np.zeros(shift.shape, np.int64)
        held = np.empty((min(BLOCK_ROWS, count), len(shift)))
        above = np.empty(held.shape, bool)
        blocks = -(-count // BLOCK_ROWS)
        least, most = np.empty((2, blocks, len(shift)), x.dtype)
        for i, start in enumerate(range(0, count, BLOCK_ROWS)):
            block = x[start : start + BLOCK_ROWS]
            deviation, over = held[: len(block)], above[: len(block)]
            # Faster than subtracting arrays of two types.
            np.copyto(deviation, block)
            deviation -= shift
            total += np.add.reduce(deviation, axis=0)
            squares += np.einsum("nd,nd->d", deviation, deviation)
            positive += np.add.reduce(np.greater(block, 0, out=over), axis=0, dtype=np.uint8)
            np.minimum.reduce(block, axis=0, out=least[i])
            np.maximum.reduce(block, axis=0, out=most[i])
        return cls(
            count=count,
            mean=shift + total / count,
            m2=np.maximum(squares - total * (total / count), 0),
            min=least.min(axis=0).astype(np.float64),
            max=most.max(axis=0).astype(np.float64),
            positive=positive.astype(np.float64),
        )

    def merge(self, other: "Statistics") -> "Statistics":
        """Statistics of both sets of rows together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Statistics(
            count=count,
            mean=self.mean + delta * (other.count / count),
            m2=self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
            min=np.minimum(self.min, other.min),
            max=np.maximum(self.max, other.max),
            positive=self.positive + other.positive,
        )

    @property
    def variance(self) -> Doubles:
        """Population variance of each dimension, ``(d_in,)``."""
        return self.m2 / self.count

    @property
    def mean_square_norm(self) -> float:
        """Mean over rows of ``‖x‖²``."""
        return float((self.variance + self.mean**2).sum())

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        return {"count": np.array([self.count], np.int64)} | {
            name: getattr(self, name) for name in FIELDS[1:]
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Statistics":
        """The inverse of :meth:`as_arrays`.

        Raises:
            KeyError, ValueError: they are not what :meth:`as_arrays` gives.
        """
        count, *others = (arrays[name] for name in FIELDS)
        if count.dtype != np.int64 or count.shape != (1,) or count[0] < 1:
            raise ValueError("count is not one positive number")
        if {(array.dtype.str, array.shape) for array in others} != {("<f8", (others[0].size,))}:
            raise ValueError("its vectors are not float64 of one length")
        return cls(
            count=int(count[0]),
            **{name: arrays[name] for name in FIELDS[1:]},
        )


@dataclass(frozen=True)
class ShardStatistics:
    """Statistics of all rows, and of those that are not massive (:mod:`rkstore.store.massive`)."""

    all: Statistics
    ordinary: Statistics | None
    """None if every row is massive."""

    @classmethod
    def of(cls, x: np.ndarray, massive: NDArray[np.bool_]) -> "ShardStatistics":
        """Of at least one row, ``x (rows, d_in)``; ``massive (rows,)`` says which are."""
        if not massive.any():
            return cls.joined(Statistics.of(x), x[:0])
        return cls.joined(None if massive.all() else Statistics.of(x[~massive]), x[massive])

    @classmethod
    def joined(cls, ordinary: Statistics | None, massive: np.ndarray) -> "ShardStatistics":
        """Of rows that are not massive, if there are any, and of those that are, ``(m, d_in)``."""
        if not len(massive):
            assert ordinary is not None
            return cls(ordinary, ordinary)
        apart = Statistics.of(massive)
        return cls(apart, None) if ordinary is None else cls(ordinary.merge(apart), ordinary)

    @property
    def massive(self) -> int:
        """How many of the rows are massive."""
        return self.all.count - (self.ordinary.count if self.ordinary else 0)

    @property
    def massive_square(self) -> float:
        """Σ ‖x‖² of the massive rows."""
        parts = (self.all, self.ordinary)
        total, ordinary = (p.mean_square_norm * p.count if p else 0.0 for p in parts)
        return total - ordinary

    def merge(self, other: "ShardStatistics") -> "ShardStatistics":
        """Statistics of both sets of rows together."""
        merged = self.all.merge(other.all)
        if self.ordinary is None or other.ordinary is None:
            ordinary = self.ordinary or other.ordinary
        elif self.ordinary is self.all and other.ordinary is other.all:  # no row is massive
            ordinary = merged
        else:
            ordinary = self.ordinary.merge(other.ordinary)
        return ShardStatistics(merged, ordinary)

    def to_bytes(self) -> bytes:
        """The content of a file; ordinary rows have their own arrays if some are massive."""
        arrays = self.all.as_arrays()
        if self.massive and self.ordinary:
            arrays |= {f"ordinary.{k}": v for k, v in self.ordinary.as_arrays().items()}
        elif self.massive:
            arrays["ordinary.count"] = np.zeros(1, np.int64)
        return save(arrays)

    @classmethod
    def from_bytes(cls, raw: bytes, rows: int, width: int) -> "ShardStatistics":
        """The inverse of :meth:`to_bytes`, for a shard of that many rows of a site of that width.

        A file of schema 1 counts no row as massive.

        Raises:
            ValueError: the bytes are not such a file.
        """
        try:
            arrays = load(raw)
            found = Statistics.from_arrays(arrays)
            own = {
                k.removeprefix("ordinary."): v for k, v in arrays.items() if k[:9] == "ordinary."
            }
            ordinary = Statistics.from_arrays(own) if own.keys() - {"count"} else None
        except (SafetensorError, KeyError, IndexError, TypeError) as error:
            raise ValueError(str(error)) from None
        if (found.count, found.mean.shape) != (rows, (width,)):
            raise ValueError("they are of other rows")
        if not own:
            return cls(found, found)
        if ordinary and (ordinary.count >= rows or ordinary.mean.shape != (width,)):
            raise ValueError("its ordinary rows are not some of all")
        return cls(found, ordinary)
