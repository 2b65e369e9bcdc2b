"""Tensors in ``.pt`` and ``.npz`` files, which are archives: no pickle with code in it is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rkstore.dictionaries.layouts.tensors import Opened
from rkstore.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

# Weights do not shrink so much: an archive of which more comes out was made to fill the memory.
EXPANDS = 8


def open_pt(path: Path) -> tuple[Opened, dict[str, Any]]:
    """Open what ``torch.save`` wrote of a ``state_dict``; and what in it is no tensor.

    The tensors are mapped into memory, not read.

    Raises:
        BadInput: it is no such file, or it holds more than tensors, numbers and text.
    """
    import torch

    members = _members(path)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise BadInput(f"{path.name} is compressed: save it with torch.save")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path.name} holds Python objects, which could run anything: save its state_dict"
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise BadInput(f"{path.name} is no state_dict of tensors by name")
    tensors = {name: x for name, x in found.items() if isinstance(x, torch.Tensor)}
    for name, tensor in tensors.items():
        # A shape may claim more numbers than are there.
        if tensor.layout != torch.strided or not _is_there(tensor):
            raise BadInput(f"{name} in {path.name} has more numbers than the file")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    plain = {name: x for name, x in found.items() if name not in tensors}
    return Opened(path.name, shapes, lambda: tensors), plain


def open_npz(path: Path) -> Opened:
    """Open what ``numpy.savez`` wrote; the headers of its arrays say the shapes.

    Raises:
        BadInput: it is no such file, or holds objects.
    """
    if sum(member.file_size for member in _members(path)) > EXPANDS * path.stat().st_size:
        raise BadInput(f"{path.name} is much smaller than its arrays: save it with numpy.savez")
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            if dtype.hasobject:
                raise BadInput(f"{name} in {path.name} holds Python objects: save its numbers")
            shapes[name.removesuffix(".npy")] = shape
    return Opened(path.name, shapes, lambda: _arrays(path))


def _arrays(path: Path) -> dict[str, Tensor]:
    import torch

    with np.load(path, allow_pickle=False) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile:
        raise BadInput(
            f"{path.name} is no archive, or truncated; a file of a torch before 1.6 is none: load "
            "it there, and save it with a newer one"
        ) from None


def _is_there(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
