"""The cost of a harvest, measured on a small sample before anything is written.

Time, bytes and memory are for this machine and this text; the sample is spread over the text,
because its beginning may compress differently.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest.run import Harvest
from rkstore.store.codecs import codec_named
from rkstore.store.files import MANIFEST, read_small
from rkstore.store.formats import compression_for
from rkstore.store.piece import read_piece
from rkstore.store.store import Store
from rkstore.store.writing.encoder import Floats
from rkstore.store.writing.writer import StoreWriter

# Blocks in the sample: enough for whole chunks, few enough to take a second or two.
SAMPLE_BLOCKS = 8

# Of a value that is encoded on an accelerator: three float32, two float64, and masks.
ENCODING_BYTES = 32

# An estimate is refused only if it exceeds the room by more than a sample's error.
MARGIN = 1.05


@dataclass(frozen=True)
class CodecCost:
    """The cost of storing a token with one codec."""

    codec: str
    bytes_per_token: float
    seconds_per_token: float
    """To encode, check and write, without the model."""
    read_seconds_per_token: float
    """To read all sites back, decoded."""


@dataclass(frozen=True)
class DeviceMemory:
    """What a harvest takes of the memory of an accelerator."""

    name: str
    needed_bytes: int
    """Peak of one batch: the model, what it computes, and what encoding it takes."""
    total_bytes: int


@dataclass(frozen=True)
class HarvestCost:
    """What a harvest needs, and what is available."""

    rows: int
    context_size: int
    widths: tuple[int, ...]
    """Of each site."""
    model_seconds_per_token: float
    costs: tuple[CodecCost, ...]
    """The requested codec comes first."""
    memory_bytes: int
    """Peak: two batches in float32, one stored shard, the model. With an accelerator: two batches
    and two shards, as they are stored. With several workers, of each of them."""
    free_bytes: float
    """Infinite at a URL."""
    written_bytes: int
    """Recorded by an earlier run, not written again."""
    paired: bool = False
    """Whether another store determines the tokens."""
    device: DeviceMemory | None = None
    """None without an accelerator."""
    engine: str = ""
    """Who makes the shards; nothing if it is this process."""
    shards: int = 1
    at_once: int = 1
    """Shards that are made at the same time."""

    @property
    def chosen(self) -> CodecCost:
        return self.costs[0]

    def bytes_of(self, cost: CodecCost) -> float:
        """Bytes of the finished store."""
        return self.rows * cost.bytes_per_token

    def seconds_of(self, cost: CodecCost) -> float:
        """Seconds of the whole harvest, if every worker is as fast as this process.

        A shard is not divided: what counts is the worker that makes the most of them.
        """
        rows = self.rows * self.shards_of_one / self.shards
        return rows * (self.model_seconds_per_token + cost.seconds_per_token)

    def reading_seconds_of(self, cost: CodecCost) -> float:
        """Seconds of reading the finished store once."""
        return self.rows * cost.read_seconds_per_token

    @property
    def shards_of_one(self) -> int:
        """The most shards that one worker makes, one after another."""
        return math.ceil(self.shards / self.at_once)

    @property
    def model_seconds(self) -> float:
        """Seconds of running the model once, in this process."""
        return self.rows * self.model_seconds_per_token

    def readings(self, cost: CodecCost) -> int | None:
        """How many times the store must be read to cost less than running the model each time.

        None if reading takes longer than the model: the store then saves no time on this machine,
        but is still reproducible and portable.
        """
        saved = self.model_seconds_per_token - cost.read_seconds_per_token
        if saved <= 0:
            return None
        return math.ceil((self.model_seconds_per_token + cost.seconds_per_token) / saved)

    @property
    def fits(self) -> bool:
        """Whether the disk has room for the store."""
        return self.bytes_of(self.chosen) <= (self.free_bytes + self.written_bytes) * MARGIN

    def check(self) -> None:
        """Raise RkstoreError if the store will not fit, and suggest what would."""
        if self.fits:
            return
        room = self.free_bytes + self.written_bytes
        needed = self.bytes_of(self.chosen)
        raise RkstoreError(
            f"the store needs {needed / 1e9:.3g} GB and {room / 1e9:.3g} GB are free: "
            f"{self._what_fits(room) or 'choose an --out with more space, or free some here'}"
        )

    def _what_fits(self, room: float) -> str:
        """Options that would fit into ``room`` bytes, as a sentence; empty if none is known."""
        # A harvest that was started in --out can only be finished with the same options.
        if self.written_bytes:
            return ""
        tokens = int(room / self.chosen.bytes_per_token) // self.context_size * self.context_size
        # Counted with the largest width: then any sites fit.
        sites = int(room / self.bytes_of(self.chosen) * sum(self.widths) / max(self.widths))
        codecs = [cost.codec for cost in self.costs[1:] if self.bytes_of(cost) <= room]
        options = [
            *([f"--tokens {tokens}"] if tokens and not self.paired else []),
            *([f"--codec {codecs[0]}"] if codecs else []),
            *([f"{sites} of the {len(self.widths)} sites (--layers, --hook)"] if sites else []),
        ]
        return f"{' or '.join(options)} would fit" if options else ""


def plan(harvest: Harvest, codecs: Sequence[str] = ()) -> HarvestCost:
    """Measure a harvest on a few of its blocks.

    Args:
        codecs: codecs to measure besides the requested one.
    """
    manifest, model = harvest.manifest, harvest.model
    every = max(1, len(harvest.blocks.ids) // SAMPLE_BLOCKS)
    ids = harvest.blocks.ids[::every][:SAMPLE_BLOCKS]
    sites = list(manifest.sites)
    device = _device_memory(harvest) if model.device == "cuda" else None
    harvest.model.to_encode(ids[:1], sites)  # the first call is slower
    model.wait()
    began = time.perf_counter()
    values = harvest.model.to_encode(ids, sites)
    model.wait()
    seconds = (time.perf_counter() - began) / ids.size
    # Of the tokens of an aligned store, not all become rows.
    model_seconds = seconds * harvest.blocks.ids.size / harvest.blocks.rows
    asked = [manifest.codec, *(codec for codec in codecs if codec != manifest.codec)]
    costs = [_cost(harvest, asked[0], ids, values)]
    for codec in asked[1:]:
        with contextlib.suppress(BadInput):  # this codec cannot hold such values
            costs.append(_cost(harvest, codec, ids, values))
    width = sum(site.width for site in sites)
    shard = min(manifest.shard_rows, manifest.rows)
    batch = harvest.batch_size * harvest.blocks.context_size
    memory = round(4 * width * 2 * batch + costs[0].bytes_per_token * shard)
    if device is not None:
        code = manifest.stored_codec.dtype.itemsize
        memory = round(code * width * 2 * batch + costs[0].bytes_per_token * shard * 2)
    return HarvestCost(
        rows=harvest.rows,
        context_size=manifest.context_size,
        widths=tuple(site.width for site in sites),
        model_seconds_per_token=model_seconds,
        costs=tuple(costs),
        memory_bytes=memory + (0 if device else model.parameter_bytes),
        free_bytes=harvest.free_bytes,
        written_bytes=_written(harvest.out),
        paired="paired_with" in manifest.source,
        device=device,
        engine=harvest.engine.describe(),
        shards=len(harvest.whole.shards),
        at_once=harvest.engine.at_once,
    )


def _device_memory(harvest: Harvest) -> DeviceMemory:
    """Run one whole batch, and see what it takes."""
    import torch

    on = harvest.model.capture.device
    found = torch.cuda.get_device_properties(on)
    torch.cuda.reset_peak_memory_stats(on)
    ids = harvest.blocks.ids[: harvest.batch_size]
    harvest.model.to_encode(ids, list(harvest.manifest.sites))
    harvest.model.wait()
    widest = max(site.width for site in harvest.manifest.sites)
    encoding = ENCODING_BYTES * widest * ids.size
    return DeviceMemory(
        found.name, torch.cuda.max_memory_allocated(on) + encoding, found.total_memory
    )


def _cost(harvest: Harvest, codec: str, ids: np.ndarray, values: Mapping[str, Floats]) -> CodecCost:
    """Write the sample as a store of one shard and read it back, with the times of both."""
    manifest = harvest.manifest
    chunk_rows = math.gcd(manifest.chunk_rows, ids.size)
    compression = (
        manifest.compression
        if codec == manifest.codec
        else compression_for(manifest.format, codec_named(codec).dtype)
    )
    sample = replace(
        manifest,
        rows=ids.size,
        shard_rows=ids.size,
        chunk_rows=chunk_rows,
        codec=codec,
        compression=compression,
        schema=0,
        files={},
    )
    columns = {name: ids.reshape(-1) for name in sample.columns}
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        with StoreWriter(Path(directory) / "sample", sample) as writer:
            writer.write_shard(values, columns)
        written = time.perf_counter()
        store = Store(Path(directory) / "sample")
        for name in sample.hook_names:
            store.read(name)
        read = time.perf_counter()
        # A shard has one file of statistics for each site, however many rows it has.
        statistics = sum(
            record.bytes
            for path, record in store.records[0].files.items()
            if "/statistics/" in path
        )
        per_token = (store.stored_bytes() - statistics) / ids.size
        per_token += statistics * manifest.shards / manifest.rows
    return CodecCost(codec, per_token, (written - began) / ids.size, (read - written) / ids.size)


def _written(out: Path | str) -> int:
    """Bytes that an earlier run recorded, of a store or of a piece of one."""
    if isinstance(out, str):
        return 0
    if (out / MANIFEST).is_file():
        return Store(out).stored_bytes()
    found = read_piece(partial(read_small, out), str(out))
    records = found[1] if found else ()
    return sum(file.bytes for record in records for file in record.files.values())
