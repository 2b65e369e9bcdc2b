"""SAEDashboard: ``batch-N.json``, a dictionary of its ``NeuronpediaDashboardBatch``.

What was not computed is left empty, as SAEDashboard leaves it: logits without the model, and what
needs the activations of neurons.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rkstore.evaluation.samples.layouts.base import Found, Layout, Subject
from rkstore.evaluation.samples.layouts.parts import Part, parts_of
from rkstore.settings import option

if TYPE_CHECKING:
    from pathlib import Path

# Tables that need the model, or the activations of neurons.
EMPTY = (
    *(f"neuron_alignment_{what}" for what in ("indices", "values", "l1")),
    *(f"correlated_neurons_{what}" for what in ("indices", "l1", "pearson")),
    *(f"correlated_features_{what}" for what in ("indices", "l1", "pearson")),
    *("neg_str", "neg_values", "pos_str", "pos_values"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist"),
)

# As SAEDashboard writes them.
FEATURES_PER_BATCH = 128


class Dashboard(Layout):
    """What SAEDashboard's runner writes, a folder for each layer."""

    name = "saedashboard"
    has_logits = True
    source_set: str = option("rkstore", "Name of the set of dictionaries that this one is of.")
    vectors: bool = option(
        False, "Write also the decoder row of each latent, with which Neuronpedia steers."
    )

    def check(self, subject: Subject) -> None:
        parts_of(subject, "SAEDashboard")

    def write(self, found: Found, out: Path) -> None:
        for part in parts_of(found, "SAEDashboard"):
            folder = out / f"{part.layer}-{self.source_set}"
            folder.mkdir()
            for number, latents in enumerate(batches(part)):
                batch = {
                    "model_id": found.model_name,
                    "layer": part.layer,
                    "sae_set": self.source_set,
                    "sae_id_suffix": None,
                    "features": [feature(found, part, i, vector=self.vectors) for i in latents],
                }
                text = json.dumps(batch, ensure_ascii=False, allow_nan=False)
                (folder / f"batch-{number}.json").write_text(text, "utf-8")


def batches(part: Part) -> Iterator[range]:
    """The latents of a part, as many as are in one file."""
    for first in range(part.first, part.stop, FEATURES_PER_BATCH):
        yield range(first, min(first + FEATURES_PER_BATCH, part.stop))


def feature(found: Found, part: Part, latent: int, *, vector: bool) -> dict[str, Any]:
    """A latent as SAEDashboard has it."""
    samples = found.samples
    edges = samples.edges(latent)
    centres = (edges[:-1] + edges[1:]) / 2
    return {
        "feature_index": latent - part.first,
        **{name: [] for name in EMPTY},
        **_logits(found, latent),
        "frac_nonzero": float(samples.fired[latent] / samples.rows),
        "freq_hist_data_bar_heights": samples.histogram[latent].astype(float).tolist(),
        "freq_hist_data_bar_values": rounded(centres),
        "n_prompts_total": -(-samples.rows // found.looking.context_size),
        "n_tokens_in_prompt": found.looking.context_size,
        "dataset": dataset_of(found),
        "activations": list(activations(found, latent)),
        "vector": rounded(row_of(found, latent)) if vector else [],
    }


def _logits(found: Found, latent: int) -> dict[str, list[Any]]:
    """What a latent does to the logits, with the model."""
    logits = found.logits_of(latent)
    if logits is None:
        return {}
    (lowered, least), (raised, largest) = logits.lowered, logits.raised
    return {
        "neg_str": [_word(piece) for piece in lowered],
        "neg_values": rounded(least),
        "pos_str": [_word(piece) for piece in raised],
        "pos_values": rounded(largest),
        "logits_hist_data_bar_heights": logits.heights,
        "logits_hist_data_bar_values": rounded(logits.centres),
    }


def activations(found: Found, latent: int) -> Iterator[dict[str, Any]]:
    """The samples of a latent: the strongest, then those of each interval.

    An interval contains a share of all tokens; zeros are in the lowest, as in SAEDashboard.
    """
    samples, context = found.samples, found.contexts
    zeros = samples.rows - int(samples.fired[latent])
    for i in range(int(samples.starts[latent]), int(samples.starts[latent + 1])):
        band = int(samples.band[i])
        low, high, share = -1.0, float(samples.largest[latent]), -1.0
        if band:
            low, high = samples.edges_of_band(latent, band)
            count = int(found.of_bands[latent, band - 1])
            share = (count + zeros * (band == samples.bands)) / samples.rows
        ids, at = context.ids(i), context.at(i)
        start = context.before - at
        yield {
            "bin_min": round(low, 5),
            "bin_max": round(high, 5),
            "bin_contains": share,
            "tokens": [found.words[id] for id in ids],
            "values": rounded(samples.around[i, start : start + len(ids)]),
            "qualifying_token_index": at,
        }


def row_of(found: Found, latent: int) -> Any:
    """The decoder row of a latent, over all sites that its bank writes."""
    for bank, weights in found.dictionary.banks:
        if latent < bank.latents:
            return weights.W_dec[latent].detach().cpu().numpy()
        latent -= bank.latents
    raise IndexError(latent)


def _word(piece: str | list[int]) -> str:
    return piece if isinstance(piece, str) else bytes(piece).decode(errors="replace")


def rounded(values: Any) -> list[float]:
    """Numbers with five decimals, as SAEDashboard writes them."""
    return [round(float(value), 5) for value in values]


def dataset_of(subject: Subject) -> str:
    """The text of the store, in a few words."""
    text = subject.store.manifest.source.get("text") or {}
    files = ", ".join(str(file.get("name")) for file in text.get("files") or () if file)
    return str(text.get("dataset") or files or "unknown")
