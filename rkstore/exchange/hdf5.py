"""HDF5: one dataset of activations, DiscBuffer's ``tensor`` of all layers, or an export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rkstore.errors import BadInput
from rkstore.exchange.base import (
    Exporter,
    Floats,
    Importer,
    Matrix,
    Source,
    check_floats,
    check_tokens,
    float32,
    names_of,
    narrowed,
    of_matrices,
    rows_of,
    spans_of,
)
from rkstore.manifest import COLUMNS, Site
from rkstore.settings import ImportSettings
from rkstore.store import Store

FILE = "activations.h5"
TENSOR = "tensor"

# What DiscBuffer holds of each layer: what goes into the MLP and what comes out of it.
DISC_BUFFER = ("hook_resid_mid", "hook_mlp_out")


class Hdf5Exchange(Importer, Exporter):
    """Reads one file; writes one with a dataset a site and one a column."""

    name = "hdf5"

    def open(self, path: Path, settings: ImportSettings) -> Source:
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise BadInput(f"{path} is no HDF5 file, or is cut short: {error}") from None
        found = {name: _dataset(path, file, name) for name in _chosen(path, file, settings)}
        files = {path.name: path}
        first = next(iter(found.values()))
        if len(found) == 1 and len(first.shape) == 4:
            return _disc_buffer(path, first, settings.hook_name)
        for name, dataset in found.items():
            check_floats(f"'{name}' of {path}", dataset)
        names = names_of(list(found), settings.hook_name)
        matrices = {
            name: Matrix(dataset, float32)
            for name, dataset in zip(names, found.values(), strict=True)
        }
        rows = next(iter(matrices.values())).rows
        columns = {name: _column(path, file, name, rows) for name in COLUMNS if name in file}
        dtypes = sorted({str(dataset.dtype) for dataset in found.values()})
        return of_matrices(matrices, files, ", ".join(dtypes), columns)

    def write(
        self,
        store: Store,
        hook_names: list[str],
        dtype: np.dtype,
        out: Path,
        advance: Callable[[int], object],
    ) -> None:
        spans, rows, origin = spans_of(store), rows_of(store), store.first_row
        with h5py.File(out / FILE, "x") as file:
            file.attrs["rkstore_store"] = store.manifest.fingerprint
            file.attrs["context_size"] = store.manifest.context_size
            for name in hook_names:
                shape = (rows, store.manifest.width(name))
                # Contiguous, so that a program without HDF5 can map the numbers.
                dataset = file.create_dataset(name, shape, dtype, track_times=False)
                for first, last in spans:
                    x = store.read(name, first, last)
                    dataset[first - origin : last - origin] = narrowed(name, x, dtype, first)
                    advance(last - first)
            for name, kind in COLUMNS.items():
                column = file.create_dataset(name, (rows,), kind, track_times=False)
                for first, last in spans:
                    column[first - origin : last - origin] = store.column(name, first, last)


def _chosen(path: Path, file: h5py.File, settings: ImportSettings) -> list[str]:
    """The datasets asked for, or ``tensor``, or all that are no columns."""
    if settings.dataset:
        return list(settings.dataset)
    if TENSOR in file:
        return [TENSOR]
    names = [name for name in file if name not in COLUMNS]
    if not names:
        raise BadInput(f"{path} holds no datasets")
    return names


def _dataset(path: Path, file: h5py.File, name: str) -> Any:
    """A dataset whose numbers are in this very file: another file could be anybody's."""
    try:
        link = file.get(name, getlink=True) if name in file else None
        dataset = file[name] if isinstance(link, h5py.HardLink) else None
    except (KeyError, OSError, RuntimeError) as error:
        raise BadInput(f"'{name}' of {path} cannot be opened: {error}") from None
    # A group on the way may itself be a link to elsewhere.
    if not isinstance(dataset, h5py.Dataset) or dataset.file != file or dataset.shape is None:
        raise BadInput(
            f"{path} has no dataset '{name}' (it has {', '.join(list(file)[:16]) or 'nothing'}): "
            "say which with --dataset"
        )
    if dataset.external or dataset.is_virtual:
        raise BadInput(f"the numbers of '{name}' are not in {path} itself: copy them into it")
    return dataset


def _column(path: Path, file: h5py.File, name: str, rows: int) -> Callable[[int, int], np.ndarray]:
    column = _dataset(path, file, name)
    check_tokens(f"'{name}' of {path}", column, rows)
    if len(column.shape) != 1:
        raise BadInput(f"'{name}' of {path} has shape {column.shape}, not one number a row")

    def read(start: int, stop: int) -> np.ndarray:
        values: np.ndarray = column[start:stop]
        return values

    return read


def _disc_buffer(path: Path, dataset: Any, asked: tuple[str, ...]) -> Source:
    """The sites of ``(N, 2, L, d)``, in the order of the array: what goes in, what comes out."""
    rows, kinds, layers, width = dataset.shape
    if kinds != len(DISC_BUFFER) or not all(dataset.shape) or dataset.dtype.kind != "f":
        raise BadInput(
            f"{path} holds {dataset.dtype} of shape {dataset.shape}: with four axes it must be "
            "floats of (rows, 2, layers, d_in)"
        )
    own = [f"blocks.{layer}.{kind}" for kind in DISC_BUFFER for layer in range(layers)]
    names = names_of(own, asked)

    def read(start: int, stop: int) -> dict[str, Floats]:
        x = float32(dataset[start:stop]).reshape(stop - start, len(names), width)
        return {name: x[:, i] for i, name in enumerate(names)}

    sites = tuple(Site(name, width) for name in names)
    return Source(sites, rows, read, {path.name: path}, str(dataset.dtype))
