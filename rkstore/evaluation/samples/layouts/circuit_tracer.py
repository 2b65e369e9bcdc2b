"""circuit-tracer's ``features/``: what its pages show of each latent.

``features/index.json.gz`` has for each layer, by its number, ``{"filename", "offsets"}``; at each
offset of that file lie a length in four bytes, little-endian, and so many bytes of zlib: JSON with
the fields of ``circuit_tracer/frontend/feature_models.py``.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from rkstore.evaluation.samples.layouts.base import Found, Layout, Subject
from rkstore.evaluation.samples.layouts.dashboard import rounded
from rkstore.evaluation.samples.layouts.parts import Part, parts_of

if TYPE_CHECKING:
    from pathlib import Path


class CircuitTracer(Layout):
    """The folder that circuit-tracer serves as ``features_dir``, or reads beside the weights."""

    name = "circuit-tracer"
    has_logits = True

    def check(self, subject: Subject) -> None:
        parts_of(subject, "circuit-tracer")

    def write(self, found: Found, out: Path) -> None:
        folder = out / "features"
        folder.mkdir()
        parts = parts_of(found, "circuit-tracer")
        # Its index has all layers, by number.
        index: list[dict[str, Any] | None] = [None] * (parts[-1].layer + 1)
        for part in parts:
            name = f"layer_{part.layer}.bin"
            offsets = [0]
            with (folder / name).open("wb") as file:
                for latent in range(part.first, part.stop):
                    content = json.dumps(_feature(found, part, latent), allow_nan=False)
                    packed = zlib.compress(content.encode())
                    file.write(struct.pack("<I", len(packed)) + packed)
                    offsets.append(file.tell())
                # A reader asks for one byte more than a latent has.
                file.write(b"\0")
            index[part.layer] = {"filename": name, "offsets": offsets}
        packed = gzip.compress(json.dumps(index, allow_nan=False).encode(), mtime=0)
        (folder / "index.json.gz").write_bytes(packed)


def _feature(found: Found, part: Part, latent: int) -> dict[str, Any]:
    """A latent as its pages read it."""
    samples = found.samples
    logits = found.logits_of(latent)
    groups: dict[int, list[dict[str, Any]]] = {}
    for i in range(int(samples.starts[latent]), int(samples.starts[latent + 1])):
        groups.setdefault(int(samples.band[i]), []).append(_example(found, i))
    return {
        "transcoder_id": found.name,
        "index": latent - part.first,
        "examples_quantiles": [
            {"quantile_name": _name(found, latent, band), "examples": own}
            for band, own in groups.items()
        ],
        "top_logits": [_shown(piece) for piece in logits.raised[0]] if logits else [],
        "bottom_logits": [_shown(piece) for piece in logits.lowered[0]] if logits else [],
        "act_min": 0.0,
        "act_max": float(samples.largest[latent]),
        "quantile_values": rounded(samples.edges(latent)[:: _bins_of_band(found)]),
        "histogram": samples.histogram[latent].astype(float).tolist(),
        "activation_frequency": float(samples.fired[latent] / samples.rows),
    }


def _bins_of_band(found: Found) -> int:
    """Bins of the histogram in each band."""
    return int(found.samples.histogram.shape[1]) // max(1, found.samples.bands)


def _name(found: Found, latent: int, band: int) -> str:
    if not band:
        return "Top activations"
    low, high = found.samples.edges_of_band(latent, band)
    return f"Activations from {low:.3g} to {high:.3g}"


def _example(found: Found, sample: int) -> dict[str, Any]:
    ids, at = found.contexts.ids(sample), found.contexts.at(sample)
    start = found.contexts.before - at
    return {
        "tokens_acts_list": rounded(found.samples.around[sample, start : start + len(ids)]),
        "train_token_ind": at,
        "is_repeated_datapoint": False,
        "tokens": [_shown(found.pieces[id]) for id in ids],
    }


def _shown(piece: str | list[int]) -> str:
    r"""A token as its pages read it: a part of a character is its bytes, as ``\xe2``."""
    return piece if isinstance(piece, str) else "".join(f"\\x{byte:02x}" for byte in piece)
