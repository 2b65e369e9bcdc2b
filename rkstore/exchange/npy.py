"""NumPy: one ``.npy`` a site, and ``tokens.npy`` beside them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rkstore.errors import BadInput
from rkstore.exchange.base import (
    Exporter,
    Importer,
    Matrix,
    Source,
    check_floats,
    check_tokens,
    float32,
    known_tokens,
    names_of,
    narrowed,
    of_matrices,
    rows_of,
    spans_of,
)
from rkstore.settings import ImportSettings
from rkstore.store import Store

TOKENS = "tokens.npy"


class Npy(Importer, Exporter):
    """Reads one file, or a directory of them in the order of their names; memory-mapped."""

    name = "npy"
    reserved: ClassVar = ("tokens",)

    def open(self, path: Path, settings: ImportSettings) -> Source:
        paths = _files(path)
        names = names_of([file.stem for file in paths], settings.hook_name)
        matrices = {}
        for name, file in zip(names, paths, strict=True):
            array = _mapped(file)
            check_floats(str(file), array)
            matrices[name] = Matrix(array, float32)
        tokens = path / TOKENS
        if not tokens.is_file():
            return of_matrices(matrices, {f.name: f for f in paths}, str(array.dtype))
        ids = _mapped(tokens)
        check_tokens(str(tokens), ids, next(iter(matrices.values())).rows)
        flat = ids.reshape(-1)
        return of_matrices(
            matrices,
            {file.name: file for file in [*paths, tokens]},
            str(array.dtype),
            {"token_id": lambda start, stop: flat[start:stop]},
        )

    def write(
        self,
        store: Store,
        hook_names: list[str],
        dtype: np.dtype,
        out: Path,
        advance: Callable[[int], object],
    ) -> None:
        for name in hook_names:
            shape = (rows_of(store), store.manifest.width(name))

            def chunks(name: str = name) -> Iterator[np.ndarray]:
                for first, last in spans_of(store):
                    yield narrowed(name, store.read(name, first, last), dtype, first)
                    advance(last - first)

            _write(out / f"{name}.npy", shape, dtype, chunks())
        if known_tokens(store):
            ids = (store.column("token_id", *span) for span in spans_of(store))
            _write(out / TOKENS, (rows_of(store),), np.dtype("<i4"), ids)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.npy") if file.name != TOKENS)
    if not found:
        raise BadInput(f"{path} has no .npy files: give one, or a directory of them")
    return found


def _mapped(path: Path) -> Any:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(
            f"{path} is no .npy file of numbers, or is cut short: {' '.join(str(error).split())}"
        ) from None


def _write(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, chunks: Iterator[np.ndarray]
) -> None:
    """Write an array behind its header, chunk by chunk.

    It is not memory-mapped: on a full disk a write fails with a sentence, where a
    mapping would end the process.
    """
    stored = dtype.newbyteorder("<")
    header = {"descr": stored.str, "fortran_order": False, "shape": shape}
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, stored).data)
