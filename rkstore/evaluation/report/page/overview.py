"""The overview: what the store is, what was trained, and latents to begin with, as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rkstore.evaluation.measure import DENSITY_EDGES
from rkstore.evaluation.report.page.compare import Run
from rkstore.evaluation.report.page.latents import PART, TELLING, Latents
from rkstore.evaluation.report.page.text import PART as TEXT_PART
from rkstore.evaluation.report.page.text import Text
from rkstore.evaluation.report.page.vocabulary import Vocabulary
from rkstore.evaluation.report.results import sites_of
from rkstore.store.readable import Readable

# Latents on the overview, and how often one of them must fire to be there without a name.
CARDS, LEAST_FIRINGS, MOST_DENSE = 10, 20, 0.01

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def meta(
    store: Readable, run: Run, text: Text, vocabulary: Vocabulary, latents: Latents
) -> dict[str, Any]:
    """What every page needs to know: the store, its text, and the dictionary shown."""
    model = str((store.manifest.source.get("model") or {}).get("name", "unknown model"))
    samples, result = latents.samples, run.result
    return {
        "title": f"{model}, {_sites(run)}",
        "where": f"{model} · {_sites(run)}",
        "made": (
            f"Made by rkstore from store {store.manifest.fingerprint}. Every file lies in this "
            "folder; nothing is requested from elsewhere."
        ),
        "facts": _facts(store, run),
        "held_out": result.rows,
        "edges": DENSITY_EDGES.tolist(),
        "special": list(vocabulary.special),
        "bos": vocabulary.bos,
        "wide": vocabulary.kind == "u4",
        "part": PART,
        "text_part": TEXT_PART,
        "text_rows": len(text),
        "spans": [list(span) for span in text.spans],
        "block": text.block,
        "bands": max(1, samples.bands),
        "telling": TELLING,
        "latents": _of_latents(run, text, latents),
        "probe": None,
        "figures": [],
    }


def _sites(run: Run) -> str:
    """The sites of a run, with places at which a line can break."""
    return sites_of(run.result).replace(",", ", ")


def lede(store: Readable, runs: Sequence[Run], told: Sequence[str]) -> str:
    """One sentence on what was trained, and on what it was measured."""
    result, many = runs[0].result, len(runs)
    sizes = {run.result.d_sae for run in runs}
    latents = f"{sizes.pop():,} latents" if len(sizes) == 1 else "different sizes"
    what = f"A dictionary of {latents}" if many == 1 else f"{_word(many)} dictionaries of {latents}"
    if told and many > 1:
        only = f"nothing but {told[0]}" if len(told) == 1 else _listed(told)
        what += f" that differ in {only}"
    of = store.stop_row - store.first_row
    return (
        f"{what}, from a store of {of:,} rows of {text_of(store.manifest.source)}; measured on "
        f"{result.rows:,} of them that were held out of training."
    )


def _word(number: int) -> str:
    words = ["Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"]
    return words[number - 2] if number - 2 < len(words) else f"{number:,}"


def _listed(told: Sequence[str]) -> str:
    most = 4
    if len(told) > most:
        return f"{', '.join(told[:most])} and {len(told) - most} other settings"
    return f"{', '.join(told[:-1])} and {told[-1]}"


def text_of(source: dict[str, Any]) -> str:
    """A few words that name the text of a store."""
    text = source.get("text") or {}
    files = [str(file.get("name")) for file in text.get("files") or ()]
    parts = [text.get(key) for key in ("dataset", "config", "split")]
    return " ".join(str(part) for part in parts if part) or ", ".join(files[:3]) or "unknown text"


def _facts(store: Readable, run: Run) -> list[list[str]]:
    source, result = store.manifest.source, run.result
    model = source.get("model") or {}
    kind = f" · {model['architecture']}" if model.get("architecture") else ""
    layers = f", {model['layers']} layers" if model.get("layers") else ""
    codecs = {store.codec_of(name).name for name in store.hook_names}
    rows = store.stop_row - store.first_row
    return [
        ["Model", f"{model.get('name', 'unknown')}{kind}{layers}"],
        ["Text", text_of(source)],
        ["Site", _sites(run)],
        ["Width", f"{result.d_in:,} → {result.d_sae:,} latents"],
        ["Rows", f"{rows:,} in blocks of {store.manifest.context_size}"],
        ["Stored as", ", ".join(sorted(codecs))],
        ["Codec’s error", f"FVU {_power(result.codec_fvu)}"],
        ["Store", store.manifest.fingerprint],
    ]


def _power(value: float) -> str:
    """A small number as people write it: 1.2 × 10⁻⁴."""
    if not value:
        return "0"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPTS)}"


def _of_latents(run: Run, text: Text, latents: Latents) -> dict[str, Any]:
    samples, name = latents.samples, run.result.name
    next_token = (
        " “Next token” is how much more than others a latent raises the token that does follow."
        if latents.logits
        else ""
    )
    return {
        "dictionary": name,
        "site": _sites(run),
        "lede": (
            f"{name}, looked at on {samples.rows:,} tokens, those trained on and those held out."
            + next_token
        ),
        "blocks": text.blocks,
        "strongest": "Strongest, one a block",
        "wires": [{"reads": bank.reads, "writes": bank.writes} for bank in latents.banks],
        "whose": None if latents.shares is None else _owners(run),
        "no_logits": (
            "No model was given, so there are no tokens that this latent raises and lowers: they "
            "come with --with-model."
        ),
        "logits_path": None if latents.logits is None else f"By {latents.logits.path}.",
        "logits_warning": "The tokens that do follow are mostly not among these",
    }


def _owners(run: Run) -> list[str]:
    """The two sites of a crosscoder, by their models if these are two."""
    sites = list(run.result.sites)
    models = [site.partition(":")[0] for site in sites]
    return models if all(":" in site for site in sites) and len(set(models)) == 2 else sites


def cards(latents: Latents, names: dict[str, str]) -> dict[str, Any]:
    """The latents to begin with: those with names, or some that fire often enough, evenly spaced.

    They are not chosen by what they seem to mean.
    """
    samples = latents.samples
    if names:
        some = sorted(map(int, names))[:CARDS]
        return {
            "cards": some,
            "cards_title": "Latents with names",
            "cards_note": "Named by hand, in a file that was given.",
        }
    often = (samples.fired >= LEAST_FIRINGS) & (samples.density <= MOST_DENSE)
    able = np.flatnonzero(often)
    chosen = able[np.linspace(0, len(able) - 1, min(CARDS, len(able))).astype(int)]
    return {
        "cards": chosen.tolist(),
        "cards_title": "Some latents",
        "cards_note": (
            f"Evenly spaced among the {len(able):,} that fire on {LEAST_FIRINGS} tokens or more, "
            f"and on at most {MOST_DENSE:.0%} of all; not chosen by what they seem to mean."
        ),
    }
