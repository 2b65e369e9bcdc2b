"""A part of a store: some of its sites, and a range of its shards.

A part has the manifest and the journal of the whole; ``part.json`` says which of the files they
list are here. A directory without one is whole.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rkstore.errors import DamagedStore
from rkstore.store.files import LARGEST_MANIFEST, PART, FileRecord
from rkstore.store.journal import ShardRecord
from rkstore.store.manifest import Manifest


@dataclass(frozen=True)
class Part:
    """Which sites, in the order of the manifest, and which shards."""

    sites: tuple[str, ...]
    shards: range

    def __bool__(self) -> bool:
        return bool(self.sites) and bool(self.shards)

    def to_bytes(self) -> bytes:
        """The canonical text of ``part.json``."""
        stated = {"sites": list(self.sites), "shards": [self.shards.start, self.shards.stop]}
        return (json.dumps(stated, indent=2, allow_nan=False) + "\n").encode()

    def holds(self, other: "Part") -> bool:
        """Whether this part includes the other."""
        if not other:
            return True
        inside = self.shards.start <= other.shards.start and other.shards.stop <= self.shards.stop
        return bool(self) and inside and set(other.sites) <= set(self.sites)

    def spanning(self, other: "Part", manifest: Manifest) -> "Part":
        """The smallest part that contains both."""
        if not self or not other:
            return self or other
        names = {*self.sites, *other.sites}
        return Part(
            tuple(name for name in manifest.hook_names if name in names),
            range(
                min(self.shards.start, other.shards.start),
                max(self.shards.stop, other.shards.stop),
            ),
        )

    def files(self, manifest: Manifest, records: Sequence[ShardRecord]) -> dict[str, FileRecord]:
        """What was recorded of each of its files, by path: of the whole store, then by shard.

        Every part has the files of the whole store; one without sites has none.
        """
        patterns = manifest.path_patterns(self.sites)
        of_all = dict(manifest.files) if self.sites else {}
        return of_all | {
            path: files[path]
            for shard in (self.shards if self else ())
            for files in [records[shard].files]
            for path in [pattern % shard for pattern in patterns]
        }

    def metadata(self, manifest: Manifest) -> dict[str, bytes]:
        """Files, by path, that let other tools open its arrays as far as its last row."""
        rows = manifest.rows_recorded(self.shards.stop)
        return manifest.metadata(rows, self.sites) if self else {}


NOTHING = Part((), range(0))


def whole(manifest: Manifest, records: Sequence[ShardRecord]) -> Part:
    """The part that is all there is."""
    return Part(tuple(manifest.hook_names), range(len(records)))


def parse_part(raw: bytes, manifest: Manifest, records: Sequence[ShardRecord], where: str) -> Part:
    """The part that a ``part.json`` states.

    Args:
        raw: the bytes of the file.
        where: directory or URL of the store, for errors.

    Raises:
        DamagedStore: it names what the store does not have.
    """
    try:
        if len(raw) > LARGEST_MANIFEST:
            raise ValueError
        stated = json.loads(raw)
        start, stop = stated["shards"]
        named = set(stated["sites"])
        names = tuple(name for name in manifest.hook_names if name in named)
        part = Part(names, range(start, stop))
        if part.to_bytes() != raw or not 0 <= start <= stop <= len(records):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedStore(f"{where}/{PART} does not name sites and shards of its store") from None
    return part
