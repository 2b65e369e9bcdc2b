"""Exchange formats of other programs, import and export. One file each.

To add a format, write its file, with the options that it needs, and add it to ``IMPORTERS``,
``EXPORTERS`` or both.
"""

from rkstore.share.exchange.base import Exporter, Importer
from rkstore.share.exchange.hdf5 import FromHdf5, ToHdf5
from rkstore.share.exchange.memmap import FromMemmap, ToMemmap
from rkstore.share.exchange.npy import FromNpy, ToNpy
from rkstore.share.exchange.pt import Pt
from rkstore.share.exchange.saelens import FromSaelens, ToSaelens

IMPORTERS: dict[str, type[Importer]] = {
    kind.name: kind for kind in (FromSaelens, FromMemmap, FromNpy, Pt, FromHdf5)
}
"""What ``import --from`` reads, by name."""
EXPORTERS: dict[str, type[Exporter]] = {
    kind.name: kind for kind in (ToSaelens, ToMemmap, ToNpy, ToHdf5)
}
"""What ``export --to`` writes, by name."""

__all__ = ["EXPORTERS", "IMPORTERS", "Exporter", "Importer"]
