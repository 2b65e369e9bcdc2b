"""Batches for an accelerator: the chunks of a window are moved as codes, and decoded there.

Codes are a quarter of float32, and the bus to an accelerator is slow. Each chunk is decompressed
into a slot of pinned memory, which holds a window of a site, and a window is copied on a stream of
its own while the one before it is used. The rows of a batch are gathered and decoded there, so that
the processor has only to decompress. The values are bit for bit those of
:func:`~rkstore.store.batches.assemble.read_batches`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rkstore.store.apart import Apart, joined
from rkstore.store.batches.assemble import Reader, Window, read_ahead
from rkstore.store.batches.pieces import Part, Piece
from rkstore.store.batches.plan import BatchPlan
from rkstore.store.batches.slots import Slots
from rkstore.store.codecs import Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rkstore.store.codecs import Codec
    from rkstore.store.readable import Readable

# Threads that read and decompress.
THREADS = 16

# Windows of a site that are read or copied at once.
WINDOWS = 3


@dataclass(frozen=True)
class DeviceBatch:
    """Some rows of a store: ``rows`` int64 ``(n,)``, and for each site float32 ``(n, d_in)`` on a
    device. If they are a part of a batch, ``whole`` is how many rows the batch has."""

    rows: NDArray[np.int64]
    x: dict[str, Tensor]
    whole: int | None = None


def read_to_device(
    store: Readable,
    hook_names: Sequence[str],
    plan: BatchPlan,
    device: str,
    start: int = 0,
    part: Part | None = None,
) -> Iterator[DeviceBatch]:
    """Endless batches from number ``start``, or a part of each, decoded on a device.

    On a CUDA device they are ready for the stream that is current when one is handed over. Up to
    three windows are held there, as codes.

    Raises:
        BadInput, DamagedStore: as :func:`~rkstore.store.batches.assemble.read_batches`.
    """
    for batch, made in read_ahead(_There(store, hook_names, plan, device, part), start):
        if made is not None:
            for x in batch.x.values():
                current = torch.cuda.current_stream(x.device)
                current.wait_event(made)
                x.record_stream(current)  # or its memory could be reused too early
        yield batch


@dataclass(frozen=True)
class _SiteWindow:
    """The chunks of a window at a site, on a device.

    Args:
        codes: ``(rows, d_in)``.
        side: the codec's different parameters, float32 ``(parameters, d_in)`` by name.
        side_of: which of them each row has, int64 ``(rows,)``; None if all have the same.
        apart: what is kept apart, in the processor's memory.
        starts, dimension, value: the same, as it has them.
    """

    codec: Codec
    codes: Tensor
    side: dict[str, Tensor]
    side_of: Tensor | None
    apart: Apart | None
    starts: Tensor
    dimension: Tensor
    value: Tensor

    def rows(self, among: NDArray[np.int64], device: str) -> Tensor:
        """Some of its rows, decoded, float32 ``(n, d_in)``."""
        rows = _moved(among, device)
        side = self.side
        if self.side_of is not None:
            of = self.side_of[rows]
            side = {name: vectors[of] for name, vectors in side.items()}
        # As bytes: torch cannot index all types of code there.
        codes = self.codes.view(torch.uint8)[rows].view(self.codes.dtype)
        x = self.codec.decode_tensor(codes, side)
        if self.apart is not None:
            self._put_apart(x, among, rows, device)
        return x

    def _put_apart(self, x: Tensor, among: NDArray[np.int64], rows: Tensor, device: str) -> None:
        """What :meth:`Apart.put` does; the processor only counts."""
        assert self.apart is not None
        count = int((self.apart.starts[1:][among] - self.apart.starts[among]).sum())
        if count:
            first = self.starts[rows]
            counts = self.starts[1:][rows] - first
            each = torch.arange(len(rows), device=x.device)
            owner = each.repeat_interleave(counts, output_size=count)
            entry = (first - counts.cumsum(0) + counts)[owner]
            entry += torch.arange(count, device=x.device)
            x.view(-1)[owner * x.shape[1] + self.dimension[entry]] = self.value[entry]
        places, whole = self.apart.whole(among)
        if len(places):
            x[_moved(places, device)] = _moved(whole, device).float()


class _DeviceWindow(Window):
    """A window of which each site is on its way to a device."""

    def __init__(
        self,
        numbers: NDArray[np.int64],
        begins: NDArray[np.int64],
        sites: list[Future[_SiteWindow]],
    ) -> None:
        """Of the chunks of these numbers in the store, whose rows begin there in the window."""
        super().__init__({})
        order = numbers.argsort()
        self.sites, self._numbers, self._begins = sites, numbers[order], begins[order]

    def among(self, rows: NDArray[np.int64], chunk_rows: int) -> NDArray[np.int64]:
        """Where rows of the store are in the window."""
        chunk, within = np.divmod(rows, chunk_rows)
        found: NDArray[np.int64] = self._begins[self._numbers.searchsorted(chunk)] + within
        return found


class _There(Reader[tuple[DeviceBatch, "torch.cuda.Event | None"]]):
    """Gathers and decodes the rows of a batch on a device."""

    threads = min(THREADS, os.cpu_count() or 1)
    apart = True

    def __init__(
        self,
        store: Readable,
        hook_names: Sequence[str],
        plan: BatchPlan,
        device: str,
        part: Part | None,
    ) -> None:
        super().__init__(store, hook_names, plan, part)
        cuda = torch.device(device).type == "cuda"
        self._device = device
        # One stream for all of it: memory that one batch no longer needs is free for the next.
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._slots = Slots(WINDOWS * len(hook_names), _pinned if cuda else np.empty)

    def begun(
        self, coming: Iterator[list[Piece]], pool: ThreadPoolExecutor
    ) -> Iterator[list[Piece]]:
        """Windows begin to be read when the one before them begins to be used."""
        longest = max(stop - first for first, stop in self.plan.row_ranges)
        window = max(longest, self.plan.window_rows)
        ahead: deque[list[Piece]] = deque()
        for pieces in coming:
            for piece in pieces:
                self.window(piece, pool)
            ahead.append(pieces)
            if len(ahead) > 1 + window // self.plan.batch_size:
                yield ahead.popleft()
        yield from ahead

    def open_window(self, chunks: NDArray[np.int64], pool: ThreadPoolExecutor) -> Window:
        numbers = [int(chunk) for chunk in chunks]
        rows = [self.rows_of(chunk) for chunk in numbers]
        edges = np.cumsum([0, *rows])
        slots = [
            self._slots.take(
                (int(edges[-1]), self._store.manifest.width(name)), self._store.codec_of(name).dtype
            )
            for name in self._names
        ]
        parts = list(zip(numbers, edges, edges[1:], strict=False))
        loads = [
            [pool.submit(self._load_into, slot[a:b], name, chunk) for chunk, a, b in parts]
            for name, slot in zip(self._names, slots, strict=True)
        ]
        # Nothing but these holds a slot once it was copied.
        moves = [
            pool.submit(self._move, *of_site)
            for of_site in zip(self._names, slots, loads, strict=True)
        ]
        size = self._store.manifest.chunk_rows
        of_store = np.array([self.plan.row_ranges[chunk][0] // size for chunk in numbers])
        return _DeviceWindow(of_store, edges[:-1], moves)

    def _load_into(self, slot: NDArray[Any], name: str, chunk: int) -> Encoded:
        found = self._load(name, chunk, slot)
        if found.values is slot:  # it was decompressed into its place
            return found
        slot[...] = found.values
        return replace(found, values=slot)

    def _move(self, name: str, slot: NDArray[Any], futures: list[Future[Encoded]]) -> _SiteWindow:
        """Copy a window of a site, and wait until the slot is no longer read."""
        codec, chunks = self._store.codec_of(name), [future.result() for future in futures]
        parts = [chunk.apart for chunk in chunks if chunk.apart is not None]
        apart = joined(parts) if parts else None
        vectors, of = _sides(chunks)
        with self._on_stream():
            nothing = torch.empty(0)
            found = _SiteWindow(
                codec,
                torch.from_numpy(slot).to(self._device, non_blocking=True),
                {name: _moved(vector, self._device) for name, vector in vectors.items()},
                _moved(of, self._device) if of.any() else None,
                apart,
                nothing if apart is None else _moved(apart.starts, self._device),
                nothing if apart is None else _moved(apart.dimension, self._device),
                nothing if apart is None else _moved(apart.value, self._device),
            )
            if self._stream is not None:
                self._stream.record_event().synchronize()
        if self._stream is None:  # the tensor is the slot
            return replace(found, codes=found.codes.clone())
        return found

    def assemble(
        self, pieces: list[Piece], windows: list[Window], whole: int | None
    ) -> tuple[DeviceBatch, torch.cuda.Event | None]:
        parts: list[tuple[_DeviceWindow, NDArray[np.int64]]] = []
        for piece, window in zip(pieces, windows, strict=True):
            assert isinstance(window, _DeviceWindow)
            parts.append((window, window.among(piece.rows, self._store.manifest.chunk_rows)))
        x: dict[str, Tensor] = {}
        with self._on_stream():
            for i, name in enumerate(self._names):
                rows = [w.sites[i].result().rows(among, self._device) for w, among in parts]
                x[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
            made = None if self._stream is None else self._stream.record_event()
        rows_of_all = np.concatenate([piece.rows for piece in pieces])
        return DeviceBatch(rows_of_all, x, whole), made

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _sides(
    chunks: Sequence[Encoded],
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """The different parameters of some chunks, ``(parameters, d_in)`` by name, and which of them
    each of their rows has; the chunks of a shard share theirs."""
    found: dict[tuple[bytes, ...], int] = {}
    keys = [tuple(vector.tobytes() for vector in chunk.side.values()) for chunk in chunks]
    numbers = [found.setdefault(key, len(found)) for key in keys]
    first = [chunks[numbers.index(number)] for number in found.values()]
    vectors = {name: np.stack([chunk.side[name] for chunk in first]) for name in first[0].side}
    return vectors, np.repeat(numbers, [len(chunk.values) for chunk in chunks])


def _moved(array: NDArray[Any], device: str) -> Tensor:
    """A small array on a device; torch reuses what it pins only after the copy."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    memory: NDArray[Any] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return memory.view(dtype).reshape(shape)
