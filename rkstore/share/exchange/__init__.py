"""Exchange: the files of other programs, in and out. One file each.

To add a format, write its file and add it to ``IMPORTERS``, ``EXPORTERS`` or both.
"""

from rkstore.errors import BadInput
from rkstore.share.exchange.base import Exporter, Importer, Source
from rkstore.share.exchange.hdf5 import Hdf5Exchange
from rkstore.share.exchange.memmap import Memmap
from rkstore.share.exchange.npy import Npy
from rkstore.share.exchange.pt import Pt
from rkstore.share.exchange.saelens import Saelens

IMPORTERS: dict[str, Importer] = {
    kind.name: kind for kind in (Saelens(), Memmap(), Npy(), Pt(), Hdf5Exchange())
}
EXPORTERS: dict[str, Exporter] = {kind.name: kind for kind in (Saelens(), Npy(), Hdf5Exchange())}


def importer_named(name: str | None) -> Importer:
    """Return the importer of that name.

    Raises:
        BadInput: none is named, or no importer has that name.
    """
    if name not in IMPORTERS:
        raise BadInput(f"say what the files are with --from: one of {', '.join(IMPORTERS)}")
    return IMPORTERS[name]


def exporter_named(name: str | None) -> Exporter:
    """Return the exporter of that name.

    Raises:
        BadInput: none is named, or no exporter has that name.
    """
    if name not in EXPORTERS:
        raise BadInput(f"say what to write with --to: one of {', '.join(EXPORTERS)}")
    return EXPORTERS[name]


__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "Exporter",
    "Importer",
    "Source",
    "exporter_named",
    "importer_named",
]
