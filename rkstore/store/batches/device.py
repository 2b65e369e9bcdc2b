"""Batches for an accelerator: rows are moved as codes, and decoded there.

A batch of codes is a quarter of float32, and the bus to an accelerator is slow. Codes are gathered
into pinned memory and copied on a stream of their own, so that the next batch arrives while this
one is used; a slot is held until its copy is done. The values are bit for bit those of
:func:`~rkstore.store.batches.assemble.read_batches`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rkstore.store.batches.assemble import (
    AHEAD,
    Gather,
    Part,
    Piece,
    Reader,
    Window,
    read_ahead,
)
from rkstore.store.batches.plan import BatchPlan
from rkstore.store.batches.slots import Slots

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rkstore.store.codecs import Codec
    from rkstore.store.readable import Readable

# Batches that are copied while another is used.
COPIED_AHEAD = 2


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

    On a CUDA device they are ready for the stream that is current when one is handed over.

    Raises:
        BadInput, DamagedStore: as :func:`~rkstore.store.batches.assemble.read_batches`.
    """
    cuda = torch.device(device).type == "cuda"
    ahead: deque[_Copied] = deque()
    moving: deque[_Copied] = deque()
    stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
    try:
        for stored in read_ahead(_Codes(store, hook_names, plan, part, pinned=cuda), start):
            ahead.append(_Copied.to(stored, device, stream))
            if len(ahead) > COPIED_AHEAD:
                moving.append(ahead.popleft())
                yield moving[-1].ready()
            while moving and moving[0].is_done(wait=len(moving) > COPIED_AHEAD):
                moving.popleft()
    finally:
        if stream is not None:  # whoever stops early leaves copies that still read their slots
            stream.synchronize()


@dataclass(frozen=True)
class _SiteCodes:
    """The codes of some rows of a site, and what decodes them.

    Args:
        values: codes ``(n, d_in)``, in a slot.
        side: the codec's parameters, float32 ``(parameters, d_in)`` by name.
        side_of: which of them each row has, int64 ``(n,)``.
        entries: flat indices of values that are not codes, int64, and these, float32.
        whole: rows that are not codes, int64, and their values, float16 or float32.
    """

    codec: Codec
    values: NDArray[Any]
    side: dict[str, NDArray[np.float32]]
    side_of: NDArray[np.int64]
    entries: tuple[NDArray[np.int64], NDArray[np.float32]]
    whole: tuple[NDArray[np.int64], NDArray[Any]]

    def on(self, device: str) -> Tensor:
        """The rows, decoded there, float32 ``(n, d_in)``."""
        side = {name: _moved(vectors, device) for name, vectors in self.side.items()}
        if any(len(vectors) > 1 for vectors in side.values()):
            of = _moved(self.side_of, device)
            side = {name: vectors[of] for name, vectors in side.items()}
        values = torch.from_numpy(self.values).to(device, non_blocking=True)
        x = self.codec.decode_tensor(values, side)
        for matrix, (places, given) in ((x.view(-1), self.entries), (x, self.whole)):
            if len(places):
                matrix[_moved(places, device)] = _moved(given, device).float()
        return x


def _moved(array: NDArray[Any], device: str) -> Tensor:
    """A small array on a device; torch reuses what it pins only after the copy."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


# A piece, its window, and where its rows are among those of the window's chunks.
_Part = tuple[Piece, Window, "NDArray[np.int64]"]


@dataclass(frozen=True)
class _Stored:
    """A batch before it is decoded."""

    rows: NDArray[np.int64]
    sites: dict[str, _SiteCodes]
    whole: int | None


class _Codes(Reader[_Stored]):
    """Gathers rows as they are stored."""

    def __init__(
        self,
        store: Readable,
        hook_names: Sequence[str],
        plan: BatchPlan,
        part: Part | None,
        *,
        pinned: bool,
    ) -> None:
        super().__init__(store, hook_names, plan, part)
        most = (AHEAD + 2 * COPIED_AHEAD + 2) * len(hook_names)
        self._slots = Slots(most, _pinned if pinned else np.empty)

    def assemble(self, pieces: list[Piece], windows: list[Window], whole: int | None) -> _Stored:
        rows = np.concatenate([piece.rows for piece in pieces])
        gathers = [Gather(self._store, name, decode=False) for name in self._names]
        codecs = [self._store.codec_of(name) for name in self._names]
        values = [
            self._slots.take((len(rows), self._store.manifest.width(name)), codec.dtype)
            for name, codec in zip(self._names, codecs, strict=True)
        ]
        parts: list[_Part] = []
        for piece, window in zip(pieces, windows, strict=True):
            into = [x[piece.first :][: len(piece.rows)] for x in values]
            parts.append((piece, window, self.gather(piece, window, gathers, into)))
        sites = {
            name: self._site(i, codecs[i], values[i], parts) for i, name in enumerate(self._names)
        }
        return _Stored(rows, sites, whole)

    def _site(
        self, site: int, codec: Codec, values: NDArray[Any], parts: Sequence[_Part]
    ) -> _SiteCodes:
        """The codes of a site, with what decodes the rows of each piece."""
        sides = [window.sides(site) for _, window, _ in parts]
        starts = np.cumsum([0, *(len(next(iter(s.vectors.values()), ())) for s in sides)])
        width = values.shape[1]
        entries, whole = list[Any](), list[Any]()
        for piece, window, among in parts if codec.keeps_apart else ():
            apart = window.apart(site)
            places, given = apart.entries(among, width)
            entries.append((places + piece.first * width, given))
            places, given = apart.whole(among)
            whole.append((places + piece.first, given))
        return _SiteCodes(
            codec,
            values,
            {name: np.concatenate([s.vectors[name] for s in sides]) for name in codec.side},
            np.concatenate(
                [s.row[p[2]] + a for s, p, a in zip(sides, parts, starts, strict=False)]
            ),
            _joined(entries, np.float32),
            _joined(whole, np.float32),
        )


def _joined(parts: list[Any], dtype: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    if not parts:
        return np.empty(0, np.int64), np.empty(0, dtype)
    places, values = zip(*parts, strict=True)
    return np.concatenate(places), np.concatenate(values)


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    memory: NDArray[Any] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return memory.view(dtype).reshape(shape)


@dataclass(frozen=True)
class _Copied:
    """A batch that is on its way, with the slots that its copy reads."""

    batch: DeviceBatch
    stored: _Stored
    event: torch.cuda.Event | None

    @classmethod
    def to(cls, stored: _Stored, device: str, stream: torch.cuda.Stream | None) -> _Copied:
        """Start its copy, on a stream of its own."""
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            x = {name: codes.on(device) for name, codes in stored.sites.items()}
            event = None if stream is None else stream.record_event()
        return cls(DeviceBatch(stored.rows, x, stored.whole), stored, event)

    def ready(self) -> DeviceBatch:
        """The batch, for what comes next on the current stream."""
        if self.event is not None:
            for x in self.batch.x.values():
                current = torch.cuda.current_stream(x.device)
                current.wait_event(self.event)
                x.record_stream(current)  # or its memory could be reused too early
        return self.batch

    def is_done(self, *, wait: bool) -> bool:
        """Whether the copy is done, so that its slots can be reused; waits for it if asked."""
        if self.event is None:
            return True
        if wait:
            self.event.synchronize()
        return bool(self.event.query())  # type: ignore[no-untyped-call]
