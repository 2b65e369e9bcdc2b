"""Tensors in files of other programs: compared with what is due before they are read.

All of a file must be used: a tensor that is left over would have changed the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
"""The tensors of a file: name → shape."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
WHOLE = ("int64", "int32")


@dataclass(frozen=True)
class Opened:
    """A file of tensors, of which only the names and shapes are read so far."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    load: Callable[[], dict[str, Tensor]]


def open_safetensors(path: Path) -> Opened:
    """Open a ``.safetensors``; its header says the shapes.

    Raises:
        SafetensorError: it is none, or truncated.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return Opened(path.name, shapes, lambda: load_file(path))


def taken(
    opened: Opened,
    due: Shapes,
    optional: Shapes | None = None,
    *,
    whole: Collection[str] = (),
    unset: Collection[str] = (),
) -> dict[str, Tensor]:
    """The tensors of a file, which has all that are due, and no others.

    Args:
        optional: those that may be there, too.
        whole: those that hold whole numbers.
        unset: those that are NaN where their program has nothing to say.

    Raises:
        BadInput: one is missing, not known, of another shape or dtype, or not finite.
    """
    known = {**due, **(optional or {})}
    for name in due:
        if name not in opened.shapes:
            raise BadInput(f"{opened.name} has no {name}")
    for name, shape in opened.shapes.items():
        if name not in known:
            raise BadInput(f"{opened.name} has a {name}, whose effect is not known")
        if shape != known[name]:
            raise BadInput(
                f"{name} in {opened.name} is {_shape(shape)}, and {_shape(known[name])} by its "
                "configuration"
            )
    tensors = opened.load()
    for name, tensor in tensors.items():
        kinds = WHOLE if name in whole else FLOATS
        if (dtype := str(tensor.dtype).removeprefix("torch.")) not in kinds:
            raise BadInput(f"{name} in {opened.name} is {dtype}: rkstore reads {', '.join(kinds)}")
    check_finite({name: tensor for name, tensor in tensors.items() if name not in unset})
    return tensors


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise BadInput if a value is infinite or not a number."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BadInput(f"{name} holds values that are not finite: its training diverged")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that contains an object. NaN and Infinity, which JSON has not, are None.

    Raises:
        BadInput: it contains something else.
        ValueError: it is no JSON.
    """
    found = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    if not isinstance(found, dict):
        raise BadInput(f"{path.name} is not an object")
    return found


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if shape else "a single number"
