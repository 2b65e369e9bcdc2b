"""The shards recorded so far (``shards.jsonl``).

The journal grows by one line a shard; a shard exists when its line does. Each line carries the
hash of the line before it, the first one the fingerprint of the manifest, so a line that was
changed, lost or taken from another store is detected.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from rkstore.errors import DamagedStore
from rkstore.store.files import JOURNAL, LARGEST_JOURNAL, FileRecord
from rkstore.store.jsontext import canonical
from rkstore.store.manifest import Manifest

SHA256 = re.compile(r"[0-9a-f]{64}")


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
    chain: str
    """SHA-256 of the previous line's chain followed by this line without its own."""

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
        bare = cls(shard, files, squared_error, massive_error, chain="")
        text = previous + canonical(bare._as_dict())
        chain = hashlib.sha256(text.encode()).hexdigest()
        return cls(shard, files, squared_error, massive_error, chain)


def parse_journal(raw: bytes, manifest: Manifest, where: str) -> list[ShardRecord]:
    """The complete records of a ``shards.jsonl``.

    A last line without a newline was left by a killed writer and is ignored.

    Args:
        raw: the bytes of the file.
        where: directory or URL of the store, for errors.

    Raises:
        DamagedStore: a line was changed, or belongs to another store.
    """
    path = f"{where}/{JOURNAL}"
    if len(raw) > LARGEST_JOURNAL:
        raise DamagedStore(f"{path} is larger than {LARGEST_JOURNAL >> 20} MiB: not a journal")
    records: list[ShardRecord] = []
    chain = manifest.fingerprint
    for number, line in enumerate(raw.split(b"\n")[:-1]):
        try:
            record = _record(json.loads(line))
            expected = ShardRecord.following(
                chain, number, record.files, record.squared_error, record.massive_error
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DamagedStore(f"line {number + 1} of {path} is not a shard record") from None
        if record != expected or expected.to_line() != line + b"\n":
            raise DamagedStore(
                f"line {number + 1} of {path} was changed or belongs to another store: "
                "restore the file from a copy, or harvest again"
            )
        if number >= manifest.shards:
            raise DamagedStore(f"{path} lists more than the {manifest.shards} possible shards")
        # The paths follow from the manifest, so none can lead elsewhere.
        if record.files.keys() != set(manifest.shard_paths(number)):
            raise DamagedStore(f"line {number + 1} of {path} lists other files than its shard has")
        errors = [record.squared_error] + ([record.massive_error] if manifest.schema > 1 else [])
        if any(error is None or error.keys() != set(manifest.hook_names) for error in errors):
            raise DamagedStore(f"line {number + 1} of {path} lists other sites than the store has")
        records.append(record)
        chain = record.chain
    return records


def _record(document: dict[str, Any]) -> ShardRecord:
    """The record in a line. Nothing is converted: an invalid size is refused."""
    files = {path: FileRecord(f["bytes"], f["sha256"]) for path, f in document["files"].items()}
    for file in files.values():
        if type(file.bytes) is not int or not 0 <= file.bytes < 2**63:
            raise ValueError("bytes")
        if not SHA256.fullmatch(file.sha256):
            raise ValueError("sha256")
    errors: list[dict[str, float]] = [document["squared_error"], document.get("massive_error", {})]
    for error in (error for of_sites in errors for error in of_sites.values()):
        if type(error) is not float or not 0 <= error < math.inf:
            raise ValueError("squared_error")
    massive = errors[1] if "massive_error" in document else None
    return ShardRecord(document["shard"], files, errors[0], massive, document["chain"])
