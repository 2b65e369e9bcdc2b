"""What every exchange format does: open what others wrote, or write what others open."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.exchange.facts import Facts
from rkstore.manifest import COLUMNS, Site
from rkstore.settings import ImportSettings
from rkstore.store import Store

Floats = NDArray[np.float32]


Column = Callable[[int, int], np.ndarray]
"""First row and the row behind the last → integers ``(rows,)``."""


@dataclass(frozen=True)
class Source:
    """Rows in files of another program: opened and checked, nothing of them in memory yet."""

    sites: tuple[Site, ...]
    arrays: dict[str, str]
    """What each site is called in the files."""
    rows: int
    read: Callable[[int, int], dict[str, Floats]]
    """First row and the row behind the last → float32 ``(rows, d_in)`` of every site."""
    files: dict[str, Path]
    """Every file that the rows and columns come from, by the name that goes on record."""
    dtype: str
    """What the numbers are in the files."""
    columns: dict[str, Column] = field(default_factory=dict)
    """The columns that the files have."""
    context_size: int | None = None
    """Rows in a block, if the files say so."""
    facts: Facts | None = None
    """Of the store that the files were exported from, if they were."""


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
    def write(self, outgoing: "Outgoing", out: Path) -> None:
        """Write sites, columns and facts to an empty directory, in bounded memory.

        Raises:
            BadInput: a value does not fit the dtype.
        """


class Outgoing:
    """What an export writes of a store, and what it costs in accuracy."""

    def __init__(self, store: Store, hook_names: list[str], dtype: np.dtype) -> None:
        """Choose sites, and the dtype of their numbers, float32 or float16."""
        self.store, self.hook_names, self.dtype = store, hook_names, dtype
        self.rows = store.stop_row - store.first_row
        """Rows that can be read: those of the part, if the store is a part of one."""
        self.advance: Callable[[int], object] = lambda _: None
        """Told the rows of each site as they are read."""
        self._squared_error = dict.fromkeys(hook_names, 0.0)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First row, and the row behind the last, of every chunk that can be read."""
        return [self.store.rows_of_chunk(chunk) for chunk in self.store.chunk_range]

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
            error = values.astype(np.float32) - x
            self._squared_error[hook_name] += float(np.square(error, dtype=np.float64).sum())
        self.advance(last - first)
        return values

    def columns(self) -> list[str]:
        """The columns that are known: an import may have no token ids."""
        known = all(self.store.column("token_id", *span).min() >= 0 for span in self.spans)
        return [name for name in COLUMNS if known or name != "token_id"]

    def facts(self) -> Facts:
        """What the arrays do not say. Complete when all values were read."""
        manifest = self.store.manifest
        source = dict(manifest.source)
        if self.rows != manifest.rows and isinstance(source.get("tokens"), dict):
            # The digest is of all tokens.
            source["tokens"] = {k: v for k, v in source["tokens"].items() if k != "sha256"}
        errors = {name: self._error(name) for name in self.hook_names}
        return Facts(
            manifest.fingerprint, self.rows, manifest.context_size, manifest.codec, errors, source
        )

    def _error(self, hook_name: str) -> float:
        variation = float(self.store.statistics(hook_name).m2.sum())
        added = self._squared_error[hook_name] / variation if variation > 0 else 0.0
        return self.store.codec_fvu(hook_name) + added


@dataclass(frozen=True)
class Matrix:
    """Rows of one array.

    Its axes are ``(rows, d_in)``, ``(blocks, context, d_in)``, or those of a hook with heads,
    ``(blocks, context, heads, d_head)``, whose rows are the heads one behind another.
    """

    array: Any
    """NumPy, h5py or torch: sliced along its first axis only."""
    floats: Callable[[Any], Floats]
    """A slice of the array → float32."""
    dtype: str

    @property
    def rows(self) -> int:
        return int(self.array.shape[0]) * (self.context_size or 1)

    @property
    def width(self) -> int:
        shape = self.array.shape
        return int(np.prod(shape[2:])) if len(shape) > 2 else int(shape[1])

    @property
    def context_size(self) -> int | None:
        return int(self.array.shape[1]) if len(self.array.shape) > 2 else None

    def read(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop``, float32 ``(stop - start, d_in)``."""
        size = self.context_size or 1
        x = self.floats(self.array[blocks_between(start, stop, size)])
        return cut(x.reshape(-1, self.width), start, stop, size)


@dataclass(frozen=True)
class Ids:
    """A column in an array of NumPy or h5py: ``(rows,)`` or ``(blocks, context)``."""

    array: Any

    @property
    def context_size(self) -> int | None:
        """Rows in a block. ``(rows, 1)`` and ``(1, rows)`` are rows and say nothing of blocks."""
        shape = self.array.shape
        return int(shape[1]) if len(shape) == 2 and min(shape) > 1 else None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Integers of rows ``start`` to ``stop``."""
        shape = self.array.shape
        size = int(shape[1]) if len(shape) == 2 else 1
        x = np.asarray(self.array[blocks_between(start, stop, size)])
        return cut(x.reshape(-1), start, stop, size)


def blocks_between(start: int, stop: int, size: int) -> slice:
    """The blocks of ``size`` rows that hold rows ``start`` to ``stop``."""
    return slice(start // size, -(-stop // size))


def cut(x: np.ndarray, start: int, stop: int, size: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` out of all rows of the blocks that hold them."""
    return x[start % size : start % size + stop - start]


def float32(x: Any) -> Floats:
    """Any floats as float32; what is too large becomes infinite, which no store takes."""
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float32, copy=False)


def matrix(where: str, array: Any) -> Matrix:
    """Rows of floats in an array of NumPy or h5py, of either byte order.

    Raises:
        BadInput: it has another shape, or holds anything else.
    """
    check_shape(where, array.shape)
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        raise BadInput(
            f"{where} holds sixteen bits without a type, as bfloat16 becomes: save it as float32"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise BadInput(f"{where} holds {array.dtype}: activations are float32, float16 or float64")
    return Matrix(array, float32, array.dtype.name)


def check_shape(where: str, shape: Sequence[int]) -> None:
    """Raise BadInput unless a shape is that of rows, or of blocks of rows."""
    if len(shape) not in (2, 3, 4) or not all(shape):
        raise BadInput(
            f"{where} has shape {tuple(shape)}: activations are (rows, d_in), "
            "(blocks, context_size, d_in) or (blocks, context_size, heads, d_head)"
        )


def check_ids(where: str, ids: Ids, like: Matrix) -> None:
    """Raise BadInput unless a column is one integer for each row."""
    array = ids.array
    if array.dtype.kind not in "iu":
        raise BadInput(f"{where} holds {array.dtype}: token ids are integers")
    blocks = tuple(like.array.shape[:2]) if like.context_size else None
    if len(array.shape) not in (1, 2) or int(np.prod(array.shape)) != like.rows:
        raise BadInput(
            f"{where} has shape {tuple(array.shape)} and the activations have {like.rows:,} rows"
        )
    if ids.context_size and blocks and tuple(array.shape) != blocks:
        raise BadInput(
            f"{where} has shape {tuple(array.shape)}, the activations are blocks of {blocks}: "
            "save both in the same order"
        )


def names_of(found: list[str], asked: tuple[str, ...]) -> dict[str, str]:
    """The array of each site: under the names asked for, in the order found, or its own.

    Raises:
        BadInput: fewer or more names than arrays.
    """
    if asked and len(asked) != len(found):
        raise BadInput(
            f"--hook-name is given {len(asked)} times for {len(found)} arrays: give one name "
            f"each, in the order {', '.join(found[:16])}"
        )
    return dict(zip(asked or found, found, strict=True))


def of_matrices(
    where: str,
    matrices: dict[str, Matrix],
    files: dict[str, Path],
    asked: tuple[str, ...] = (),
    columns: dict[str, Ids] | None = None,
    facts: Facts | None = None,
    context_size: int | None = None,
) -> Source:
    """A source of several arrays of the same rows.

    Args:
        matrices: by what they are called in the files, in order.
        asked: names of the sites; see :func:`names_of`.
        columns: checked by :func:`check_ids`.
        context_size: if the files say it elsewhere than in a shape.

    Raises:
        BadInput: they differ in rows or blocks, or are not the names asked for.
    """
    arrays = names_of(list(matrices), asked)
    first_name, first = next(iter(matrices.items()))
    for name, m in matrices.items():
        if (m.rows, m.context_size) != (first.rows, first.context_size):
            raise BadInput(
                f"{name} has shape {tuple(m.array.shape)} and {first_name} "
                f"{tuple(first.array.shape)}: arrays of one store have the same rows"
            )
    columns = columns or {}
    return Source(
        sites=tuple(Site(site, matrices[array].width) for site, array in arrays.items()),
        arrays=arrays,
        rows=first.rows,
        read=lambda start, stop: {s: matrices[a].read(start, stop) for s, a in arrays.items()},
        files=files,
        dtype=", ".join(sorted({m.dtype for m in matrices.values()})),
        columns={name: ids.read for name, ids in columns.items()},
        context_size=agreed(
            where,
            context_size,
            first.context_size,
            facts.context_size if facts else None,
            *(ids.context_size for ids in columns.values()),
        ),
        facts=facts,
    )


def agreed(where: str, *stated: int | None) -> int | None:
    """The one context size that is stated, if any is.

    Raises:
        BadInput: files state several.
    """
    sizes = sorted({size for size in stated if size})
    if len(sizes) > 1:
        raise BadInput(f"{where} states blocks of {' and of '.join(map(str, sizes))} rows")
    return sizes[0] if sizes else None
