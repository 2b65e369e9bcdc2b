"""Writing a store, one shard at a time, so that a kill at any instant loses one shard at most.

Each file is written to a temporary name, synced and renamed into place; only then is the shard's
line appended to the journal, and only that line makes the shard exist. A writer that reopens the
directory finds complete shards, and continues after the last.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from rkstore.errors import BadInput, RkstoreError, size
from rkstore.store.apart import joined
from rkstore.store.checked import check_manifest
from rkstore.store.files import (
    ASIDE,
    JOURNAL,
    LARGEST_JOURNAL,
    LOCK,
    MANIFEST,
    FileRecord,
    aside,
    in_place,
    into_place,
    named,
    own,
    record_of,
    sha256,
    sync,
    writing,
)
from rkstore.store.formats import ArraySpec, format_named
from rkstore.store.journal import ShardRecord, needed_journal
from rkstore.store.manifest import Manifest
from rkstore.store.store import Store
from rkstore.store.writing.encoder import EncodedChunk, Floats, ShardEncoder, statistics_of
from rkstore.store.writing.lock import claim, unlock


@dataclass(frozen=True)
class Written:
    """A shard whose files are written and not yet in place."""

    shard: int
    files: dict[str, FileRecord]
    squared_error: dict[str, float]
    massive_error: dict[str, float]


class StoreWriter:
    """Creates a store or continues one. Use as a context manager: it holds the store's lock."""

    def __init__(
        self, root: str | Path, manifest: Manifest, files: Mapping[str, bytes] | None = None
    ) -> None:
        """Prepare the directory for the shards of that manifest.

        Args:
            files: the content of ``manifest.files``, by path; may be left out where they are in
                place.

        Raises:
            BadInput: the directory holds something else, a store of another
                configuration, or another process is writing to it; or a file is not the one of
                the manifest.
        """
        self._files = files or {}
        try:
            check_manifest(manifest)
            for file, content in self._files.items():
                if manifest.files.get(file) != record_of(content):
                    raise ValueError(f"{file} is not the file of its manifest")
        except ValueError as error:
            raise BadInput(f"such a store is not possible: {error}") from None
        self._codec, self._format = manifest.stored_codec, format_named(manifest.format)
        if needed_journal(manifest) > LARGEST_JOURNAL:
            raise BadInput(
                f"there can be no such store: the journal of {manifest.shards:,} shards could pass "
                f"{size(LARGEST_JOURNAL)}: give a larger --shard-rows"
            )
        self.root, self.manifest = named(root), manifest
        self._lock: BinaryIO | None = None
        self._made_root = False
        self._waiting: dict[str, Path] = {}
        """Files that are not in place yet, by their final path."""
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.next_shard = 0
        """The first shard that is not recorded yet."""
        self._chain, self._journal_bytes = manifest.fingerprint, 0
        with writing(self.root):
            self._claim()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(failed=kind is not None)

    def close(self) -> None:
        """Remove unfinished files and release the lock."""
        self._close(failed=False)

    def _close(self, *, failed: bool) -> None:
        """As :meth:`close`. After a failure before the first record, nothing is left behind."""
        self._pool.shutdown(cancel_futures=True)
        if self._lock is None:
            return
        shutil.rmtree(self.root / ASIDE, ignore_errors=True)
        nothing = failed and not self.next_shard
        if nothing:
            with suppress(OSError, RkstoreError):  # the first error is the one to report
                self._remove_unrecorded(self.manifest)
                own(self.root, MANIFEST).unlink(missing_ok=True)
        unlock(self._lock, self.root)
        self._lock = None
        if nothing and self._made_root:
            with suppress(OSError):
                self.root.rmdir()

    def begin_shard(self, number: int | None = None) -> ShardEncoder:
        """An encoder for the rows of a shard, to be given to :meth:`finish_shard`.

        Args:
            number: of the shard; the next one by default.
        """
        return ShardEncoder(
            self.manifest, self.next_shard if number is None else number, self._pool
        )

    def finish_shard(self, shard: ShardEncoder) -> None:
        """Write and record a shard after all its rows were added.

        Raises:
            BadInput: rows are missing, or cannot be stored. Nothing was written.
            RkstoreError: the disk is full or failed; what was recorded before is intact.
        """
        self.record(self.write(shard))

    def write(self, shard: ShardEncoder) -> "Written":
        """The first half of :meth:`finish_shard`, which several shards may be in at once: its
        files, to temporary names."""
        chunks, columns = shard.finish()
        with writing(self.root):
            numbers = [shard.shard] * len(chunks)
            written = list(self._pool.map(self._write_site, numbers, chunks, chunks.values()))
            files = self._write_columns(shard.shard, columns)
            for of_site in written:
                files |= of_site
        squared = {name: sum(c.squared_error for c in cs) for name, cs in chunks.items()}
        massive = {name: sum(c.massive_error for c in cs) for name, cs in chunks.items()}
        return Written(shard.shard, files, squared, massive)

    def record(self, written: "Written") -> None:
        """The second half, in the order of the shards: put the files in place and append the
        shard's line. From here on it exists."""
        with writing(self.root):
            self._record(written)

    def write_shard(self, values: Mapping[str, Floats], columns: dict[str, np.ndarray]) -> None:
        """Write and record the next shard from all of its rows.

        Args:
            values: for each site, float32 ``(rows of the shard, d_in)``; see
                :meth:`ShardEncoder.add`.
            columns: for each column, integers ``(rows of the shard,)``.

        Raises:
            BadInput: a wrong width or number of rows, a value that is not finite or that
                the codec cannot hold; names site and row. Nothing was written.
            RkstoreError: the disk is full or failed; what was recorded before is intact.
        """
        shard = self.begin_shard()
        shard.add(values, columns)
        self.finish_shard(shard)

    def _claim(self) -> None:
        """Lock the directory, and begin or continue the store in it."""
        self._made_root = not self.root.exists()
        self._lock, begun = claim(self.root, {LOCK, ASIDE})
        try:
            shutil.rmtree(self.root / ASIDE, ignore_errors=True)
            if begun:
                self._continue(Store(self.root))
            else:
                self._begin()
        except BaseException:
            # Files that were there before are not ours to remove.
            self._close(failed=not begun)
            raise

    def _begin(self) -> None:
        files = self._files_aside()
        self._set_aside(MANIFEST, self.manifest.to_bytes())
        self._into_place(MANIFEST)
        for path in files:
            self._into_place(path)

    def _continue(self, store: Store) -> None:
        """Continue a store. One without shards may be replaced by another."""
        if store.part is not None:
            raise BadInput(
                f"{self.root} is a part of a store: complete it with "
                f"'rkstore pull URL --out {self.root}', or choose another --out"
            )
        different = self.manifest.differences(store.manifest)
        if different and not store.records:
            self._remove_unrecorded(store.manifest)
            self._begin()
            return
        if different:
            raise BadInput(
                f"{self.root} holds a store of another configuration "
                f"({'; '.join(different[:3])}): choose another --out, or remove it first"
            )
        if store.records:
            self.next_shard, self._chain = len(store.records), store.records[-1].chain
            self._journal_bytes = store.records.bytes
        self._settle()

    def _remove_unrecorded(self, manifest: Manifest) -> None:
        """Remove the files of an unrecorded first shard, and its directories."""
        derived = manifest.metadata(manifest.rows_recorded(1))
        for path in (JOURNAL, *manifest.shard_paths(0), *derived, *manifest.files):
            own(self.root, path).unlink(missing_ok=True)
            for parent in Path(path).parents[:-1]:
                with suppress(OSError):  # it is not empty, or was never made
                    (self.root / parent).rmdir()

    def _settle(self) -> None:
        """Bring files derived from the journal in line with it after a kill."""
        self._trim_journal()
        for path in self._files_aside():
            self._into_place(path)
        if self.next_shard:
            for path in self._metadata_aside(self.next_shard):
                self._into_place(path)

    def _trim_journal(self) -> None:
        """Cut off an unfinished line."""
        journal = own(self.root, JOURNAL)
        if journal.exists() and journal.stat().st_size > self._journal_bytes:
            os.truncate(journal, self._journal_bytes)

    def _write_site(
        self, shard: int, name: str, chunks: Sequence[EncodedChunk]
    ) -> dict[str, FileRecord]:
        """Write one site's part of the shard to temporary files."""
        specs = self.manifest.specs(name)
        path = self._format.shard_path(specs[""], shard)
        first, last = self.manifest.rows_of_shard(shard)
        data = [chunk.data for chunk in chunks]
        self._format.write_chunks(self._aside(path), specs[""], data, last - first)
        files = {path: self._synced(path)}
        path = self.manifest.statistics_path(name, shard)
        self._aside(path).write_bytes(statistics_of(chunks).to_bytes())
        files[path] = self._synced(path)
        for side in self._codec.side:  # of the shard: the same in every chunk
            files |= self._write_array(shard, specs[side], chunks[0].side[side][np.newaxis])
        apart = [chunk.apart for chunk in chunks if chunk.apart is not None]
        if self._codec.keeps_apart:
            path = self.manifest.apart_path(name, shard)
            self._aside(path).write_bytes(joined(apart).to_bytes())
            files[path] = self._synced(path)
        return files

    def _write_columns(self, shard: int, columns: dict[str, np.ndarray]) -> dict[str, FileRecord]:
        files: dict[str, FileRecord] = {}
        for name, spec in self.manifest.column_specs().items():
            files |= self._write_array(shard, spec, columns[name])
        return files

    def _write_array(
        self, shard: int, spec: ArraySpec, values: np.ndarray
    ) -> dict[str, FileRecord]:
        path = self._format.shard_path(spec, shard)
        self._format.write_shard(self._aside(path), spec, values)
        return {path: self._synced(path)}

    def _record(self, written: "Written") -> None:
        shard, files = written.shard, written.files
        if shard != self.next_shard:
            raise ValueError(f"shard {self.next_shard} is to be recorded before shard {shard}")
        record = ShardRecord.following(
            self._chain, shard, files, written.squared_error, written.massive_error
        )
        line, derived = record.to_line(), self._metadata_aside(shard + 1)
        # Everything is written and synced: what follows needs hardly any room.
        for path in files:
            self._into_place(path)
        self._trim_journal()
        with own(self.root, JOURNAL).open("ab") as journal:
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())
        sync(self.root)
        self.next_shard, self._chain = shard + 1, record.chain
        self._journal_bytes += len(line)
        for path in derived:
            self._into_place(path)

    def _files_aside(self) -> list[str]:
        """Write the files of the whole store that are not in place to temporary names."""
        missing = [p for p, f in self.manifest.files.items() if not in_place(self.root, p, f)]
        for path in missing:
            if path not in self._files:
                raise BadInput(f"{self.root} lacks {path}, and the writer was not given it")
            self._set_aside(path, self._files[path])
        return missing

    def _metadata_aside(self, shards: int) -> list[str]:
        """Write changed files derived from that many shards to temporary names."""
        rows = self.manifest.rows_recorded(shards)
        metadata = self.manifest.metadata(rows)
        return [path for path, content in metadata.items() if self._set_aside(path, content)]

    def _set_aside(self, path: str, content: bytes) -> bool:
        """Write a small temporary file unless it is in place already; return whether it was
        written.
        """
        target = own(self.root, path)
        if target.is_file() and target.read_bytes() == content:
            return False
        self._aside(path).write_bytes(content)
        self._synced(path)
        return True

    def _aside(self, path: str) -> Path:
        """The temporary path of a file until all of its shard is written."""
        waiting = self._waiting[path] = aside(self.root, path)
        return waiting

    def _synced(self, path: str) -> FileRecord:
        """Make the temporary file survive a power cut; return its size and digest."""
        waiting = self._waiting[path]
        sync(waiting)
        return FileRecord(waiting.stat().st_size, sha256(waiting))

    def _into_place(self, path: str) -> None:
        own(self.root, path)  # what is a link is not replaced
        del self._waiting[path]
        into_place(self.root, path)
