"""Publishing a dictionary in a model repository of the Hub, with a card that says what it is."""

from collections.abc import Collection, Mapping
from pathlib import Path

from tqdm import tqdm

from rkstore.dictionaries.disk import layout_of, load_dictionary
from rkstore.dictionaries.hub.card import card, mark
from rkstore.dictionaries.hub.evaluations import evaluations_of
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.errors import BadInput
from rkstore.store.files import FileRecord, named, sha256
from rkstore.store.places.hub import repository_of
from rkstore.store.places.moved import Moved
from rkstore.store.writing.hub import CARD, HubDestination


def push(
    directory: str | Path,
    url: str,
    *,
    layout: str | None = None,
    evaluation: str | Path | None = None,
    license: str | None = None,
    message: str | None = None,
    private: bool = True,
    token: str | None = None,
) -> Moved:
    """Copy the files of a dictionary to the Hub as they are, and a card, in one commit.

    Files that are there already stay unchanged; those of the same name are replaced. Nothing but
    the dictionary is copied: no state of a training.

    Args:
        url: ``hf://USER/NAME``, with ``@BRANCH`` and a directory if wanted.
        layout: which program wrote it, one of ``LAYOUTS``; None if its files say so.
        evaluation: a ``results.json`` of ``rkstore evaluate`` for the card; by default the record
            in the directory, ``evaluation/results.json``.
        license: as the Hub names it; the card says that it is unknown if None.
        message: of the commit.
        private: whether a repository that is created is private.
        token: that of ``hf auth login`` or ``$HF_TOKEN`` if None.

    Raises:
        BadInput: it is no dictionary, the URL no repository of models, the token may not write
            there, or another dictionary is in that directory.
        RkstoreError: the connection failed; run again, it continues.
    """
    root = named(directory)
    location = HubDestination(
        url, "model", token=token, private=private, message=message or f"{root.name} (rkstore)"
    )
    kind = layout_of(root, layout)
    dictionary, metadata = load_dictionary(root, kind.name)
    names = kind.files_of(path.name for path in root.iterdir() if path.is_file())
    files = {name: FileRecord((root / name).stat().st_size, sha256(root / name)) for name in names}
    digests = {record.sha256 for record in files.values()}
    place = repository_of(url)
    assert place is not None  # or it is refused above
    text = card(
        dictionary,
        metadata,
        place,
        layout=kind.name,
        files=files,
        license=license,
        results=evaluations_of(root, digests, evaluation),
    )
    with location.writing(place.name) as found:
        sent = _send(location, root, files, found)
        if place.under and not location.has_bytes(CARD, text.encode()):
            location.put_bytes(CARD, text.encode())
        location.put_card(text, mark(place))
        location.check_written()
    return Moved(len(sent), sum(sent), len(files) - len(sent))


def _send(
    location: HubDestination, root: Path, files: Mapping[str, FileRecord], found: set[str]
) -> list[int]:
    """Send the files that are not there as they are here, and return the bytes of each.

    Raises:
        BadInput: another dictionary is there.
    """
    _check_free(location.url, found, files)
    missing = {
        name: record.bytes
        for name, record in files.items()
        if name not in found or not location.has(name, record, root / name)
    }
    total = sum(missing.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None) as bar:
        for name, size in missing.items():
            location.put(name, root / name)
            bar.update(size)
    return list(missing.values())


def _check_free(url: str, found: set[str], files: Collection[str]) -> None:
    """Raise BadInput if a file there would be read together with those of the dictionary."""
    there = [name for name in found if "/" not in name]
    others = {name for kind in LAYOUTS.values() for name in kind.fitting(there)} - set(files)
    if others:
        raise BadInput(
            f"{url} has {min(others)}, which is of another dictionary: give another directory, as "
            "in hf://USER/NAME/DIRECTORY, or remove it there"
        )
