"""Exchange: the files of other programs, in and out. One file each.

To add a format, write its file, with the options that it needs, and add it to ``IMPORTERS``,
``EXPORTERS`` or both.
"""

from typing import Any

from rkstore.errors import BadInput
from rkstore.settings import member_named
from rkstore.share.exchange.base import Exporter, Importer, Source
from rkstore.share.exchange.hdf5 import FromHdf5, ToHdf5
from rkstore.share.exchange.memmap import Memmap
from rkstore.share.exchange.npy import FromNpy, ToNpy
from rkstore.share.exchange.pt import Pt
from rkstore.share.exchange.saelens import FromSaelens, ToSaelens

IMPORTERS: dict[str, type[Importer]] = {
    kind.name: kind for kind in (FromSaelens, Memmap, FromNpy, Pt, FromHdf5)
}
EXPORTERS: dict[str, type[Exporter]] = {kind.name: kind for kind in (ToSaelens, ToNpy, ToHdf5)}


def importer_named(name: str | None, **options: Any) -> Importer:
    """Return the importer of that name, with those of the options that are its own.

    Raises:
        BadInput: none is named, no importer has that name, or an option is out of bounds.
    """
    if name is None:
        raise BadInput(f"say what the files are with --from: one of {', '.join(IMPORTERS)}")
    return member_named("--from", IMPORTERS, name, **options)


def exporter_named(name: str | None, **options: Any) -> Exporter:
    """Return the exporter of that name, with those of the options that are its own.

    Raises:
        BadInput: none is named, no exporter has that name, or an option is out of bounds.
    """
    if name is None:
        raise BadInput(f"say what to write with --to: one of {', '.join(EXPORTERS)}")
    return member_named("--to", EXPORTERS, name, **options)


__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "Exporter",
    "Importer",
    "Source",
    "exporter_named",
    "importer_named",
]
