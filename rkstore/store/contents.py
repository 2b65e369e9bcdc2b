"""The metadata of a store in a directory or at a URL: manifest, journal, ``part.json``."""

from collections.abc import Callable
from dataclasses import dataclass

from rkstore.errors import BadInput
from rkstore.store.checked import parse_manifest
from rkstore.store.files import JOURNAL, LARGEST_MANIFEST, MANIFEST, PART
from rkstore.store.journal import Journal, largest_journal, parse_journal
from rkstore.store.manifest import Manifest
from rkstore.store.part import Part, parse_part, whole
from rkstore.store.piece import read_piece

# A path and the maximum size of its file → its content, or None if there is no file.
Read = Callable[[str, int], bytes | None]


@dataclass(frozen=True)
class Contents:
    """The manifest, the recorded shards, and which part of them is here."""

    manifest: Manifest
    records: Journal
    part: Part | None
    """None if everything recorded is here."""

    @property
    def held(self) -> Part:
        """The part of the store that is here."""
        return whole(self.manifest, self.records) if self.part is None else self.part


def read_contents(read: Read, where: str) -> Contents:
    """Read and check the three metadata files of a store.

    Args:
        where: the directory or the URL, for errors.

    Raises:
        BadInput: there is no store, or it needs a newer rkstore.
        DamagedStore: one of the files is not what rkstore wrote.
        RkstoreError: the system or the server does not let one be read.
    """
    raw = read(MANIFEST, LARGEST_MANIFEST)
    if raw is None:
        if found := read_piece(read, where):
            raise BadInput(
                f"{where} is shards {found[0].span} of a harvest, no store: put it together with "
                "the others by 'rkstore merge'"
            )
        raise BadInput(
            f"there is no store at {where} (no {MANIFEST}): write one with 'rkstore harvest'"
        )
    manifest = parse_manifest(raw, where)
    records = parse_journal(read(JOURNAL, largest_journal(manifest)) or b"", manifest, where)
    stated = read(PART, LARGEST_MANIFEST)
    part = None if stated is None else parse_part(stated, manifest, records, where)
    return Contents(manifest, records, part)
