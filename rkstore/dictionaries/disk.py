"""A dictionary on disk: a checkpoint, or the files of another program.

A checkpoint is ``cfg.json`` and ``sae_weights.safetensors``. An autoencoder of one site has
SAELens' own layout there: ``sae_lens.SAE.load_from_disk(path)`` loads the directory unchanged. Any
other has rkstore's, with its wiring as JSON: also an autoencoder that ranks by decoder norms,
unless these can be taken into its thresholds.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.hub.fetch import local_copy
from rkstore.dictionaries.layouts import LAYOUTS, Layout, layouts_of
from rkstore.dictionaries.layouts.base import UNNAMED
from rkstore.dictionaries.layouts.own import Own
from rkstore.dictionaries.layouts.saelens import (
    CONFIG,
    WEIGHTS,
    SAELens,
    config_and_tensors,
    write_files,
)
from rkstore.errors import BadInput, few, one_line
from rkstore.settings import member_named

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "TRAINING",
    "UNNAMED",
    "WEIGHTS",
    "load_dictionary",
    "save_dictionary",
]

# The file that makes a directory a checkpoint.
TRAINING = "training.json"

# The default directory of checkpoints.
CHECKPOINTS = "checkpoints"

# How deep in a directory of several dictionaries each may lie: SAELens' sae_id has up to three
# parts (layer_20/width_16k/average_l0_71).
DEPTH = 3


def save_dictionary(
    dictionary: Dictionary, path: Path, metadata: dict[str, Any], layout: str | None = None
) -> None:
    """Write a dictionary to an existing directory.

    Args:
        metadata: model and hook it belongs to, under SAELens' names, and whatever else
            is worth keeping.
        layout: one of ``LAYOUTS``; that of a checkpoint if None.

    Raises:
        BadInput: the layout cannot hold it, or is not known.
    """
    if layout is None:
        _write_checkpoint(dictionary, path, metadata)
        return
    chosen = member_named("layout", LAYOUTS, layout, {})
    if reason := chosen.refuses(dictionary):
        can = [name for name, kind in LAYOUTS.items() if kind().refuses(dictionary) is None]
        raise BadInput(
            f"the layout {layout} cannot hold this dictionary: {reason}; {', '.join(can)} can"
        )
    chosen.write(dictionary, path, metadata)


def _write_checkpoint(dictionary: Dictionary, path: Path, metadata: dict[str, Any]) -> None:
    """Write the two files of a checkpoint, with the metadata as it is."""
    wiring = dictionary.wiring
    autoencoder = len(wiring.banks) == 1 and wiring.reads == wiring.writes and wiring.centred
    if autoencoder and SAELens().refuses(dictionary) is None:
        write_files(path, *config_and_tensors(dictionary), metadata)
    else:
        Own().write(dictionary, path, metadata)


def load_dictionary(
    path: str | Path,
    layout: str | None = None,
    *,
    hook_name: str | None = None,
    hook_name_out: str | None = None,
) -> tuple[Dictionary, dict[str, Any]]:
    """Read a dictionary in any of ``LAYOUTS``, and its metadata.

    Options of the files are folded into the weights: ``encode`` gives the code that the program
    gives which wrote them, ``forward`` the reconstruction, but the weights may differ from those on
    disk.

    Args:
        path: a directory, or an ``hf://`` URL of one in a repository of the Hub.
        layout: which program wrote it, one of ``LAYOUTS``; None if its files say so.
        hook_name: of the rows that it reads, if its files do not say it; for a dictionary of
            several layers the part after the block.
        hook_name_out: of those that a transcoder writes.

    Raises:
        BadInput: there is none in that directory, or there are several, or its kind is unknown, or
            its tensors do not fit its configuration or are not finite.
    """
    path = local_copy(path, layout)
    chosen = layout_of(path, layout)
    try:
        read = chosen.read(path, hook_name=hook_name, hook_name_out=hook_name_out)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise BadInput(f"cannot read the dictionary in {path}: {_reason(error)}") from None
    dictionary, metadata = read
    dictionary.metadata = metadata
    return dictionary.eval(), metadata


def layout_of(path: Path, name: str | None = None) -> Layout:
    """The layout of a directory, which must have that of a dictionary.

    Args:
        name: the one to take; None if there is only one.

    Raises:
        BadInput: it holds no dictionary, or several.
    """
    if name is not None:
        chosen = member_named("layout", LAYOUTS, name, {})
        if not chosen.found(path):
            raise BadInput(f"{path} holds no dictionary in the layout {name}: leave --layout out")
        return chosen
    found = layouts_of(path)
    if len(found) > 1:
        names = ", ".join(layout.name for layout in found)
        raise BadInput(f"{path} holds dictionaries in several layouts ({names}): choose --layout")
    if found:
        return found[0]
    if inside := list(_inside(path)):
        what = "several dictionaries: give one of" if len(inside) > 1 else "one deeper down: give"
        raise BadInput(f"{path} holds {what} {few(inside)}")
    raise BadInput(f"{path} holds no dictionary ({CONFIG} and {WEIGHTS}): give a checkpoint")


def _inside(root: Path) -> Iterator[str]:
    """Directories below one that hold a dictionary, by their names in it."""
    for at, directories, _ in os.walk(root):
        place = Path(at).relative_to(root)
        if len(place.parts) == DEPTH:
            directories.clear()
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        if place.parts and layouts_of(Path(at)):
            yield place.as_posix()


def _reason(error: Exception) -> str:
    """What is wrong, on one line."""
    return error.sentence if isinstance(error, BadInput) else one_line(error)
