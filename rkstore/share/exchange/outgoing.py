"""The content of an export: rows in its dtype, and facts that arrays cannot hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rkstore.errors import BadInput
from rkstore.share.exchange.facts import Facts
from rkstore.store.manifest import COLUMNS
from rkstore.store.massive import Usual
from rkstore.store.store import Store
from rkstore.store.writing.encoder import FIT_ROWS


@dataclass(frozen=True)
class Array:
    """An array to write, whose rows are read on demand."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: Iterator[np.ndarray]
    """Its rows in order, some at a time."""


class Outgoing:
    """The arrays of an export, and the error of its dtype."""

    def __init__(self, store: Store, hook_names: list[str], dtype: np.dtype) -> None:
        """Choose sites, and the dtype of their numbers, float32 or float16."""
        self.store, self.hook_names, self.dtype = store, hook_names, dtype
        self.rows = store.stop_row - store.first_row
        """Rows that can be read: those of the part, if the store is a part of one."""
        self.advance: Callable[[int], object] = lambda _: None
        """Called with the number of rows of each site that were read."""
        self._squared_error = dict.fromkeys(hook_names, 0.0)
        self._usual: dict[tuple[str, int], Usual] = {}
        """For the current shard: by site, and first row."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First row, and one past the last, of every chunk that can be read."""
        return [self.store.rows_of_chunk(chunk) for chunk in self.store.chunk_range]

    def site(self, name: str) -> Array:
        """One of the sites, in chunks. Read each once: errors are added up."""
        chunks = (self.values(name, *span) for span in self.spans)
        return Array(name, (self.rows, self.width(name)), self.dtype, chunks)

    def column(self, name: str) -> Array:
        """One of the columns, in chunks."""
        chunks = (self.store.column(name, *span) for span in self.spans)
        return Array(name, (self.rows,), COLUMNS[name], chunks)

    def width(self, hook_name: str) -> int:
        return self.store.manifest.width(hook_name)

    def values(self, hook_name: str, first: int, last: int) -> np.ndarray:
        """Rows of a site in the dtype of the export. Read each row once: errors are added up.

        Raises:
            BadInput: a value is too large for the dtype; names the site and the row.
        """
        x = self.store.read(hook_name, first, last)
        with np.errstate(over="ignore"):
            values = x.astype(self.dtype, copy=False)
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row = int(finite.argmin())
            raise BadInput(
                f"{hook_name}, row {first + row}: {np.abs(x[row]).max():g} is too large for "
                f"{self.dtype}: use --dtype float32"
            )
        if values.dtype != x.dtype:
            error = (values.astype(np.float32) - x)[~self._massive(hook_name, x, first)]
            self._squared_error[hook_name] += float(np.square(error, dtype=np.float64).sum())
        self.advance(last - first)
        return values

    def columns(self) -> list[str]:
        """The known columns: an import may have no token ids."""
        known = all(self.store.column("token_id", *span).min() >= 0 for span in self.spans)
        return [name for name in COLUMNS if known or name != "token_id"]

    def facts(self) -> Facts:
        """Facts that the arrays cannot hold. Complete when all values were read."""
        manifest = self.store.manifest
        source = dict(manifest.source)
        if self.rows != manifest.rows and isinstance(source.get("tokens"), dict):
            # The digest covers all tokens.
            source["tokens"] = {k: v for k, v in source["tokens"].items() if k != "sha256"}
        errors = {name: self._error(name) for name in self.hook_names}
        return Facts(
            manifest.fingerprint, self.rows, manifest.context_size, manifest.codec, errors, source
        )

    def _massive(self, hook_name: str, x: np.ndarray, first: int) -> np.ndarray:
        """Which rows are massive, ``(rows,)``: decided per shard, as in writing."""
        begin, end = self.store.manifest.rows_of_shard(first // self.store.manifest.shard_rows)
        if (hook_name, begin) not in self._usual:
            rows = self.store.read(hook_name, begin, min(begin + FIT_ROWS, end))
            self._usual = {(hook_name, begin): Usual.of(rows)}
        return self._usual[hook_name, begin].massive(x)

    def _error(self, hook_name: str) -> float:
        variation = float(self.store.ordinary_statistics(hook_name).m2.sum())
        added = self._squared_error[hook_name] / variation if variation > 0 else 0.0
        return self.store.codec_fvu(hook_name) + added
