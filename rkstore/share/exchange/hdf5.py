"""HDF5: datasets of activations, DiscBuffer's ``tensor`` of all layers, or an export."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from rkstore.errors import BadInput, one_line
from rkstore.settings import check_distinct, option
from rkstore.share.exchange.base import Exporter, Floats, Importer, Source
from rkstore.share.exchange.facts import LARGEST, Facts, parse_facts
from rkstore.share.exchange.matrices import (
    Ids,
    check_ids,
    float32,
    matrix,
    names_of,
    of_matrices,
)
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.store.manifest import COLUMNS
from rkstore.store.natural import natural
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

FILE = "activations.h5"
TENSOR = "tensor"
FACTS = "rkstore"

# What DiscBuffer has for each layer: the input and the output of the MLP.
DISC_BUFFER = ("hook_resid_mid", "hook_mlp_out")


class FromHdf5(Importer):
    """Reads the datasets of one file."""

    name = "hdf5"
    dataset: tuple[str, ...] = option(
        (), "HDF5 dataset to read; by default 'tensor', or else all datasets, in natural order."
    )

    def open(self, path: Path, settings: "ImportSettings") -> Source:
        check_distinct("--dataset", self.dataset)
        if path.is_dir():
            path /= FILE  # where an export puts it
            if not path.is_file():
                raise BadInput(f"{path.parent} is a directory: give the HDF5 file in it")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise BadInput(
                f"{path} is not an HDF5 file, or is truncated: {one_line(error)}"
            ) from None
        found = {name: _dataset(path, file, name) for name in _chosen(path, file, self.dataset)}
        files = {path.name: path}
        if len(found) == 1:
            [(name, dataset)] = found.items()
            if _is_disc_buffer(path, name, dataset, settings.context_size):
                return _disc_buffer(path, name, dataset, settings.hook_name)
        matrices = {name: matrix(f"'{name}' of {path}", data) for name, data in found.items()}
        like = next(iter(matrices.values()))
        columns = {name: Ids(_dataset(path, file, name)) for name in COLUMNS if name in file}
        for name, ids in columns.items():
            check_ids(f"'{name}' of {path}", ids, like)
        facts = _facts(path, file)
        if facts:
            facts.check(str(path), list(matrices), like.rows)
        size = _context_size(path, file)
        return of_matrices(str(path), matrices, files, settings.hook_name, columns, facts, size)


class ToHdf5(Exporter):
    """Writes one file, with a dataset for each site and each column."""

    name = "hdf5"
    reserved = (FACTS,)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        with _Kept(out / FILE, "x+") as raw, h5py.File(raw, "w") as file:
            sites = map(outgoing.site, outgoing.hook_names)
            for array in (*sites, *map(outgoing.column, COLUMNS)):
                # Contiguous, so that a program without HDF5 can map the numbers.
                dataset = file.create_dataset(
                    array.name, array.shape, array.dtype, track_times=False
                )
                row = 0
                for chunk in array.chunks:
                    dataset[row : row + len(chunk)] = chunk
                    row += len(chunk)
                    raw.check()
            facts = outgoing.facts()
            file.attrs["rkstore_store"] = facts.fingerprint
            file.attrs["context_size"] = facts.context_size
            # A dataset: an attribute holds 64 KiB at most.
            text = np.bytes_(facts.to_text().encode("ascii"))
            file.create_dataset(FACTS, data=text, track_times=False)


class _Kept(io.FileIO):
    """A file that keeps what the system says of a write until it is closed.

    HDF5 that is told so cannot close its file, and prints that on stderr.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        left = memoryview(content)
        try:
            while self.error is None and left:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return len(content)

    def check(self) -> None:
        """Raise the first error."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        super().close()
        self.check()


def _chosen(path: Path, file: h5py.File, asked: tuple[str, ...]) -> list[str]:
    """The datasets asked for, or ``tensor``, or all that are not columns, in natural order."""
    if asked:
        return list(asked)
    if TENSOR in file:
        return [TENSOR]
    names: list[str] = []

    def see(name: str, link: Any) -> None:
        # A link to another file is included, to be refused by name.
        inside = isinstance(link, h5py.HardLink)
        if name not in (*COLUMNS, FACTS) and not (inside and isinstance(file[name], h5py.Group)):
            names.append(name)

    file.visititems_links(see)
    if not names:
        raise BadInput(f"{path} contains no datasets")
    return sorted(names, key=natural)


def _dataset(path: Path, file: h5py.File, name: str) -> Any:
    """A dataset stored in this file: a link may lead to any other."""
    try:
        link = file.get(name, getlink=True) if name in file else None
        dataset = file[name] if isinstance(link, h5py.HardLink) else None
    except (KeyError, OSError, RuntimeError) as error:
        raise BadInput(f"'{name}' of {path} cannot be opened: {error}") from None
    # A group on the path may itself be an external link.
    if not isinstance(dataset, h5py.Dataset) or dataset.file != file or dataset.shape is None:
        raise BadInput(
            f"{path} has no dataset '{name}' (it has {', '.join(list(file)[:16]) or 'nothing'}): "
            "say which with --dataset"
        )
    if dataset.external or dataset.is_virtual:
        raise BadInput(f"the numbers of '{name}' are not in {path} itself: copy them into it")
    return dataset


def _facts(path: Path, file: h5py.File) -> Facts | None:
    """The facts in an export, if the file is one."""
    where = f"'{FACTS}' of {path}"
    if FACTS not in file:
        return None
    dataset = _dataset(path, file, FACTS)
    if dataset.dtype.kind != "S" or dataset.shape != () or dataset.dtype.itemsize > LARGEST:
        raise BadInput(f"{where} is not what an rkstore export writes: say --dataset")
    return parse_facts(bytes(dataset[()]), where)


def _context_size(path: Path, file: h5py.File) -> int | None:
    """Rows in a block, as an export says; early exports recorded nothing else."""
    if "rkstore_store" not in file.attrs or "context_size" not in file.attrs:
        return None
    size = file.attrs["context_size"]
    if not isinstance(size, np.integer) or size < 1:
        raise BadInput(f"{path} states a context size of {size!r}")
    return int(size)


def _is_disc_buffer(path: Path, name: str, dataset: Any, context_size: int | None) -> bool:
    """Whether four axes are ``(rows, 2, layers, d)``, not ``(blocks, context, heads, d_head)``.

    Raises:
        BadInput: they could be either.
    """
    if len(dataset.shape) != 4 or dataset.shape[1] != len(DISC_BUFFER):
        return False
    if name != TENSOR and context_size is None:
        raise BadInput(
            f"'{name}' of {path} has shape {dataset.shape}, which is DiscBuffer's (rows, 2, "
            "layers, d_in) or blocks of two rows with heads: say --context-size 1 for the one, "
            "--context-size 2 for the other"
        )
    return context_size != len(DISC_BUFFER)


def _disc_buffer(path: Path, name: str, dataset: Any, asked: tuple[str, ...]) -> Source:
    """The sites of ``(N, 2, L, d)``, in the order of the array: inputs, then outputs."""
    rows, kinds, layers, width = dataset.shape
    matrix(f"'{name}' of {path}", dataset)
    own = [f"blocks.{layer}.{kind}" for kind in DISC_BUFFER for layer in range(layers)]
    slots = [f"{name}[:, {kind}, {layer}]" for kind in range(kinds) for layer in range(layers)]
    arrays = names_of(slots, asked or tuple(own))

    def read(start: int, stop: int) -> dict[str, Floats]:
        x = float32(dataset[start:stop]).reshape(stop - start, len(arrays), width)
        return {name: x[:, i] for i, name in enumerate(arrays)}

    sites = tuple(Site(site, width) for site in arrays)
    return Source(sites, arrays, rows, read, {path.name: path}, dataset.dtype.name)
