"""A summary of a store, as a dict, for ``rkstore info`` and its ``--json``."""

import math
from dataclasses import asdict
from typing import Any

from rkstore.store.statistics import Statistics
from rkstore.store.store import Store


def store_facts(store: Store) -> dict[str, Any]:
    """Everything known about a store without reading its shards, ready for JSON."""
    manifest = store.manifest
    sites = []
    rows = store.stop_row - store.first_row
    for name in store.hook_names:
        width = manifest.width(name)
        facts: dict[str, Any] = {"hook_name": name, "d_in": width}
        if rows:
            statistics = store.statistics(name)
            ordinary = store.ordinary_statistics(name)
            stored = store.stored_bytes(name)
            values = rows * width
            facts |= {
                "bytes": stored,
                "bits_per_value": 8 * stored / values,
                "ratio_to_float32": 4 * values / stored,
                "codec_fvu": store.codec_fvu(name),
                "massive_rows": store.massive_rows(name),
                "massive_error": store.massive_error(name),
                "mean_square_norm": statistics.mean_square_norm,
                "mean": float(ordinary.mean.mean()),
                "std": float(ordinary.variance.mean() ** 0.5),
                "gamma": _gamma(ordinary),
                "min": float(statistics.min.min()),
                "max": float(statistics.max.max()),
                "positive": float((statistics.positive / statistics.count).mean()),
            }
        sites.append(facts)
    return {
        "path": store.where,
        "fingerprint": manifest.fingerprint,
        "rows": store.rows,
        "rows_when_complete": manifest.rows,
        "rows_here": [store.first_row, store.stop_row],
        "part": store.part is not None,
        "complete": store.complete,
        "context_size": manifest.context_size,
        "codec": manifest.codec,
        "format": manifest.format,
        "compression": manifest.compression,
        "shards": len(store.records),
        "shard_rows": manifest.shard_rows,
        "chunk_rows": manifest.chunk_rows,
        "bytes": store.stored_bytes(),
        "sites": sites,
        "pairs": [asdict(pair) for pair in store.pairs],
        "aliases": store.aliases,
        "source": manifest.source,
    }


def _gamma(statistics: Statistics) -> float | None:
    """γ = ‖μ‖ / ‖σ‖: distance of the rows from zero, relative to their spread.

    A large γ is reported to predict dead latents (arXiv 2605.31518). None if the rows do not vary.
    """
    spread = float(statistics.variance.sum())
    return math.sqrt(float((statistics.mean**2).sum()) / spread) if spread else None
