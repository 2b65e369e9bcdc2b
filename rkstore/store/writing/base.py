"""What every writer does: it takes shards in order, and each exists once it is recorded."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from rkstore.errors import BadInput, size
from rkstore.store.checked import check_manifest
from rkstore.store.files import LARGEST_JOURNAL, record_of, writing
from rkstore.store.journal import ShardRecord, needed_journal
from rkstore.store.manifest import Manifest
from rkstore.store.piece import Whole
from rkstore.store.writing.encoder import Floats, ShardEncoder
from rkstore.store.writing.making import Attempts, make_shard


class Writer(ABC):
    """Writes a store, or a piece of one, shard by shard. Use as a context manager.

    A shard is made first, which changes nothing, here or by ``attempts`` in other processes; then
    it is recorded. Nobody else can write there meanwhile.
    """

    where: str
    """The directory or the URL."""
    disk: Path
    """The local directory where files wait until they are recorded."""

    def __init__(self, whole: Whole | Manifest, files: Mapping[str, bytes] | None) -> None:
        """Check what is to be written.

        Args:
            files: the content of ``manifest.files``, by path.

        Raises:
            BadInput: such a store is not possible, or a file is not the one of its manifest.
        """
        self.whole = Whole(whole) if isinstance(whole, Manifest) else whole
        self.manifest = manifest = self.whole.manifest
        self._files = files or {}
        try:
            check_manifest(manifest)
            for file, content in self._files.items():
                if manifest.files.get(file) != record_of(content):
                    raise ValueError(f"{file} is not the file of its manifest")
        except ValueError as error:
            raise BadInput(f"such a store is not possible: {error}") from None
        if needed_journal(manifest) > LARGEST_JOURNAL:
            raise BadInput(
                f"there can be no such store: the journal of {manifest.shards:,} shards could pass "
                f"{size(LARGEST_JOURNAL)}: give a larger --shard-rows"
            )
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self.next_shard = self.whole.shards.start
        """The first shard that is not recorded yet."""
        self._chain = self.whole.chain

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(failed=kind is not None)

    def close(self) -> None:
        """Remove unfinished files and let others write."""
        self._close(failed=False)

    @property
    def missing(self) -> range:
        """The shards that are not recorded yet."""
        return range(self.next_shard, self.whole.shards.stop)

    def begin_shard(self, number: int | None = None) -> ShardEncoder:
        """An encoder for the rows of a shard, to be given to :meth:`finish_shard`.

        Args:
            number: of the shard; the next one by default.
        """
        return ShardEncoder(
            self.manifest, self.next_shard if number is None else number, self._pool
        )

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

    def finish_shard(self, shard: ShardEncoder) -> None:
        """Write and record a shard after all its rows were added.

        Raises:
            BadInput: rows are missing, or cannot be stored. Nothing was written.
            RkstoreError: the disk is full or failed; what was recorded before is intact.
        """
        self.record(self.make(shard))

    def make(self, shard: ShardEncoder) -> ShardRecord:
        """The first half of :meth:`finish_shard`, which several shards may be in at once: its
        files, as :meth:`aside`, and its record without its chain.
        """
        with writing(self.disk):
            return make_shard(self.manifest, shard, self.aside, self._pool)

    def check_next(self, made: ShardRecord) -> None:
        """Raise BadInput unless that shard is the next one, and asked for."""
        if made.shard not in self.missing[:1]:
            raise BadInput(f"{self.where} takes shard {self.next_shard} next, not {made.shard}")

    @abstractmethod
    def aside(self, path: str) -> Path:
        """Where a file of a shard is written until it is recorded; nothing is there yet."""

    @abstractmethod
    def attempts(self) -> Attempts:
        """Where other processes can make shards, until this writer is closed."""

    @abstractmethod
    def record(self, made: ShardRecord, attempt: str = "") -> None:
        """Put the files of the next shard in place and record it: from here on it exists.

        Args:
            made: its record, without its chain.
            attempt: which of the :meth:`attempts` made it; none if its files are :meth:`aside`.

        Raises:
            BadInput: it is not the next shard.
            RkstoreError: it could not be written; what was recorded before is intact.
        """

    @abstractmethod
    def _close(self, *, failed: bool) -> None:
        """As :meth:`close`. After a failure before the first record, nothing is left behind."""
