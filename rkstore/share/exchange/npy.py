"""NumPy: one ``.npy`` a site, and ``tokens.npy`` beside them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rkstore.errors import BadInput, one_line
from rkstore.share.exchange import facts
from rkstore.share.exchange.base import Exporter, Importer, Source
from rkstore.share.exchange.files import COLUMN_FILES, of_files
from rkstore.share.exchange.matrices import matrix
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.share.settings import ImportSettings
from rkstore.store.manifest import COLUMNS


class Npy(Importer, Exporter):
    """Reads one file, or a directory of them in natural order; memory-mapped."""

    name = "npy"
    reserved: ClassVar = tuple(COLUMN_FILES)

    def open(self, path: Path, settings: ImportSettings) -> Source:
        return of_files(path, settings, ".npy", lambda f: matrix(str(f), _mapped(f)), _mapped)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        spans, rows = outgoing.spans, outgoing.rows
        for name in outgoing.hook_names:
            values = (outgoing.values(name, *span) for span in spans)
            _write(out / f"{name}.npy", (rows, outgoing.width(name)), outgoing.dtype, values)
        known = outgoing.columns()
        for stem, name in COLUMN_FILES.items():
            if name in known:
                ids = (outgoing.store.column(name, *span) for span in spans)
                _write(out / f"{stem}.npy", (rows,), COLUMNS[name], ids)
        (out / facts.FILE).write_text(outgoing.facts().to_text(), "ascii")


def _mapped(path: Path) -> Any:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise BadInput(
            f"{path} is no .npy file of numbers, or is cut short: {one_line(error)}"
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
