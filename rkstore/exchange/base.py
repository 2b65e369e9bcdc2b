"""What every exchange format does: open what others wrote, or write what others open."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.manifest import Site
from rkstore.settings import ImportSettings
from rkstore.store import Store

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Rows in files of another program: opened and checked, nothing of them in memory yet."""

    sites: tuple[Site, ...]
    rows: int
    read: Callable[[int, int], dict[str, Floats]]
    """First row and the row behind the last → float32 ``(rows, d_in)`` of every site."""
    files: dict[str, Path]
    """Every file that the rows and columns come from, by the name that goes on record."""
    dtype: str
    """What the numbers are in the files."""
    columns: dict[str, Callable[[int, int], np.ndarray]] = field(default_factory=dict)
    """The columns that the files have: rows → integers ``(rows,)``."""
    context_size: int | None = None
    """Rows in a block, if the files say so."""


class Importer(ABC):
    """Opens one format."""

    name: str

    @abstractmethod
    def open(self, path: Path, settings: ImportSettings) -> Source:
        """Open files without reading their rows.

        Raises:
            BadInput: they are not of this format, cut short, or of a shape or dtype that
                activations cannot have.
        """


class Exporter(ABC):
    """Writes one format."""

    name: str
    reserved: ClassVar[tuple[str, ...]] = ()
    """Names that a site cannot have in this format."""

    @abstractmethod
    def write(
        self,
        store: Store,
        hook_names: list[str],
        dtype: np.dtype,
        out: Path,
        advance: Callable[[int], object],
    ) -> None:
        """Write sites and columns to an empty directory, in bounded memory.

        Args:
            dtype: float32 or float16.
            advance: told the rows of each site as they are written.

        Raises:
            BadInput: a value does not fit the dtype.
        """


@dataclass(frozen=True)
class Matrix:
    """Rows of one array: ``(N, d_in)``, or the tokens of ``(blocks, context, d_in)``."""

    array: Any
    """NumPy, h5py or torch: sliced along its first axis only."""
    floats: Callable[[Any], Floats]
    """A slice of the array → float32."""

    @property
    def rows(self) -> int:
        return int(np.prod(self.array.shape[:-1]))

    @property
    def width(self) -> int:
        return int(self.array.shape[-1])

    @property
    def context_size(self) -> int | None:
        return int(self.array.shape[1]) if len(self.array.shape) == 3 else None

    def read(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop``, float32 ``(stop - start, d_in)``."""
        size = self.context_size or 1
        first = start // size
        blocks = self.floats(self.array[first : -(-stop // size)])
        skipped = start - first * size
        return blocks.reshape(-1, self.width)[skipped : skipped + stop - start]


def float32(x: Any) -> Floats:
    """Any floats as float32; what is too large becomes infinite, which no store takes."""
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float32, copy=False)


def check_floats(where: str, array: Any) -> None:
    """Raise BadInput unless an array of NumPy or h5py is rows of floats."""
    check_shape(where, array.shape)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise BadInput(f"{where} holds {array.dtype}: activations are float32, float16 or float64")


def check_shape(where: str, shape: Sequence[int]) -> None:
    """Raise BadInput unless a shape is that of rows, or of blocks of rows."""
    if len(shape) not in (2, 3) or not all(shape):
        raise BadInput(
            f"{where} has shape {tuple(shape)}: activations are (rows, d_in) or "
            "(blocks, context_size, d_in)"
        )


def check_tokens(where: str, array: Any, rows: int) -> None:
    """Raise BadInput unless an array of NumPy or h5py is one integer for each row."""
    if array.dtype.kind not in "iu":
        raise BadInput(f"{where} holds {array.dtype}: token ids are integers")
    if int(np.prod(array.shape)) != rows:
        raise BadInput(f"{where} has shape {array.shape} and the activations have {rows:,} rows")


def names_of(found: list[str], asked: tuple[str, ...]) -> list[str]:
    """The names asked for, in the order of the arrays found, or else their own.

    Raises:
        BadInput: fewer or more names than arrays.
    """
    if asked and len(asked) != len(found):
        raise BadInput(
            f"--hook-name is given {len(asked)} times for {len(found)} arrays: give one name "
            f"each, in the order {', '.join(found[:16])}"
        )
    return list(asked) or found


def of_matrices(
    matrices: dict[str, Matrix],
    files: dict[str, Path],
    dtype: str,
    columns: dict[str, Callable[[int, int], np.ndarray]] | None = None,
) -> Source:
    """A source of several arrays of the same rows.

    Raises:
        BadInput: they differ in rows or blocks.
    """
    first_name, first = next(iter(matrices.items()))
    for name, matrix in matrices.items():
        if (matrix.rows, matrix.context_size) != (first.rows, first.context_size):
            raise BadInput(
                f"{name} has shape {tuple(matrix.array.shape)} and {first_name} "
                f"{tuple(first.array.shape)}: arrays of one store have the same rows"
            )
    return Source(
        sites=tuple(Site(name, matrix.width) for name, matrix in matrices.items()),
        rows=first.rows,
        read=lambda start, stop: {n: m.read(start, stop) for n, m in matrices.items()},
        files=files,
        dtype=dtype,
        columns=columns or {},
        context_size=first.context_size,
    )


def narrowed(name: str, x: Floats, dtype: np.dtype, start: int) -> np.ndarray:
    """Values in the dtype of an export.

    Raises:
        BadInput: one is too large for it; names the site and the row.
    """
    with np.errstate(over="ignore"):
        values = x.astype(dtype, copy=False)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        raise BadInput(
            f"{name}, row {start + row}: {np.abs(x[row]).max():g} is too large for {dtype}: "
            "use --dtype float32"
        )
    return values


def known_tokens(store: Store) -> bool:
    """Whether every row of a store has a token id; an import may have none."""
    return all(store.column("token_id", *span).min() >= 0 for span in spans_of(store))


def rows_of(store: Store) -> int:
    """Rows that can be read: those of the part, if the directory holds a part of a store."""
    return store.stop_row - store.first_row


def spans_of(store: Store) -> list[tuple[int, int]]:
    """First row, and the row behind the last, of every chunk that can be read."""
    return [store.rows_of_chunk(chunk) for chunk in store.chunk_range]
