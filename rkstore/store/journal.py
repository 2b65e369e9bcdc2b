"""The shards recorded so far (``shards.jsonl``).

The journal grows by one line a shard; a shard exists when its line does. Each line carries the
hash of the line before it, the first one the fingerprint of the manifest, so a line that was
changed, lost or taken from another store is detected.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from rkstore.errors import DamagedStore
from rkstore.store.files import JOURNAL, LARGEST_JOURNAL, FileRecord
from rkstore.store.jsontext import canonical
from rkstore.store.manifest import Manifest

HEAD = b'{"chain":"'

# What is measured of a file, a size that it can have and its digest; or of a site, a number as
# Python writes one.
MEASURED = re.compile(
    rb':(?:\{"bytes":(?:0|[1-9][0-9]{0,17}),"sha256":"[0-9a-f]{64}"\}'
    rb"|([0-9]+(?:\.[0-9]+(?:e[+-][0-9]+)?|e[+-][0-9]+)))"
)


@dataclass(frozen=True)
class ShardRecord:
    """One line of the journal: a shard, its files, and its codec error."""

    shard: int
    files: dict[str, FileRecord]
    """By path."""
    squared_error: dict[str, float]
    """By site: sum of (stored value - value)² over the rows of the shard that are not massive."""
    massive_error: dict[str, float] | None
    """The same over the massive rows. None in schema 1, where the other is over all rows."""
    chain: str = ""
    """SHA-256 of the previous line's chain followed by this line without its own. Empty until the
    shard is recorded: only then is it known which line comes before."""

    def to_line(self) -> bytes:
        return (canonical(self._as_dict() | {"chain": self.chain}) + "\n").encode()

    def _as_dict(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "files": {path: vars(record) for path, record in self.files.items()},
            "squared_error": self.squared_error,
            **({} if self.massive_error is None else {"massive_error": self.massive_error}),
        }

    @classmethod
    def following(
        cls,
        previous: str,
        shard: int,
        files: dict[str, FileRecord],
        squared_error: dict[str, float],
        massive_error: dict[str, float] | None,
    ) -> "ShardRecord":
        """The record that follows the one whose chain is ``previous``."""
        return cls(shard, files, squared_error, massive_error).after(previous)

    def after(self, previous: str) -> "ShardRecord":
        """The same record as it follows the one whose chain is ``previous``."""
        text = previous + canonical(self._as_dict())
        return replace(self, chain=hashlib.sha256(text.encode()).hexdigest())


class _Lines:
    """What each line of a store's journal must be, besides its chain and what was measured.

    Comparing the text is faster than parsing it, and nothing in it has a second way to be said.
    """

    def __init__(self, manifest: Manifest) -> None:
        names = sorted(manifest.hook_names)
        # In any shard they are in the order of the first: they differ before the number.
        patterns = sorted(manifest.path_patterns(), key=lambda pattern: pattern % 0)
        self._files, self._errors = len(patterns), len(names) * min(manifest.schema, 2)
        errors = "{" + ",".join(f'"{name}"' for name in names) + "}"
        massive = f',"massive_error":{errors}' if manifest.schema > 1 else ""
        files = ",".join(f'"{pattern}"' for pattern in patterns)
        rest = f'","files":{{{files}}}{massive},"shard":%d,"squared_error":{errors}}}'
        self._rest, self._unmeasured = rest.encode(), [None] * self._files

    def longest(self, shards: int) -> int:
        """At least the bytes of the longest line in a store of that many shards."""
        numbers = (self._files + 1) * len(str(shards))
        return 200 + len(self._rest) + numbers + 110 * self._files + 30 * self._errors

    def fit(self, shard: int, rest: bytes) -> bool:
        """Whether this, behind its chain, may be the rest of the line of that shard."""
        pieces, errors = MEASURED.split(rest), 2 * self._files + 1
        return (
            b"".join(pieces[::2]) == self._rest % ((shard,) * (self._files + 1))
            and pieces[1:errors:2] == self._unmeasured
            and all(text and repr(float(text)).encode() == text for text in pieces[errors::2])
        )


class Journal(Sequence[ShardRecord]):
    """The records of a journal whose chain was checked; each is parsed when it is first asked for.

    Parsing all of them would take longer than reading what they record. A line that its writer
    cannot have written raises DamagedStore then: its chain was forged.
    """

    def __init__(
        self, manifest: Manifest, raw: bytes, ends: Sequence[int], path: str, first: int = 0
    ) -> None:
        """Of lines that end before these places, one behind another.

        Args:
            first: the shard of the first line.
        """
        self._lines, self._raw, self._ends, self._path = _Lines(manifest), raw, ends, path
        self._first = first
        self._parsed: dict[int, ShardRecord] = {}

    @property
    def raw(self) -> "bytes":
        """All lines together, as they are in the file."""
        return self._raw[: self.bytes]

    @property
    def bytes(self) -> int:
        """Of all lines together."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> ShardRecord: ...
    @overload
    def __getitem__(self, at: slice) -> list[ShardRecord]: ...
    def __getitem__(self, at: int | slice) -> ShardRecord | list[ShardRecord]:
        if isinstance(at, slice):
            return [self[line] for line in range(*at.indices(len(self)))]
        line = range(len(self))[at]
        if line not in self._parsed:
            self._parsed[line] = self._record(line)
        return self._parsed[line]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _record(self, at: int) -> ShardRecord:
        line = self._raw[self._ends[at - 1] if at else 0 : self._ends[at] - 1]
        shard = self._first + at
        # The paths follow from the manifest: none can lead anywhere else.
        if not line.startswith(HEAD) or not self._lines.fit(shard, line[len(HEAD) + 64 :]):
            raise DamagedStore(f"line {at + 1} of {self._path} is not the record of its shard")
        stated = json.loads(line)
        files = {path: FileRecord(f["bytes"], f["sha256"]) for path, f in stated["files"].items()}
        errors = stated["squared_error"], stated.get("massive_error")
        return ShardRecord(shard, files, *errors, stated["chain"])


def largest_journal(manifest: Manifest) -> int:
    """More bytes than a writer of that store puts in its journal, but no more than any may have.

    What comes from a stranger, and is larger, is not read.
    """
    return min(needed_journal(manifest), LARGEST_JOURNAL)


def needed_journal(manifest: Manifest) -> int:
    """At least the bytes that the journal of the finished store has."""
    return _Lines(manifest).longest(manifest.shards) * manifest.shards + 2**20


def parse_journal(
    raw: bytes,
    manifest: Manifest,
    where: str,
    *,
    shards: range | None = None,
    chain: str | None = None,
) -> Journal:
    """The records of a ``shards.jsonl``, as far as it is complete.

    A last line without a newline was left by a killed writer and is ignored.

    Args:
        raw: the bytes of the file.
        where: directory or URL of the store, for errors.
        shards: that it may list; by default, all of the store.
        chain: what its first line follows; by default, the fingerprint of the manifest.

    Raises:
        DamagedStore: a line was changed, or belongs to another store.
    """
    path = f"{where}/{JOURNAL}"
    if len(raw) > (most := largest_journal(manifest)):
        raise DamagedStore(f"{path} is larger than the {most:,} bytes of a journal of its store")
    ends = array("q")
    shards = range(manifest.shards) if shards is None else shards
    before, start = (manifest.fingerprint if chain is None else chain).encode(), 0
    while stop := raw.find(b"\n", start) + 1:
        at = start + len(HEAD)
        stated, rest = raw[at : at + 64], raw[at + 66 : stop - 1]
        if hashlib.sha256(before + b"{" + rest).hexdigest().encode() != stated:
            raise DamagedStore(
                f"line {len(ends) + 1} of {path} was changed or belongs to another store: "
                "restore the file from a copy, or harvest again"
            )
        if len(ends) >= len(shards):
            raise DamagedStore(f"{path} lists more than the {len(shards)} possible shards")
        ends.append(stop)
        before, start = stated, stop
    return Journal(manifest, raw, ends, path, shards.start)
