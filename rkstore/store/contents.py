"""What a directory or a URL says of the store in it: manifest, journal and ``part.json``."""

from collections.abc import Callable
from dataclasses import dataclass

from rkstore.errors import BadInput
from rkstore.store.files import JOURNAL, LARGEST_MANIFEST, MANIFEST, PART
from rkstore.store.journal import Journal, largest_journal, parse_journal
from rkstore.store.manifest import Manifest, parse_manifest
from rkstore.store.part import Part, parse_part, whole

# A path and the most bytes that its file may have → its content, or None if there is no file.
Read = Callable[[str, int], bytes | None]


@dataclass(frozen=True)
class Contents:
    """What a store is, which of its shards are recorded, and which part of them is here."""

    manifest: Manifest
    records: Journal
    part: Part | None
    """None if all that is recorded is here."""

    @property
    def held(self) -> Part:
        """What of the store is here."""
        return whole(self.manifest, self.records) if self.part is None else self.part


def read_contents(read: Read, where: str) -> Contents:
    """Read and check the three files that say what is in a store.

    Args:
        where: the directory or the URL, for sentences.

    Raises:
        BadInput: there is no store, or it needs a newer rkstore.
        DamagedStore: one of the files is not what rkstore wrote.
        RkstoreError: the system or the server does not let one be read.
    """
    raw = read(MANIFEST, LARGEST_MANIFEST)
    if raw is None:
        raise BadInput(
            f"there is no store at {where} (no {MANIFEST}): write one with 'rkstore harvest'"
        )
    manifest = parse_manifest(raw, where)
    records = parse_journal(read(JOURNAL, largest_journal(manifest)) or b"", manifest, where)
    stated = read(PART, LARGEST_MANIFEST)
    part = None if stated is None else parse_part(stated, manifest, records, where)
    return Contents(manifest, records, part)
