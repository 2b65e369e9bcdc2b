"""Files of a dictionary, altered in one place each: keys of a configuration, and tensors.

Each alteration takes the path of a file and rewrites it. Tensors may be in ``.safetensors``, in
``.npz`` or in a ``.pt``.
"""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

Alter = Callable[[Path], None]

# A size that no machine has memory for.
HUGE = 10**13


def key(*place: str, value: Any) -> Alter:
    """A key of a JSON file gets a value; ``place`` leads to it through the objects."""

    def alter(path: Path) -> None:
        document = inner = json.loads(path.read_text("utf-8"))
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        path.write_text(json.dumps(document))  # NaN stays what a program would write

    return alter


def without_key(*place: str) -> Alter:
    """A key of a JSON file is missing."""

    def alter(path: Path) -> None:
        document = inner = json.loads(path.read_text("utf-8"))
        for name in place[:-1]:
            inner = inner[name]
        del inner[place[-1]]
        path.write_text(json.dumps(document))

    return alter


def text(content: str) -> Alter:
    """A file contains something else."""

    def alter(path: Path) -> None:
        path.write_text(content, "utf-8")

    return alter


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Alter:
    """The tensors of a file are changed, in whatever it keeps them."""

    def alter(path: Path) -> None:
        found = load(path)
        change(found)
        save(path, found)

    return alter


def missing(name: str) -> Alter:
    def change(w: dict[str, torch.Tensor]) -> None:
        del w[name]

    return tensors(change)


def extra(name: str = "b_extra") -> Alter:
    return tensors(lambda w: w.update({name: torch.ones(3)}))


def renamed(name: str, other: str) -> Alter:
    return tensors(lambda w: w.update({other: w.pop(name)}))


def transposed(name: str) -> Alter:
    return tensors(lambda w: w.update({name: w[name].mT.contiguous()}))


def wider(name: str) -> Alter:
    """One more along the last dimension."""
    return tensors(lambda w: w.update({name: torch.cat([w[name], w[name][..., :1]], dim=-1)}))


def flat(name: str) -> Alter:
    """All dimensions in one."""
    return tensors(lambda w: w.update({name: w[name].flatten()}))


def with_value(name: str, value: float) -> Alter:
    """One entry is not a finite number, or another one."""

    def change(w: dict[str, torch.Tensor]) -> None:
        w[name] = w[name].clone(memory_format=torch.contiguous_format)
        w[name].view(-1)[-1] = value

    return tensors(change)


def of_dtype(name: str, dtype: torch.dtype) -> Alter:
    return tensors(lambda w: w.update({name: w[name].to(dtype)}))


def huge_header(name: str) -> Alter:
    """The header of a ``.safetensors`` claims that a tensor is huge."""

    def alter(path: Path) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        entry = header[name]
        begin, end = entry["data_offsets"]
        entry["shape"][0] = HUGE
        entry["data_offsets"] = [begin, begin + HUGE * (end - begin)]
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return alter


def truncated(path: Path) -> None:
    """The second half of a file is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class Code:
    """What runs a program when it is unpickled: it makes a file, by which a test sees it."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.ran,)


def with_code(path: Path) -> None:
    """A pickle with a program in it, in place of a file: see :func:`ran`."""
    if path.suffix == ".npz":
        array = np.empty(1, object)
        array[0] = Code(ran(path))
        np.savez(path, W_enc=array)
    elif path.suffix == ".pt":
        torch.save({"W_enc": Code(ran(path))}, path)
    else:
        path.write_bytes(pickle.dumps(Code(ran(path))))


def ran(path: Path) -> Path:
    """The file that :func:`with_code` would make if the program ran."""
    return path.with_name("ran")


def load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix == ".pt":
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return found
    return load_file(path)


def save(path: Path, found: dict[str, torch.Tensor]) -> None:
    """The inverse of :func:`load`."""
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in found.items()})
    elif path.suffix == ".pt":
        torch.save(found, path)
    else:
        save_file(found, path)
