"""A whole store, shard by shard: what a harvest, an import and a planted store have in common."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from rkstore.store.codecs import codec_named
from rkstore.store.formats import compression_for
from rkstore.store.manifest import CHUNK_ROWS, Manifest, largest_divisor
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.encoder import ShardEncoder
from rkstore.store.writing.writer import StoreWriter, Written

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
    unit: str = "row",
    files: Mapping[str, bytes] | None = None,
    on_open: Callable[[], object] = lambda: None,
    on_shard: Callable[[int], object] = lambda _: None,
    ahead: bool = False,
) -> Store:
    """Write the missing shards and return the store.

    Args:
        fill: adds all rows of a shard to its encoder.
        shown: what the progress bar is called.
        files: the content of ``manifest.files``.
        on_open: called once the directory is known to be right.
        on_shard: called with the number of each shard once it is recorded.
        ahead: whether a shard is filled while those before it are written, which takes the memory
            of four.

    Raises:
        BadInput: the directory holds something else, or rows cannot be stored.
        RkstoreError: the disk is full; what was recorded before is intact.
    """
    with (
        StoreWriter(out, manifest, files) as writer,
        ThreadPoolExecutor(1) as recording,
        ThreadPoolExecutor(WRITTEN_AT_ONCE) as writing,
    ):
        on_open()
        done, pending = manifest.rows_recorded(writer.next_shard), deque[Future[int]]()

        def record(written: Future[Written]) -> int:
            writer.record(written.result())
            return written.result().shard

        with tqdm(
            total=manifest.rows,
            initial=done,
            unit=unit,
            unit_scale=True,
            desc=shown,
            disable=None,
        ) as bar:
            for number in range(writer.next_shard, manifest.shards):
                shard = writer.begin_shard(number)
                fill(shard, bar.update)
                if ahead:
                    pending.append(recording.submit(record, writing.submit(writer.write, shard)))
                else:
                    writer.finish_shard(shard)
                    on_shard(number)
                while len(pending) >= WRITTEN_AT_ONCE:
                    on_shard(pending.popleft().result())
            while pending:
                on_shard(pending.popleft().result())
    return Store(out)
