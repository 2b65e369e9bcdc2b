"""A dictionary in one program's layout → the same in another's."""

from pathlib import Path
from typing import Any

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.disk import load_dictionary, save_dictionary
from rkstore.dictionaries.hub.fetch import place_of
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, hook_of
from rkstore.dictionaries.settings import ConvertSettings
from rkstore.errors import BadInput
from rkstore.store.files import directory_aside, named, writing
from rkstore.store.sites import Site
from rkstore.store.writing.lock import locked


def convert(source: str | Path, settings: ConvertSettings) -> Path:
    """Write a dictionary for another program; returns the directory, complete or absent.

    Args:
        source: a directory or ``hf://USER/NAME[/SAE_ID]``.

    Raises:
        BadInput: there is no dictionary, its layout cannot be read, the other one cannot hold it,
            or the directory is not empty.
        RkstoreError: the connection or the disk failed.
    """
    if settings.to is None:
        raise BadInput(f"say what to write with --to: one of {', '.join(LAYOUTS)}")
    place = place_of(source)
    name = (place.under or place.name) if not isinstance(place, Path) else place.absolute().name
    out = named(settings.out or Path("converted") / f"{Path(name).name}-{settings.to}")
    _check_free(out)
    dictionary, metadata = load_dictionary(
        source,
        settings.from_,
        hook_name=settings.hook_name,
        hook_name_out=settings.hook_name_out,
    )
    return write_new(dictionary, out, settings.to, metadata)


def write_new(
    dictionary: Dictionary,
    directory: str | Path,
    layout: str | None,
    metadata: dict[str, Any],
) -> Path:
    """Write a dictionary to a new or empty directory, which is complete or absent.

    Raises:
        BadInput: the layout cannot hold it, or something is in the directory.
        RkstoreError: the disk is full or failed.
    """
    out = named(directory)
    _check_free(out)
    with writing(out, "the dictionary is intact"), locked(out):
        _check_free(out)  # another may have been written just before
        with directory_aside(out) as aside:
            save_dictionary(dictionary, aside, _sites(dictionary) | metadata, layout)
    return out


def _sites(dictionary: Dictionary) -> dict[str, Any]:
    """The metadata that names the site that is read and the one that is written, if it is so
    simple."""
    wiring = dictionary.wiring
    if len(wiring.reads) > 1 or len(wiring.writes) > 1:
        return {}
    (reads,), (writes,) = wiring.reads, wiring.writes
    found = {} if reads.hook_name == UNNAMED else hook_of(reads.hook_name)
    if writes not in (reads, Site(UNNAMED_OUT, writes.width)):
        found["hook_name_out"] = writes.hook_name
    return found


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already and not empty: choose another --out")
