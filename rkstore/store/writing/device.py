"""Rows on an accelerator → codes there: a quarter of float32 or less is moved to the processor.

What the processor would do with floats (``encoder.py``) is done where they are; it gets codes, the
few values that are kept apart, and sums. Codes and values are bit for bit those of the processor
for the same rows. Sums, of errors and statistics, are added in another order, so their last digits
may differ, and so may on which side of the threshold a row is that is massive within a rounding.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rkstore.store.apart import Apart
from rkstore.store.codecs import Encoded
from rkstore.store.statistics import ShardStatistics, Statistics

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from rkstore.store.codecs import Codec
    from rkstore.store.massive import Usual


class CodedChunk(NamedTuple):
    """A chunk of a site, encoded."""

    encoded: Encoded
    errors: tuple[float, float]
    """Σ (stored value - value)² over the rows that are not massive, and over those that are."""
    statistics: ShardStatistics


def coded(
    parts: list[Tensor],
    ready: torch.cuda.Event | None,
    codec: Codec,
    usual: Usual,
    side: dict[str, NDArray[np.float32]],
    size: int,
) -> list[CodedChunk] | None:
    """Encode rows ``(n, d_in)``, given in pieces, in chunks of ``size`` on the device they are on.

    None if a value is not finite, or too large for its square to be. All chunks in one go: each
    call of NumPy costs a wait for the interpreter, if many threads compress chunks meanwhile.

    Args:
        ready: see :func:`computed`.
    """
    import torch

    device = parts[0].device
    stream = None if ready is None else _stream(device)
    if stream is not None and ready is not None:
        stream.wait_event(ready)
    with nullcontext() if stream is None else torch.cuda.stream(stream), torch.no_grad():
        x = (parts[0] if len(parts) == 1 else torch.cat(parts)).float()
        if not torch.linalg.vecdot(x, x).isfinite().all():
            return None
        vectors = {name: torch.from_numpy(vector).to(device) for name, vector in side.items()}
        centre = torch.from_numpy(usual.centre).to(device)
        massive = torch.linalg.vector_norm(x - centre, dim=1) > usual.reach
        codes, beyond = codec.encode_tensor(x, vectors, massive)
        error = codec.decode_tensor(codes, vectors).sub_(x)
        error.masked_fill_(beyond, 0).masked_fill_(massive.unsqueeze(1), 0)
        entries, rows = beyond.view(-1).nonzero().squeeze(1), massive.nonzero().squeeze(1)
        found = {
            "codes": codes,
            "entries": entries,
            "values": x.view(-1)[entries],
            "rows": rows,
            "whole": x[rows],
            "errors": error.square_().sum(dim=1, dtype=torch.float64),
            **_sums(x, massive, size),
        }
        # Into pinned memory, all at once.
        here: dict[str, Any] = {k: v.to("cpu", non_blocking=True) for k, v in found.items()}
    if stream is not None:
        stream.record_event().synchronize()
    return _cut({name: tensor.numpy() for name, tensor in here.items()}, size, side)


def _cut(
    found: dict[str, NDArray[Any]], size: int, side: dict[str, NDArray[np.float32]]
) -> list[CodedChunk]:
    """What came from a device, in chunks.

    Args:
        found: ``codes (n, d_in)``; ``entries``, flat indices of the values that no code has,
            ascending, and their ``values``; ``rows``, which rows are massive, and ``whole``, their
            values; ``errors`` of each row over the values that have a code; and :func:`_sums`.
    """
    codes, rows, whole = found["codes"], found["rows"], found["whole"]
    single = Apart.given(codes.shape, found["entries"], found["values"], rows[:0], whole[:0])
    edges = [*range(0, len(codes), size), len(codes)]
    begins = np.searchsorted(rows, edges)
    ordinary, chunks = _ordinary(found), []
    for i, (first, stop) in enumerate(itertools.pairwise(edges)):
        massive = slice(begins[i], begins[i + 1])
        values = whole[massive]
        apart = single.part(first, stop).with_whole(rows[massive] - first, values)
        stored = apart.massive_value.astype(np.float64)
        errors = float(found["errors"][first:stop].sum()), float(np.square(stored - values).sum())
        statistics = ShardStatistics.joined(ordinary[i], values)
        chunks.append(CodedChunk(Encoded(codes[first:stop], side, apart), errors, statistics))
    return chunks


def _ordinary(found: dict[str, NDArray[Any]]) -> list[Statistics | None]:
    """Statistics of the rows of each chunk that are not massive."""
    count, total = found["count"], found["total"]
    mean = total / np.maximum(count, 1)[:, np.newaxis]
    squares = np.maximum(found["squares"] - total * mean, 0)
    mean += found["shift"]
    rest = zip(found["min"], found["max"], found["positive"], strict=True)
    return [
        Statistics(int(n), *of_chunk, *more) if n else None
        for n, of_chunk, more in zip(count, zip(mean, squares, strict=True), rest, strict=True)
    ]


def computed(x: Tensor) -> torch.cuda.Event | None:
    """The event that a tensor is there, which the current stream computes; None off a GPU."""
    import torch

    if x.device.type != "cuda":
        return None
    event: torch.cuda.Event = torch.cuda.current_stream(x.device).record_event()
    return event


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all encoding, beside that of the model: memory is reused within a stream."""
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _sums(x: Tensor, massive: Tensor, size: int) -> dict[str, Tensor]:
    """What :class:`Statistics` are made of, over the rows of each chunk that are not massive,
    ``(chunks, d_in)`` float64; deviations are from the first of these rows."""
    import torch

    found: list[dict[str, Tensor]] = []
    # Chunks as one axis, and a last one that may be shorter.
    whole = len(x) // size * size
    for first, count in ((0, whole // size), (whole, 1 if len(x) > whole else 0)):
        if not count:
            continue
        stop = whole if first == 0 and whole else len(x)
        rows = x[first:stop].view(count, -1, x.shape[1])
        apart = massive[first:stop].view(count, -1, 1)
        shift = rows[torch.arange(count, device=x.device), (~apart).int().argmax(dim=1).squeeze(1)]
        deviation = (rows.double() - shift.double().unsqueeze(1)).masked_fill_(apart, 0)
        found.append(
            {
                "count": (~apart).sum(dim=(1, 2)),
                "shift": shift.double(),
                "total": deviation.sum(dim=1),
                "squares": deviation.square_().sum(dim=1),
                "min": rows.masked_fill(apart, torch.inf).amin(dim=1).double(),
                "max": rows.masked_fill(apart, -torch.inf).amax(dim=1).double(),
                "positive": ((rows > 0) & ~apart).sum(dim=1).double(),
            }
        )
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}
