"""Arrays of activations and of ids, opened and checked, for most formats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.share.exchange.base import Floats, Source
from rkstore.share.exchange.facts import Facts
from rkstore.store.sites import Site


@dataclass(frozen=True)
class Matrix:
    """Rows of one array.

    Its axes are ``(rows, d_in)``, ``(blocks, context, d_in)``, or those of a hook with heads,
    ``(blocks, context, heads, d_head)``, whose rows are the heads one after another.
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
        """Rows in a block. ``(rows, 1)`` and ``(1, rows)`` are rows without blocks."""
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
    """Any floats as float32; too large values become infinite, which a store refuses."""
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
            f"{where} holds 16-bit values without a type, as saved bfloat16 does: save it as "
            f"float32"
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
    """The array of each site: under the given names, in the order found, or its own.

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
        matrices: by their names in the files, in order.
        asked: names of the sites; see :func:`names_of`.
        columns: checked by :func:`check_ids`.
        context_size: if the files state it other than by a shape.

    Raises:
        BadInput: they differ in rows or blocks, or do not match the given names.
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
