"""Formats: how a stored array lies on disk, compressed without loss. One file each.

A format knows arrays and files: what the numbers mean is the codec's business.
To add one, write its file and add it to ``FORMATS``.
"""

from rkstore.errors import BadInput
from rkstore.formats.base import ArraySpec, Format, Shard
from rkstore.formats.hdf5 import Hdf5
from rkstore.formats.zarr import Zarr

FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in (Zarr(), Hdf5())}


def format_named(name: str) -> Format:
    """Return the format of that name.

    Raises:
        BadInput: no format has that name.
    """
    if name not in FORMATS:
        raise BadInput(f"unknown format '{name}': choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


__all__ = ["FORMATS", "ArraySpec", "Format", "Shard", "format_named"]
