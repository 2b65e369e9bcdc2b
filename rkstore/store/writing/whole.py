"""A whole store, shard by shard: what a harvest, an import and a planted store have in common."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from rkstore.store.codecs import codec_named
from rkstore.store.formats import compression_for
from rkstore.store.journal import ShardRecord
from rkstore.store.manifest import CHUNK_ROWS, Manifest, largest_divisor
from rkstore.store.piece import Whole
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.base import Writer
from rkstore.store.writing.encoder import ShardEncoder
from rkstore.store.writing.writer import StoreWriter

# Shards that are written while another is filled: hashing and syncing one takes as long as a model
# on an accelerator needs for two.
WRITTEN_AT_ONCE = 3

Advance = Callable[[int], object]
"""Called with the number of rows that were added, for the progress bar."""


class Choices(Protocol):
    """How numbers become files: options of every command that writes a store."""

    @property
    def codec(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def compression(self) -> str: ...
    @property
    def shard_rows(self) -> int: ...


def manifest_of(
    chosen: Choices, *, rows: int, context_size: int, sites: tuple[Site, ...], **more: Any
) -> Manifest:
    """The manifest of a store that is to be written; shards are whole blocks.

    Args:
        more: other fields of the manifest.
    """
    shard_rows = max(1, round(chosen.shard_rows / context_size)) * context_size
    return Manifest(
        rows=rows,
        context_size=context_size,
        shard_rows=shard_rows,
        chunk_rows=largest_divisor(shard_rows, CHUNK_ROWS),
        codec=chosen.codec,
        format=chosen.format,
        compression=compression_for(
            chosen.format, codec_named(chosen.codec).dtype, chosen.compression
        ),
        sites=sites,
        **more,
    )


def write_store(
    out: Path,
    manifest: Manifest,
    fill: Callable[[ShardEncoder, Advance], None],
    *,
    shown: str,
    files: Mapping[str, bytes] | None = None,
    on_open: Callable[[], object] = lambda: None,
    on_shard: Callable[[int], object] = lambda _: None,
) -> Store:
    """Write the missing shards and return the store.

    Args:
        fill: adds all rows of a shard to its encoder.
        shown: what the progress bar is called.
        files: the content of ``manifest.files``.
        on_open: called once the directory is known to be right.
        on_shard: called with the number of each shard once it is recorded.

    Raises:
        BadInput: the directory holds something else, or rows cannot be stored.
        RkstoreError: the disk is full; what was recorded before is intact.
    """
    with writer_at(out, manifest, files) as writer, rows_bar(writer, shown) as advance:
        on_open()
        for shard in fill_missing(writer, lambda encoder: fill(encoder, advance)):
            on_shard(shard)
    return Store(out)


def writer_at(
    out: str | Path, whole: Manifest | Whole, files: Mapping[str, bytes] | None = None
) -> Writer:
    """A writer of a store, or a piece of one, in a directory or at a URL.

    Args:
        files: the content of ``manifest.files``, by path.

    Raises:
        BadInput: something else is there, or somebody else writes there.
        RkstoreError: it cannot be written to.
    """
    if "://" in str(out):
        # URLs need libraries that a directory does not.
        from rkstore.store.writing.remote import RemoteWriter

        return RemoteWriter(str(out), whole, files)
    return StoreWriter(out, whole, files)


@contextmanager
def rows_bar(writer: Writer, shown: str, unit: str = "row") -> Iterator[Advance]:
    """A progress bar over the rows that a writer is to have; yields what advances it."""
    first, last = writer.whole.shards.start, writer.whole.shards.stop
    begun, done, total = map(writer.manifest.rows_recorded, (first, writer.next_shard, last))
    with tqdm(
        total=total - begun,
        initial=done - begun,
        unit=unit,
        unit_scale=True,
        desc=shown,
        disable=None,
    ) as bar:
        yield bar.update


def fill_missing(
    writer: Writer, fill: Callable[[ShardEncoder], object], *, ahead: bool = False
) -> Generator[int, None, None]:
    """Write the missing shards one after another; yields each once it is recorded.

    Args:
        fill: adds all rows of a shard to its encoder.
        ahead: whether a shard is filled while those before it are written, which takes the memory
            of four.
    """
    pending: deque[Future[int]] = deque()

    def record(made: Future[ShardRecord]) -> int:
        writer.record(made.result())
        return made.result().shard

    with ThreadPoolExecutor(1) as recording, ThreadPoolExecutor(WRITTEN_AT_ONCE) as writing:
        for number in writer.missing:
            shard = writer.begin_shard(number)
            fill(shard)
            if ahead:
                pending.append(recording.submit(record, writing.submit(writer.make, shard)))
            else:
                writer.finish_shard(shard)
                yield number
            while len(pending) >= WRITTEN_AT_ONCE:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
