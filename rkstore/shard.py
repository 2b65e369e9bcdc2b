"""Rows → encoded chunks: what becomes of activations between the model and the files.

Rows come a batch at a time, and each chunk is encoded in another thread as soon as its rows
are there: the model goes on meanwhile, and no more than two batches are held as floats.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from rkstore.codecs import Codec, Encoded, codec_named
from rkstore.errors import BadInput
from rkstore.formats import format_named
from rkstore.manifest import COLUMNS, Manifest
from rkstore.statistics import BLOCK_ROWS, Statistics


@dataclass(frozen=True)
class EncodedChunk:
    """One chunk of one site, as it will be stored, and what was learned encoding it."""

    data: bytes
    side: dict[str, np.ndarray]
    squared_error: float
    """Σ (stored value - value)²."""
    statistics: Statistics


@dataclass
class _Rows:
    """Rows of one site that do not fill a chunk yet, and the chunks on their way."""

    waiting: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    """Rows that came, all in all."""
    chunks: list[Future[EncodedChunk]] = field(default_factory=list)


class ShardEncoder:
    """Takes the rows of one shard in order, for all sites at once."""

    def __init__(self, manifest: Manifest, shard: int, pool: Executor) -> None:
        self.shard = shard
        self._manifest, self._pool = manifest, pool
        self._codec, self._format = codec_named(manifest.codec), format_named(manifest.format)
        self._first, last = manifest.rows_of_shard(shard)
        self._rows = last - self._first
        self._sites = {name: _Rows() for name in manifest.hook_names}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        self._count = 0
        self._before: list[Future[EncodedChunk]] = []

    def add(self, values: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> None:
        """Take the next rows of the shard, which must not change any more.

        Args:
            values: for each site, float32 ``(rows, d_in)``.
            columns: for each column, integers ``(rows,)``.

        Raises:
            BadInput: a wrong width or number of rows; or a value, here or in rows that came
                before, that is not finite or that the codec cannot hold; names site and row.
        """
        rows = self._check(values, columns)
        for name in COLUMNS:
            self._columns[name].append(columns[name].astype(COLUMNS[name]))
        sent = [future for name in self._sites for future in self._take(name, values[name])]
        self._count += rows
        # Not before the next batch is on its way: the threads always have something to do.
        self.settle()
        self._before = sent

    def settle(self) -> None:
        """Wait until all that was given is encoded; raises what :meth:`add` does."""
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

    def _check(self, values: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> int:
        missing = [n for n in self._sites if n not in values]
        missing += [n for n in COLUMNS if n not in columns]
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
        for name in COLUMNS:
            if columns[name].shape != (rows,):
                raise BadInput(f"{name} has shape {columns[name].shape}, not ({rows},)")
        return rows

    def _take(self, name: str, x: np.ndarray) -> Sequence[Future[EncodedChunk]]:
        """Send the chunks off that these rows complete."""
        site, size = self._sites[name], self._manifest.chunk_rows
        sent = []
        while len(x):
            room = min(size - site.count % size, self._rows - site.count)
            site.waiting.append(x[:room])
            site.count += len(x[:room])
            if len(x) >= room:
                first = self._first + (site.count - 1) // size * size
                sent.append(self._pool.submit(self._encode, name, site.waiting, first))
                site.waiting = []
            x = x[room:]
        site.chunks += sent
        return sent

    def _encode(self, name: str, parts: list[np.ndarray], first: int) -> EncodedChunk:
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        finite = np.isfinite(x)
        if not finite.all():
            row, dimension = (int(i) for i in np.argwhere(~finite)[0])
            raise BadInput(
                f"{name}: row {first + row} has {x[row, dimension]} in dimension {dimension}: "
                "activations must be finite; try --dtype float32"
            )
        try:
            encoded = self._codec.encode(x)
        except BadInput as refused:
            row = first + int(np.abs(x).max(axis=1).argmax())
            raise BadInput(f"{name}, row {row}: {refused.sentence}") from None
        spec = self._manifest.specs(name)[""]
        return EncodedChunk(
            self._format.encode_chunk(spec, encoded.values, self._rows),
            encoded.side,
            _squared_error(self._codec, encoded, x),
            Statistics.of(x),
        )


def _squared_error(codec: Codec, encoded: Encoded, x: np.ndarray) -> float:
    """Σ (stored value - value)², a few rows at a time: those stay in the processor's cache."""
    total = 0.0
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        error = codec.decode(Encoded(encoded.values[rows], encoded.side)) - x[rows]
        total += float(np.einsum("nd,nd->", error, error, dtype=np.float64))
    return total


def statistics_of(chunks: Sequence[EncodedChunk]) -> Statistics:
    """Statistics of all rows of the chunks, merged in their order."""
    return reduce(Statistics.merge, (chunk.statistics for chunk in chunks))
