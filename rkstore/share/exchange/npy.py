"""NumPy: one ``.npy`` per site, and ``tokens.npy``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rkstore.errors import BadInput, one_line
from rkstore.share.exchange import facts
from rkstore.share.exchange.base import Exporter, Importer, Source
from rkstore.share.exchange.files import COLUMN_FILES, of_files
from rkstore.share.exchange.matrices import matrix
from rkstore.share.exchange.outgoing import Array, Outgoing

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings


class FromNpy(Importer):
    """Reads one file, or a directory of them in natural order; memory-mapped."""

    name = "npy"

    def open(self, path: Path, settings: "ImportSettings") -> Source:
        return of_files(path, settings, ".npy", lambda f: matrix(str(f), mapped(f)), mapped)


class ToNpy(Exporter):
    """Writes a file for each site and each known column."""

    name = "npy"
    reserved = tuple(COLUMN_FILES)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        for name in outgoing.hook_names:
            write_array(out / f"{name}.npy", outgoing.site(name))
        known = outgoing.columns()
        for stem, name in COLUMN_FILES.items():
            if name in known:
                write_array(out / f"{stem}.npy", outgoing.column(name))
        (out / facts.FILE).write_text(outgoing.facts().to_text(), "ascii")


def mapped(path: Path) -> Any:
    """The array in a file, memory-mapped; raises BadInput if it is none of numbers."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(
            f"{path} is not a .npy file of numbers, or is truncated: {one_line(error)}"
        ) from None


def write_array(path: Path, array: Array) -> None:
    """Write an array after its header, chunk by chunk.

    It is not memory-mapped: on a full disk a write raises an error, but a mapping would kill the
    process.
    """
    stored = array.dtype.newbyteorder("<")
    header = {"descr": stored.str, "fortran_order": False, "shape": array.shape}
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in array.chunks:
            file.write(np.ascontiguousarray(chunk, stored).data)
