"""What a store at a URL says of itself, and whether it is the one that is here."""

from dataclasses import dataclass

from rkstore.errors import BadInput
from rkstore.store.files import JOURNAL, LARGEST_JOURNAL, LARGEST_MANIFEST, MANIFEST, PART
from rkstore.store.journal import ShardRecord, parse_journal
from rkstore.store.manifest import Manifest, parse_manifest
from rkstore.store.part import Part, parse_part, whole
from rkstore.store.places.url import Location, NotThere


@dataclass(frozen=True)
class Listed:
    """What a store at a URL says of itself."""

    manifest: Manifest
    records: list[ShardRecord]
    part: Part | None

    @property
    def held(self) -> Part:
        """What of the store is there."""
        return whole(self.manifest, self.records) if self.part is None else self.part


def read_listed(location: Location) -> Listed:
    """Read and check manifest, journal and ``part.json`` at a URL.

    Raises:
        BadInput: there is no store, or it needs a newer rkstore.
        DamagedStore: one of them is not what rkstore wrote.
    """
    try:
        raw = location.read(MANIFEST, LARGEST_MANIFEST)
    except NotThere as error:
        raise BadInput(f"there is no store at {location.url}: {error.sentence}") from None
    manifest = parse_manifest(raw, location.url)
    journal = location.read_optional(JOURNAL, LARGEST_JOURNAL)
    records = parse_journal(journal or b"", manifest, location.url)
    stated = location.read_optional(PART, LARGEST_MANIFEST)
    part = None if stated is None else parse_part(stated, manifest, records, location.url)
    return Listed(manifest, records, part)


def check_same(there: Manifest, here: Manifest, url: str, root: str) -> None:
    if there.fingerprint != here.fingerprint:
        raise BadInput(
            f"{url} is another store than {root} ({there.fingerprint}, not {here.fingerprint}; "
            f"{'; '.join(here.differences(there)[:3])})"
        )


def check_one_history(
    here: list[ShardRecord], there: list[ShardRecord], root: str, url: str
) -> None:
    """Raise BadInput unless one journal begins with the other."""
    for mine, theirs in zip(here, there, strict=False):
        if mine.chain != theirs.chain:
            raise BadInput(
                f"shard {mine.shard} at {url} was written by another run than that of {root}: "
                "the two cannot be one store"
            )
