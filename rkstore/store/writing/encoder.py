"""Rows → encoded chunks.

Rows come a batch at a time, and each chunk is encoded in another thread as soon as its rows
are there: the model runs meanwhile, and no more than two batches are held as floats.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from rkstore.errors import BadInput
from rkstore.store.apart import Apart
from rkstore.store.codecs import Codec, Encoded
from rkstore.store.formats import format_named
from rkstore.store.manifest import Manifest
from rkstore.store.massive import Usual, squared_lengths
from rkstore.store.statistics import ShardStatistics
from rkstore.store.writing.device import CodedChunk, coded, computed

if TYPE_CHECKING:
    from torch import Tensor

# Rows in memory, or on an accelerator, where they are encoded.
Floats = Union[np.ndarray, "Tensor"]

# Rows that a shard's massive threshold and codec are fitted to: enough for a dimension's deviation
# to a few percent, few enough to be held as floats.
FIT_ROWS = 1024

# Rows at a time whose error is measured: they fit in the processor's cache.
BLOCK_ROWS = 64


@dataclass(frozen=True)
class EncodedChunk:
    """One encoded chunk of one site, with its statistics and errors."""

    data: bytes | memoryview
    side: dict[str, np.ndarray]
    apart: Apart | None
    squared_error: float
    """Σ (stored value - value)² over the rows that are not massive."""
    massive_error: float
    """The same over the massive rows."""
    statistics: ShardStatistics


@dataclass(frozen=True)
class _Fit:
    """What is fitted to the first rows of a shard, for one site."""

    usual: Usual
    side: dict[str, np.ndarray]


@dataclass
class _Rows:
    """Rows of one site waiting to be encoded, and the chunks being encoded."""

    waiting: list[Floats] = field(default_factory=list)
    count: int = 0
    """Rows received so far."""
    sent: int = 0
    """Rows in chunks that are encoded or being encoded."""
    fit: Future[_Fit] | None = None
    chunks: list[Future[EncodedChunk]] = field(default_factory=list)

    def cut(self, rows: int) -> list[Floats]:
        """Take the first of the waiting rows away, in pieces."""
        pieces = []
        self.sent += rows
        while rows:
            piece = self.waiting[0][:rows]
            rest = self.waiting[0][len(piece) :]
            self.waiting[:1] = [rest] if len(rest) else []
            pieces.append(piece)
            rows -= len(piece)
        return pieces


class ShardEncoder:
    """Takes the rows of one shard in order, for all sites at once."""

    def __init__(self, manifest: Manifest, shard: int, pool: Executor) -> None:
        self.shard = shard
        self._manifest, self._pool = manifest, pool
        self._codec, self._format = manifest.stored_codec, format_named(manifest.format)
        self._first, last = manifest.rows_of_shard(shard)
        self._rows = last - self._first
        self._sites = {name: _Rows() for name in manifest.hook_names}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in manifest.columns}
        self._count = 0
        self._before: list[Future[EncodedChunk]] = []

    def add(self, values: Mapping[str, Floats], columns: dict[str, np.ndarray]) -> None:
        """Take the next rows of the shard, which must not change afterwards.

        Args:
            values: for each site, float32 ``(rows, d_in)``; or tensors of any float type, which
                are encoded where they are if the codec can do that.
            columns: for each column, integers ``(rows,)``.

        Raises:
            BadInput: a wrong width or number of rows; or a value, here or in rows that came
                before, that is not finite or that the codec cannot hold; names site and row.
        """
        rows = self._check(values, columns)
        for name, dtype in self._manifest.columns.items():
            self._columns[name].append(columns[name].astype(dtype))
        # All sites first, so that no thread waits for another's fit.
        for name, site in self._sites.items():
            x = values[name]
            self._take(site, x if self._codec.encodes_tensors else _here(x))
        sent = [future for name in self._sites for future in self._send(name)]
        self._count += rows
        # Only after the next batch was submitted: the threads always have something to do.
        self.settle()
        self._before = sent

    def settle(self) -> None:
        """Wait until all added rows are encoded; raises what :meth:`add` does."""
        for future in self._before:
            future.result()
        self._before = []

    def finish(self) -> tuple[dict[str, list[EncodedChunk]], dict[str, np.ndarray]]:
        """The chunks of every site, in order, and the columns.

        Raises:
            BadInput: rows are missing; or see :meth:`add`.
        """
        if self._count != self._rows:
            raise BadInput(f"shard {self.shard} has {self._rows} rows, {self._count} were given")
        chunks = {
            name: [future.result() for future in site.chunks] for name, site in self._sites.items()
        }
        return chunks, {name: np.concatenate(parts) for name, parts in self._columns.items()}

    def _check(self, values: Mapping[str, Floats], columns: dict[str, np.ndarray]) -> int:
        missing = [n for n in self._sites if n not in values]
        missing += [n for n in self._columns if n not in columns]
        if missing:
            raise BadInput(f"the shard lacks {', '.join(missing)}")
        rows = len(columns["position"])
        first = self._first + self._count
        if rows > self._rows - self._count:
            raise BadInput(f"shard {self.shard} has {self._rows} rows, more were given")
        for name in self._sites:
            expected = (rows, self._manifest.width(name))
            if values[name].shape != expected:
                raise BadInput(
                    f"{name}: got activations of shape {values[name].shape}, expected {expected} "
                    f"({expected[1]} wide, rows {first}:{first + rows})"
                )
        for name in self._columns:
            if columns[name].shape != (rows,):
                raise BadInput(f"{name} has shape {columns[name].shape}, not ({rows},)")
        return rows

    def _take(self, site: _Rows, x: Floats) -> None:
        """Keep rows until their chunk is complete; fit to the first ones."""
        site.waiting.append(x)
        site.count += len(x)
        if site.fit is None and site.count >= min(FIT_ROWS, self._rows):
            first = site.waiting[0][:FIT_ROWS]
            if len(first) < min(FIT_ROWS, site.count):
                first = np.concatenate([_here(part[:FIT_ROWS]) for part in site.waiting])[:FIT_ROWS]
            site.fit = self._pool.submit(self._learn, first)

    def _send(self, name: str) -> Sequence[Future[EncodedChunk]]:
        """Submit the complete chunks for encoding."""
        site, size = self._sites[name], self._manifest.chunk_rows
        sent: list[Future[EncodedChunk]] = []
        if site.fit is None:
            return sent
        if site.waiting and not isinstance(site.waiting[0], np.ndarray):
            sent += self._send_coded(name, site, site.fit)
        while (rows := min(size, self._rows - site.sent)) and site.sent + rows <= site.count:
            first_row = self._first + site.sent
            sent.append(self._pool.submit(self._encode, name, site.cut(rows), first_row, site.fit))
        site.chunks += sent
        return sent

    def _send_coded(
        self, name: str, site: _Rows, fit: Future[_Fit]
    ) -> Iterator[Future[EncodedChunk]]:
        """The same of rows on an accelerator: all in one go, which takes hardly longer than one."""
        size, first = self._manifest.chunk_rows, self._first + site.sent
        stop = self._rows if site.count == self._rows else site.count // size * size
        rows = stop - site.sent
        if rows:
            parts: list[Any] = site.cut(rows)
            found = self._pool.submit(self._code, parts, computed(parts[0]), fit)
            for i in range(-(-rows // size)):
                yield self._pool.submit(self._pack, name, found, i, first + i * size, fit)

    def _code(
        self, parts: list[Any], ready: Any, learned: Future[_Fit]
    ) -> list[CodedChunk] | np.ndarray:
        """Rows of an accelerator as codes; as floats if they cannot be or are to be refused."""
        fit, size = learned.result(), self._manifest.chunk_rows
        found = coded(parts, ready, self._codec, fit.usual, fit.side, size)
        return np.concatenate([_here(part) for part in parts]) if found is None else found

    def _pack(
        self,
        name: str,
        found: Future[list[CodedChunk] | np.ndarray],
        i: int,
        first: int,
        fit: Future[_Fit],
    ) -> EncodedChunk:
        """One of the chunks that came from an accelerator."""
        rows, size = found.result(), self._manifest.chunk_rows
        if isinstance(rows, np.ndarray):
            return self._encode(name, [rows[i * size : (i + 1) * size]], first, fit)
        return self._chunk(name, *rows[i])

    def _learn(self, x: Floats) -> _Fit:
        x = _here(x)
        # A row that is not finite is refused when its chunk is encoded.
        if not np.isfinite(squared_lengths(x)).all():
            finite = np.isfinite(x).all(axis=1)
            x = x[finite] if finite.any() else np.zeros((1, x.shape[1]), np.float32)
        usual = Usual.of(x)
        massive = usual.massive(x)
        return _Fit(usual, self._codec.fit(x[~massive] if massive.any() else x))

    def _encode(
        self, name: str, parts: list[Any], first: int, learned: Future[_Fit]
    ) -> EncodedChunk:
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        squares = squared_lengths(x)
        if not np.isfinite(squares).all():
            _check_finite(name, x, first)
        try:
            fit = learned.result()
            massive = fit.usual.massive(x, squares)
            encoded = self._codec.encode(x, fit.side, massive)
        except BadInput as refused:
            row = first + int(np.abs(x).max(axis=1).argmax())
            raise BadInput(f"{name}, row {row}: {refused.sentence}") from None
        errors = _squared_errors(self._codec, encoded, x)
        parted = float(errors[~massive].sum()), float(errors[massive].sum())
        return self._chunk(name, encoded, parted, ShardStatistics.of(x, massive))

    def _chunk(
        self, name: str, encoded: Encoded, errors: tuple[float, float], found: ShardStatistics
    ) -> EncodedChunk:
        data = self._format.encode_chunk(self._manifest.specs(name)[""], encoded.values, self._rows)
        return EncodedChunk(data, encoded.side, encoded.apart, *errors, found)


def _here(x: Floats) -> np.ndarray:
    """Rows as float32 in memory."""
    # Converted there: here torch would take all cores for each of many threads.
    return x if isinstance(x, np.ndarray) else x.float().cpu().numpy()


def _check_finite(name: str, x: np.ndarray, first: int) -> None:
    beyond = np.argwhere(~np.isfinite(x))
    if len(beyond):
        row, dimension = (int(i) for i in beyond[0])
        raise BadInput(
            f"{name}: row {first + row} has {x[row, dimension]} in dimension {dimension}: "
            "activations must be finite; try --dtype float32"
        )


def _squared_errors(codec: Codec, encoded: Encoded, x: np.ndarray) -> np.ndarray:
    """Σ (stored value - value)² of each row, a few at a time to fit in the cache."""
    total, held = np.empty(len(x)), np.empty((BLOCK_ROWS, x.shape[1]), np.float32)
    for start in range(0, len(x), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(x))
        decoded = codec.decode(encoded.part(start, stop), held[: stop - start])
        error = np.subtract(decoded, x[start:stop], out=held[: stop - start])
        np.einsum("nd,nd->n", error, error, dtype=np.float64, out=total[start:stop])
    return total


def statistics_of(chunks: Sequence[EncodedChunk]) -> ShardStatistics:
    """Statistics of all rows of the chunks, merged in their order."""
    return reduce(ShardStatistics.merge, (chunk.statistics for chunk in chunks))
