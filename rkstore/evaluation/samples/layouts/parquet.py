"""rkstore's own: two Parquet files of all latents, and JSON of some to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rkstore.evaluation.samples.layouts.base import Found, Layout
from rkstore.settings import option

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = "features"


class Parquet(Layout):
    """Every sample with its words, every latent's statistics, and a JSON file a latent for some."""

    name = "parquet"
    top_features_to_save: int = option(
        100, "Latents with a JSON file of their own: those of the largest activations.", least=0
    )
    samples_per_feature_to_save: int = option(
        10, "Strongest samples in such a file, besides those of the bands.", least=0
    )

    def write(self, found: Found, out: Path) -> None:
        import numpy as np

        from rkstore.store.jsontext import to_json

        found.samples.write(out, found.facts, lambda some: _columns(found, some))
        largest = np.argsort(-found.samples.largest, kind="stable")[: self.top_features_to_save]
        (out / FEATURES).mkdir()
        for latent in largest[found.samples.fired[largest] > 0].tolist():
            text = to_json(self._latent(found, latent), indent=1) + "\n"
            (out / FEATURES / f"feature_{latent:05}_samples.json").write_text(text, "utf-8")

    def _latent(self, found: Found, latent: int) -> dict[str, Any]:
        """A latent for JSON: statistics, and samples in words."""
        samples = found.samples
        first = int(samples.starts[latent])
        own = samples.of(latent)
        shown = [
            (i, sample)
            for i, sample in enumerate(own, first)
            if sample.band or i - first < self.samples_per_feature_to_save
        ]
        rows = samples.window_rows
        return {
            "latent": latent,
            "statistics": {
                "max": float(samples.largest[latent]),
                "mean": float(samples.mean[latent]),
                "std": float(samples.deviation[latent]),
                "count": int(samples.fired[latent]),
                "density": float(samples.fired[latent] / samples.rows),
                "density_by_window": (samples.windows[latent] / rows).tolist(),
                "blocks": int(samples.blocks[latent]),
            },
            "samples": [
                {"band": sample.band, "activation": sample.value, "row": sample.row}
                | _in_words(found, i)
                for i, sample in shown
            ],
        }


def _in_words(found: Found, sample: int) -> dict[str, Any]:
    """Token, place and text of one sample."""
    from rkstore.store.lookup import MARK

    context = found.contexts
    ids, at = context.ids(sample), context.at(sample)
    before, own, behind = found.store.words.around(ids, at)
    start = context.before - at
    around = found.samples.around[sample, start : start + len(ids)]
    return {
        "document": int(context.document[sample]),
        "position": int(context.position[sample]),
        "token": found.words[ids[at]],
        "text": f"{before}{MARK[0]}{own}{MARK[1]}{behind}",
        "tokens": [found.words[id] for id in ids],
        "activations": around.tolist(),
    }


def _columns(found: Found, some: slice) -> dict[str, Any]:
    """Columns of some samples in words; ``tokens`` has null outside of the block."""
    import numpy as np
    import pyarrow as pa

    context = found.contexts
    ids = np.array(list(found.words), np.int64)
    # Several tokens may have one word: a dictionary with a word twice is written in any order.
    words, word = np.unique(np.array(list(found.words.values()), object), return_inverse=True)
    column = pa.array(words, pa.string())

    def named(tokens: Any) -> Any:
        places = word[np.minimum(np.searchsorted(ids, tokens), len(ids) - 1)].astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(places, mask=tokens < 0), column)

    tokens = context.tokens[some]
    return {
        "token_id": pa.array(context.token[some]),
        "token": named(context.token[some]),
        "document": pa.array(context.document[some]),
        "position": pa.array(context.position[some]),
        "tokens": pa.FixedSizeListArray.from_arrays(named(tokens.reshape(-1)), tokens.shape[1]),
    }
