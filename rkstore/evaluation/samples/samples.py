"""Samples of every latent: the rows at which it fires, how strongly, and what is around them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, one_line
from rkstore.store.files import directory_aside, named

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SAMPLES, LATENTS, FACTS = "samples.parquet", "latents.parquet", "collection_summary.json"

Beside = Callable[[slice], dict[str, Any]]
"""Some of the samples → further Arrow columns of these."""

# Raised when the files change in a way that an older program would read wrongly.
FORMAT = 1

# Samples written at once, with their tokens.
GROUP_ROWS = 65_536


@dataclass(frozen=True)
class Sample:
    """One row at which a latent fires."""

    band: int
    """0 among the strongest, else the band of activation, from 1, the highest."""
    row: int
    value: float
    around: Floats
    """The latent's activation at the tokens around, ``(before + 1 + after,)``."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What makes each latent of a dictionary fire, on some rows of a store.

    A latent fires where the magnitude of its code is above the threshold. With a code per site its
    activation is the one of the largest magnitude.
    """

    hook_name: str
    """The site that is read; several are joined by commas."""
    fingerprint: str
    """Of the store."""
    rows: int
    """Rows that were looked at: those left out are not among them."""
    before: int
    after: int
    """Tokens around a sample, on either side."""
    bands: int
    """Bands of equal width, by which the magnitudes from 0 to the largest are divided."""
    latent: NDArray[np.int32]
    """Of each sample, ``(n,)``: ordered by latent, then band, then falling magnitude, then row."""
    band: NDArray[np.int8]
    """0: among the strongest; from 1 on, drawn at random from that band, the highest being 1."""
    row: Ints
    """The store's row of the token at which it fires."""
    value: Floats
    """The activation there."""
    around: Floats
    """The latent's activation at the tokens around, ``(n, before + 1 + after)``: 0 at rows that
    were left out, and outside of the block."""
    starts: Ints
    """The samples of latent ``i`` are ``starts[i]:starts[i + 1]``, ``(d_sae + 1,)``."""
    fired: Ints
    """Rows at which each latent fires, ``(d_sae,)``."""
    blocks: Ints
    """Blocks of the text in which it fires, ``(d_sae,)``."""
    largest: Floats
    """The largest magnitude of its activation, ``(d_sae,)``; 0 if it never fires."""
    mean: Floats
    deviation: Floats
    """Mean and standard deviation of the magnitude where it fires, ``(d_sae,)``."""
    histogram: Ints
    """Rows by magnitude, ``(d_sae, bins)``: bins of equal width from 0 to ``largest``."""
    windows: Ints
    """Rows at which it fires in each of some equal parts of the rows, ``(d_sae, windows)``."""
    window_rows: Ints
    """Rows of each of these parts, ``(windows,)``; a latent that fires in one of them alone tells
    of that text rather than of the model."""

    @property
    def d_sae(self) -> int:
        return len(self.fired)

    @property
    def density(self) -> Floats:
        """The fraction of the rows at which each latent fires, ``(d_sae,)``."""
        return (self.fired / max(1, self.rows)).astype(np.float32)

    def edges(self, latent: int) -> Floats:
        """The edges of a latent's histogram, ``(bins + 1,)``."""
        bins = self.histogram.shape[1]
        return np.linspace(0, self.largest[latent], bins + 1, dtype=np.float32)

    def edges_of_band(self, latent: int, band: int) -> tuple[float, float]:
        """The magnitudes from which, and up to which, a band from 1 on reaches."""
        top = float(self.largest[latent])
        return top * (self.bands - band) / self.bands, top * (self.bands - band + 1) / self.bands

    @property
    def of_bands(self) -> Ints:
        """Rows at which each latent fires in each band, the highest first, ``(d_sae, bands)``."""
        if not self.bands:
            return np.zeros((self.d_sae, 0), np.int64)
        rising: Ints = self.histogram.reshape(self.d_sae, self.bands, -1).sum(axis=2)
        return rising[:, ::-1]

    def of(self, latent: int) -> list[Sample]:
        """The samples of one latent: the strongest, then those of each band.

        Raises:
            BadInput: there is no such latent.
        """
        self.check(latent)
        some = range(int(self.starts[latent]), int(self.starts[latent + 1]))
        return [
            Sample(int(self.band[i]), int(self.row[i]), float(self.value[i]), self.around[i])
            for i in some
        ]

    def check(self, latent: int) -> None:
        """Raise BadInput unless there is such a latent."""
        if not 0 <= latent < self.d_sae:
            raise BadInput(
                f"there is no latent {latent}: the dictionary has {self.d_sae:,}, from 0 to "
                f"{self.d_sae - 1}"
            )

    def save(self, path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write a new directory: two Parquet files and one of JSON; equal samples, equal bytes.

        Args:
            facts: anything else about them, for JSON.

        Raises:
            BadInput: there is something at that path.
        """
        out = named(path)
        check_new(out)
        with directory_aside(out, replaces=out.exists()) as at:
            self.write(at, facts)

    def write(
        self, at: Path, facts: Mapping[str, Any] | None = None, beside: Beside | None = None
    ) -> None:
        """Write the same files to a directory.

        Args:
            beside: more columns of the samples.
        """
        import pyarrow as pa
        from pyarrow import parquet

        columns = {name: getattr(self, name) for name in OF_LATENT}
        table = pa.table({name: _column(pa, values) for name, values in columns.items()})
        parquet.write_table(table, at / LATENTS, compression="zstd")

        def part(some: slice) -> Any:
            own = {name: _column(pa, getattr(self, name)[some]) for name in OF_SAMPLE}
            return pa.table(own | (beside(some) if beside else {}))

        first = part(slice(0, GROUP_ROWS))
        with parquet.ParquetWriter(at / SAMPLES, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for start in range(GROUP_ROWS, len(self.row), GROUP_ROWS):
                writer.write_table(part(slice(start, start + GROUP_ROWS)))
        written = {"format": FORMAT} | {name: getattr(self, name) for name in FACTS_OF}
        written |= {"d_sae": self.d_sae, "dead": int((self.fired == 0).sum())}
        written |= {"samples": len(self.row), "window_rows": self.window_rows.tolist()}
        text = json.dumps(written | dict(facts or {}), indent=2, allow_nan=False) + "\n"
        (at / FACTS).write_text(text, "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Samples":
        """Read what :meth:`save` wrote.

        Raises:
            BadInput: it is not there, is damaged, or a newer version wrote it.
        """
        from pyarrow import ArrowException, parquet

        at = named(path)
        if not (at / FACTS).is_file():
            raise BadInput(f"{at} holds no samples ({FACTS}): make them with 'rkstore samples'")
        try:
            facts = json.loads((at / FACTS).read_text("utf-8"))
            if facts["format"] != FORMAT:
                raise BadInput(
                    f"the samples in {at} are of format {facts['format']}, and this version reads "
                    f"{FORMAT}: make them again"
                )
            found = {name: facts[name] for name in FACTS_OF}
            for file, names in ((SAMPLES, OF_SAMPLE), (LATENTS, OF_LATENT)):
                table = parquet.read_table(at / file, columns=list(names))
                found |= {name: _array(table.column(name)) for name in names}
            window_rows = np.array(facts["window_rows"], np.int64)
            starts = starts_of(found["latent"], len(found["fired"]))
            return cls(**found, starts=starts, window_rows=window_rows)
        except BadInput:
            raise
        except (OSError, ValueError, KeyError, TypeError, ArrowException) as error:
            raise BadInput(
                f"cannot read the samples in {at} ({one_line(error)}): make them again"
            ) from None


OF_SAMPLE = ("latent", "band", "row", "value", "around")
OF_LATENT = ("fired", "blocks", "largest", "mean", "deviation", "histogram", "windows")
FACTS_OF = tuple(field.name for field in fields(Samples) if field.type in (int, str))


def starts_of(latent: NDArray[np.integer], d_sae: int) -> Ints:
    """Where the samples of each latent start, ``(d_sae + 1,)``, and their number."""
    return np.searchsorted(latent, np.arange(d_sae + 1)).astype(np.int64)


def check_new(out: Path) -> None:
    """Raise BadInput unless nothing is at that path, or an empty directory."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"there is something at {out} already: remove it, or choose another --out")


def _column(pa: Any, values: NDArray[Any]) -> Any:
    """An array ``(n,)`` or ``(n, m)`` for Arrow."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _array(column: Any) -> NDArray[Any]:
    """The inverse of :func:`_column`."""
    whole = column.combine_chunks()
    if not hasattr(whole.type, "list_size"):
        values: NDArray[Any] = whole.to_numpy(zero_copy_only=False)
        return values
    flat: NDArray[Any] = whole.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, whole.type.list_size)
