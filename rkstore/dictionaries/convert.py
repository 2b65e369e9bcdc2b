"""A dictionary in one program's layout → the same in another's."""

from pathlib import Path
from typing import Any

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.disk import TRAINING, load_dictionary, save_dictionary
from rkstore.dictionaries.hub.evaluations import RECORD, USUAL, Result, evaluations_of
from rkstore.dictionaries.hub.fetch import local_copy, place_of
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.dictionaries.layouts.saelens_record import COUNTS, of_sites
from rkstore.dictionaries.layouts.tensors import read_object
from rkstore.dictionaries.settings import ConvertSettings
from rkstore.errors import BadInput
from rkstore.store.files import directory_aside, named, sha256, writing
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
    here = local_copy(source, settings.from_)
    dictionary, metadata = load_dictionary(
        here,
        settings.from_,
        hook_name=settings.hook_name,
        hook_name_out=settings.hook_name_out,
    )
    return write_new(dictionary, out, settings.to, _counts(here) | metadata)


def _counts(directory: Path) -> dict[str, Any]:
    """L0 and dead latents under SAELens' names, if they are on record: as they were evaluated,
    else as they were at the end of the training."""
    found: Result = {}
    if (directory / RECORD).is_file():
        digests = {sha256(file) for file in directory.iterdir() if file.is_file()}
        results = evaluations_of(directory, digests)
        found = next((result for result in results if result["kind"] == USUAL), {})
    if not found:
        try:
            found = dict(read_object(directory / TRAINING)["history"][-1])
        except (OSError, ValueError, LookupError, TypeError):
            return {}
    names = zip(COUNTS, ("l0", "dead"), strict=True)
    return {theirs: found[ours] for theirs, ours in names if found.get(ours) is not None}


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
            save_dictionary(dictionary, aside, metadata | _sites(dictionary), layout)
    return out


def _sites(dictionary: Dictionary) -> dict[str, Any]:
    """The metadata that names what is read and what is written, if that is one site each."""
    bank, *others = dictionary.wiring.banks
    if others or len(bank.reads) > 1 or len(bank.writes) > 1:
        return {}
    return of_sites(bank, transcodes=bank.reads != bank.writes)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already and not empty: choose another --out")
