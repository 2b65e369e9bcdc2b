"""Formats: how a stored array is written to disk, compressed losslessly. One file each.

A format knows arrays and files; the codec knows what the numbers mean.
To add one, write its file and add it to ``FORMATS``.
"""

import numpy as np

from rkstore.errors import BadInput
from rkstore.store.formats.base import ArraySpec, Format, Shard
from rkstore.store.formats.hdf5 import Hdf5
from rkstore.store.formats.zarr import Zarr

FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in (Zarr(), Hdf5())}
"""What ``--format`` offers, by name."""


# Every lossless compression of any format, and the choice of the best one for the codec.
COMPRESSIONS = ("auto", *dict.fromkeys(c for fmt in FORMATS.values() for c in fmt.compressions))
COMPRESSION_HELP = (
    "Lossless compression of the stored numbers; auto chooses the smallest for the codec. "
    "deflate is HDF5's; none makes float32 a view of the mapped file."
)


def format_named(name: str) -> Format:
    """Return the format of that name.

    Raises:
        BadInput: no format has that name.
    """
    if name not in FORMATS:
        raise BadInput(f"unknown format '{name}': choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def compression_for(format: str, dtype: np.dtype, asked: str = "auto") -> str:
    """The compression of activations stored as that type: the requested one, or the best.

    Raises:
        BadInput: the format has no such compression.
    """
    layout = format_named(format)
    if asked == "auto":
        return layout.compression_for(dtype)
    if asked not in layout.compressions:
        raise BadInput(
            f"--format {format} cannot be compressed with '{asked}': "
            f"choose --compression auto, {', '.join(layout.compressions)}"
        )
    return asked


__all__ = [
    "COMPRESSIONS",
    "COMPRESSION_HELP",
    "FORMATS",
    "ArraySpec",
    "Format",
    "Shard",
    "compression_for",
    "format_named",
]
