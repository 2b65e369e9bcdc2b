"""Writing a store, one shard at a time, so that a kill at any instant loses one shard at most.

Each file is written aside, synced and renamed into place; only then is the shard's
line appended to the journal, and only that line makes the shard exist. Whoever
opens the directory again finds whole shards, and goes on behind the last of them.
"""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from safetensors.numpy import save

from rkstore.codecs import Encoded, codec_named
from rkstore.errors import BadInput, RkstoreError
from rkstore.formats import ArraySpec, format_named
from rkstore.lock import let_go, take_lock
from rkstore.manifest import (
    COLUMNS,
    JOURNAL,
    MANIFEST,
    FileRecord,
    Manifest,
    ShardRecord,
    check_manifest,
    inside,
)
from rkstore.statistics import Statistics
from rkstore.store import ASIDE, LOCK, Store, sha256


@dataclass
class _Written:
    """Files that wait aside, by the path they are for, and what was learned writing them."""

    files: dict[str, FileRecord] = field(default_factory=dict)
    squared_error: float = 0.0
    statistics: Statistics | None = None


class StoreWriter:
    """Creates a store or continues one. Use as a context manager: it holds the store's lock."""

    def __init__(self, root: str | Path, manifest: Manifest) -> None:
        """Prepare the directory for the shards of that manifest.

        Raises:
            BadInput: the directory holds something else, a store of another
                configuration, or another process is writing to it.
        """
        try:
            check_manifest(manifest)
        except ValueError as error:
            raise BadInput(f"there can be no such store: {error}") from None
        self.root, self.manifest = Path(root), manifest
        self._codec, self._format = codec_named(manifest.codec), format_named(manifest.format)
        self._lock: BinaryIO | None = None
        with DiskErrors(self.root):
            existing = self._claim()
        self.records = existing.records if existing else []

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Clear away what is unfinished and let go of the lock."""
        if self._lock is not None:
            shutil.rmtree(self.root / ASIDE, ignore_errors=True)
            let_go(self._lock, self.root)
            self._lock = None

    @property
    def next_shard(self) -> int:
        """The first shard that is not recorded yet."""
        return len(self.records)

    def write_shard(self, values: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> None:
        """Write and record the next shard.

        Args:
            values: for each site, float32 ``(rows of the shard, d_in)``.
            columns: for each column, integers ``(rows of the shard,)``.

        Raises:
            BadInput: a wrong width or number of rows, a value that is not finite or that
                the codec cannot hold; names site and row. Nothing was written.
            RkstoreError: the disk is full or failed; what was recorded before is intact.
        """
        first, last = self.manifest.rows_of_shard(self.next_shard)
        names = self.manifest.hook_names
        missing = [n for n in names if n not in values] + [n for n in COLUMNS if n not in columns]
        if missing:
            raise BadInput(f"the shard lacks {', '.join(missing)}")
        for name in names:
            self._check(name, values[name], first, last)
        for name in COLUMNS:
            if columns[name].shape != (last - first,):
                raise BadInput(f"{name} has shape {columns[name].shape}, not ({last - first},)")
        with DiskErrors(self.root), ThreadPoolExecutor(os.cpu_count()) as pool:
            sites = pool.map(lambda name: self._write_site(name, values[name]), names)
            self._record(dict(zip(names, sites, strict=True)), self._write_columns(columns))

    def _claim(self) -> Store | None:
        """Lock the directory; return the store that is already in it, if one is."""
        if self.root.exists() and not self.root.is_dir():
            raise BadInput(f"{self.root} is a file: choose another --out")
        self.root.mkdir(parents=True, exist_ok=True)
        others = [p.name for p in self.root.iterdir() if p.name not in (LOCK, ASIDE)]
        if others and MANIFEST not in others:
            raise BadInput(
                f"{self.root} is not empty and holds no store ({sorted(others)[0]} is there): "
                "choose another --out"
            )
        self._lock = take_lock(self.root)
        try:
            shutil.rmtree(self.root / ASIDE, ignore_errors=True)
            if not others:
                self._set_aside(MANIFEST, self.manifest.to_bytes())
                self._into_place(MANIFEST)
                return None
            store = Store(self.root)
            if store.part is not None:
                raise BadInput(
                    f"{self.root} is a part of a store: complete it with "
                    f"'rkstore pull URL --out {self.root}', or choose another --out"
                )
            different = self.manifest.differences(store.manifest)
            if different:
                raise BadInput(
                    f"{self.root} holds a store of another configuration "
                    f"({'; '.join(different[:3])}): choose another --out, or remove it first"
                )
            self._settle(store.records)
            return store
        except BaseException:
            self.close()
            raise

    def _settle(self, records: list[ShardRecord]) -> None:
        """Bring what is derived from the journal in line with it after a kill."""
        self._trim_journal(records)
        if records:
            for path in self._metadata_aside(len(records)):
                self._into_place(path)

    def _trim_journal(self, records: list[ShardRecord]) -> None:
        """Cut off a line that was never finished."""
        journal = self.root / JOURNAL
        if journal.exists():
            whole = sum(len(record.to_line()) for record in records)
            if journal.stat().st_size > whole:
                os.truncate(journal, whole)

    def _check(self, name: str, x: np.ndarray, first: int, last: int) -> None:
        expected = (last - first, self.manifest.width(name))
        if x.shape != expected:
            raise BadInput(
                f"{name}: got activations of shape {x.shape}, expected {expected} "
                f"({expected[1]} wide, rows {first}:{last})"
            )
        finite = np.isfinite(x)
        if not finite.all():
            row, dimension = (int(i) for i in np.argwhere(~finite)[0])
            raise BadInput(
                f"{name}: row {first + row} has {x[row, dimension]} in dimension {dimension}: "
                "activations must be finite; try --dtype float32"
            )

    def _write_site(self, name: str, x: np.ndarray) -> _Written:
        """Encode and write one site's part of the shard."""
        specs = self.manifest.specs(name)
        values = np.empty(x.shape, self._codec.dtype)
        sides: dict[str, list[np.ndarray]] = {side: [] for side in self._codec.side}
        written = _Written()
        for start in range(0, len(x), self.manifest.chunk_rows):
            rows = slice(start, start + self.manifest.chunk_rows)
            encoded = self._encode(name, x[rows], start)
            values[rows] = encoded.values
            for side in sides:
                sides[side].append(encoded.side[side])
            error = self._codec.decode(encoded) - x[rows]
            written.squared_error += float(np.einsum("nd,nd->", error, error, dtype=np.float64))
            of_chunk = Statistics.of(x[rows])
            merged = written.statistics.merge(of_chunk) if written.statistics else of_chunk
            written.statistics = merged
        assert written.statistics is not None
        path = self.manifest.statistics_path(name, self.next_shard)
        self._aside(path).write_bytes(save(written.statistics.as_arrays()))
        written.files[path] = self._synced(path)
        written.files |= self._write_array(specs[""], values)
        for side, vectors in sides.items():
            written.files |= self._write_array(specs[side], np.stack(vectors))
        return written

    def _encode(self, name: str, x: np.ndarray, start: int) -> Encoded:
        try:
            return self._codec.encode(x)
        except BadInput as refused:
            largest = int(np.abs(x).max(axis=1).argmax())
            row = self.manifest.rows_of_shard(self.next_shard)[0] + start + largest
            raise BadInput(f"{name}, row {row}: {refused}") from None

    def _write_columns(self, columns: dict[str, np.ndarray]) -> dict[str, FileRecord]:
        files: dict[str, FileRecord] = {}
        for name, spec in self.manifest.column_specs().items():
            files |= self._write_array(spec, columns[name].astype(COLUMNS[name]))
        return files

    def _write_array(self, spec: ArraySpec, values: np.ndarray) -> dict[str, FileRecord]:
        path = self._format.shard_path(spec, self.next_shard)
        self._format.write_shard(self._aside(path), spec, values)
        return {path: self._synced(path)}

    def _record(self, written: dict[str, _Written], files: dict[str, FileRecord]) -> None:
        """Put the shard's files in place and append its line: from here on it exists."""
        for site in written.values():
            files = files | site.files
        record = ShardRecord.following(
            self.records[-1].chain if self.records else self.manifest.fingerprint,
            self.next_shard,
            files,
            {name: site.squared_error for name, site in written.items()},
        )
        derived = self._metadata_aside(len(self.records) + 1)
        # Everything is written and synced: what is left hardly takes room.
        for path in files:
            self._into_place(path)
        self._trim_journal(self.records)
        with (self.root / JOURNAL).open("ab") as journal:
            journal.write(record.to_line())
            journal.flush()
            os.fsync(journal.fileno())
        sync_directory(self.root)
        self.records.append(record)
        for path in derived:
            self._into_place(path)

    def _metadata_aside(self, shards: int) -> list[str]:
        """Have what is derived from that many shards wait aside, where it differs."""
        rows = self.manifest.rows_recorded(shards)
        metadata = self.manifest.metadata(rows)
        return [path for path, content in metadata.items() if self._set_aside(path, content)]

    def _set_aside(self, path: str, content: bytes) -> bool:
        """Have a small file wait aside, unless it is in place already; whether it waits."""
        target = inside(self.root, path)
        if target.is_file() and target.read_bytes() == content:
            return False
        self._aside(path).write_bytes(content)
        self._synced(path)
        return True

    def _waiting(self, path: str) -> Path:
        return inside(self.root, f"{ASIDE}/{path.replace('/', '__')}")

    def _aside(self, path: str) -> Path:
        """Where the file for that path waits; nothing is there yet."""
        aside = self._waiting(path)
        aside.parent.mkdir(exist_ok=True)
        aside.unlink(missing_ok=True)
        return aside

    def _synced(self, path: str) -> FileRecord:
        """Make the waiting file survive a power cut; return its size and digest."""
        aside = self._waiting(path)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        return FileRecord(aside.stat().st_size, sha256(aside))

    def _into_place(self, path: str) -> None:
        target = inside(self.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._waiting(path).replace(target)
        sync_directory(target.parent)


class DiskErrors:
    """Turns what the operating system says about a disk into a sentence with a way on."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        way_on = "make room" if full else "mend that"
        raise RkstoreError(
            f"cannot write to {self.root}: {reason}; the shards recorded so far are intact, "
            f"{way_on} and run the same command again"
        ) from None


def sync_directory(path: Path) -> None:
    """Make a rename in that directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
