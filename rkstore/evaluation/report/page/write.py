"""Dictionaries × a store → the folder of a report."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.settings import DictionarySettings
from rkstore.evaluation.effects import Effects, effects_on_logits
from rkstore.evaluation.evaluate import measured
from rkstore.evaluation.opened import opened
from rkstore.evaluation.report import paper
from rkstore.evaluation.report.page import decoders, overview
from rkstore.evaluation.report.page.compare import runs_of, table
from rkstore.evaluation.report.page.latents import NEIGHBOURS, UNITS, Latents
from rkstore.evaluation.report.page.logits import following, logits_of
from rkstore.evaluation.report.page.probe import ProbePage, open_probe, probe_page
from rkstore.evaluation.report.page.scripts import script
from rkstore.evaluation.report.page.tally import Tally
from rkstore.evaluation.report.page.text import Text
from rkstore.evaluation.report.page.vocabulary import Vocabulary
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.codes import Codes
from rkstore.evaluation.samples.collect import check_room, choose
from rkstore.evaluation.samples.looking import Looking, look
from rkstore.evaluation.samples.names import read_names
from rkstore.evaluation.samples.samples import check_new
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import options_in
from rkstore.store.files import directory_aside, named, writing
from rkstore.store.open import open_readable

ASSETS = resources.files(__package__) / "assets"


def write_report(
    paths: Iterable[str | Path], settings: ReportSettings, *, replaces: bool = False
) -> Path:
    """Write the report of some dictionaries of one store; the latents shown are of the first.

    Same inputs, same bytes.

    Args:
        replaces: whether what is in the folder is removed, once the new report is whole.

    Returns:
        Its ``index.html``.

    Raises:
        BadInput: the folder is not empty; the store has no tokenizer, or a dictionary is not of
            its model; the names or the probe are not of this dictionary or store.
        RkstoreError: the disk is full; nothing is left.
    """
    out, given = named(settings.out), [named(path) for path in paths]
    if not replaces:
        check_new(out)
    check_room(settings)
    store = open_readable(settings.store, settings.paired_with)
    Vocabulary.of(np.empty(0, np.int64), store)  # refused before any work
    probed = None if settings.probe is None else open_probe(settings.probe, store)
    dictionary, _ = opened(given[0], store, settings)
    dictionary.to(settings.device).eval()
    names = read_names(settings.names, dictionary.d_sae)
    effects = effects_on_logits(dictionary, store, settings) if settings.loads_model else None
    runs = runs_of(given, measured(given, _evaluation(settings)))
    looking = look(dictionary, store, settings)
    text = Text.of(store, looking.chunks)
    latents, vocabulary = latents_of(dictionary, looking, settings, text, effects)
    of_runs = table(runs, given, 0)
    meta = overview.meta(store, runs[0], text, vocabulary, latents)
    meta |= of_runs | overview.cards(latents, names)
    meta["lede"] = overview.lede(store, runs, of_runs["told"])
    probe = None
    if probed is not None:
        probe = probe_page(probed, store, list(looking.chunks), text, vocabulary)
        meta["probe"] = probe.meta
    drawn = paper.figures(meta, None if probe is None else probe.scores)
    meta["figures"] = list(drawn)
    write_folder(out, meta, names, text, vocabulary, latents, probe, drawn, replaces=replaces)
    return out / "index.html"


def _evaluation(settings: ReportSettings) -> EvaluateSettings:
    """The evaluation that belongs to a report."""
    shared = ("store", "paired_with", "special_tokens", "max_norm", "any_model", "device")
    names = (*shared, *options_in(DictionarySettings))
    return EvaluateSettings(**{name: getattr(settings, name) for name in names}, record=False)


def latents_of(
    dictionary: Dictionary,
    looking: Looking,
    settings: ReportSettings,
    text: Text,
    effects: Effects | None = None,
) -> tuple[Latents, Vocabulary]:
    """All that the page shows of a dictionary, from one pass over the rows that are looked at."""
    where = Path(tempfile.gettempdir())
    logits, ids = None, text.ids
    with tempfile.TemporaryFile(dir=where) as file:
        codes = Codes(file, where)
        samples = choose(dictionary, looking, settings, codes)
        if effects is not None:
            behind = following(codes, looking, effects.tokens)
            logits = logits_of(effects, behind)
            ids = np.concatenate([ids, logits.tokens])
        vocabulary = Vocabulary.of(ids, looking.store)
        tally = Tally(dictionary.d_sae, len(vocabulary), looking.count)
        for segment in codes:
            token = vocabulary.numbers(_tokens(looking, segment.text))
            tally.add(token, segment.place, segment.latent, segment.value)
    banks = decoders.wires(dictionary, looking.store)
    latents = Latents(
        samples=samples,
        text_rows=_text_rows(looking, samples.row),
        tokens=tally.found(),
        together=decoders.mutual(tally.together(NEIGHBOURS)),
        near=decoders.mutual(decoders.nearest(dictionary, NEIGHBOURS)),
        banks=banks,
        units=decoders.units(dictionary, UNITS),
        norms=decoders.decoder_norms(dictionary),
        cosines=decoders.cosines_of_coders(dictionary),
        shares=decoders.shares_of_first(dictionary, banks),
        logits=logits,
    )
    return latents, vocabulary


def _tokens(looking: Looking, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The tokenizer's ids at ascending rows of the text."""
    source, _ = looking.store.in_text(looking.store.first_row, looking.store.first_row)
    first = int(rows[0])
    ids = source.column("token_id", first, int(rows[-1]) + 1)
    return ids[rows - first].astype(np.int64)


def _text_rows(looking: Looking, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in any order as rows of the text."""
    some, places = np.unique(rows, return_inverse=True)
    return looking.in_text(some)[places] if len(some) else rows


def write_folder(
    out: Path,
    meta: Mapping[str, Any],
    names: Mapping[str, str],
    text: Text,
    vocabulary: Vocabulary,
    latents: Latents,
    probe: ProbePage | None = None,
    drawn: Mapping[str, paper.Drawn] | None = None,
    *,
    replaces: bool = False,
) -> None:
    """Write all files of a report, or none.

    Raises:
        RkstoreError: the disk is full, or the folder is not empty.
    """
    with writing(out, "nothing was written"), directory_aside(out, replaces=replaces) as at:
        pages = _files(meta, names, text, vocabulary, latents, probe)
        figures = ((f"figures/{name}", content) for name, content in paper.files(drawn or {}))
        for path, content in itertools.chain(pages, figures):
            target = at / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _files(
    meta: Mapping[str, Any],
    names: Mapping[str, str],
    text: Text,
    vocabulary: Vocabulary,
    latents: Latents,
    probe: ProbePage | None,
) -> Iterator[tuple[str, bytes]]:
    """The files of a report, by path, one at a time."""
    yield "index.html", (ASSETS / "index.html").read_bytes()
    for name in ("report.css", "theme.js", "start.js"):
        yield f"assets/{name}", (ASSETS / name).read_bytes()
    yield "assets/report.js", report_script()
    yield "data/meta.js", script("meta", meta)
    yield "data/labels.js", script("labels", dict(names))
    yield "data/vocab.js", vocabulary.script()
    yield from text.files(vocabulary)
    yield from latents.files(text, vocabulary)
    if probe:
        yield "data/probe.js", probe.script()


def report_script() -> bytes:
    """The page's code as one script, whose names are its own."""
    parts: Sequence[Any] = sorted((ASSETS / "js").iterdir(), key=lambda part: part.name)
    code = "\n".join(part.read_text("utf-8") for part in parts if part.name.endswith(".js"))
    return f'"use strict";\n(function () {{\n{code}\n}})();\n'.encode()
