"""Dictionaries × held-out rows → metrics, in the units of the activations."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.errors import BadInput, few
from rkstore.evaluation.chance import CALIBRATION_ROWS, CHANCE_ROWS, chance_of
from rkstore.evaluation.checkpoints import doubts, mined_of, names, prefixes_of
from rkstore.evaluation.measure import DENSITY_EDGES, Evaluation, Measure
from rkstore.evaluation.metrics import METRICS
from rkstore.evaluation.metrics.base import Given
from rkstore.evaluation.metrics.documents import check_documents
from rkstore.evaluation.metrics.truth import model_of, planted_of
from rkstore.evaluation.opened import opened
from rkstore.evaluation.results import Entry
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import check_device
from rkstore.store.batches.assemble import Batch, read_rows
from rkstore.store.batches.kept import LeftOut, at_any, left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.rows import column_of

# What of a result says how it was asked for, and options that change a number in it.
OF_CALL = ("name", "path", "rows_sha256")
CHANGING = ("special_tokens", "max_norm", "chance", "seed", "device")


def evaluate(paths: Iterable[str | Path], settings: EvaluateSettings) -> list[Evaluation]:
    """Evaluate dictionaries on the held-out rows of a store, reading each set of sites once.

    Args:
        paths: directories with a dictionary in any layout, or ``hf://`` URLs.

    Raises:
        BadInput: a path holds no dictionary or is given twice, one of its sites is not in the
            store or has another width, it is of another model, or there are no held-out rows.
    """
    return [result for result, _ in measured(paths, settings)]


def measured(
    paths: Iterable[str | Path], settings: EvaluateSettings
) -> list[tuple[Evaluation, Measure]]:
    """The results of :func:`evaluate`, each with its sums."""
    check_device(settings.device)
    store = open_readable(settings.store, settings.paired_with)
    chunks = held_out_chunks(store, settings.rows)
    given = list(paths)
    if not given:
        raise BadInput("there is nothing to evaluate: give at least one checkpoint")
    together = [_prepare(*each, store, settings) for each in zip(given, names(given), strict=True)]
    read = {
        sites: _read(store, sites, chunks, settings, [o for o in together if o.sites == sites])
        for sites in dict.fromkeys(one.sites for one in together)
    }
    chance = _Chance(store, chunks, settings)
    found = []
    for one in together:
        codec_fvu = {name: store.codec_fvu(name) for name in one.measure.by_site}
        result = one.measure.result(one.name, codec_fvu)
        result = replace(result, path=one.path, notes=one.notes, **vars(read[one.sites]))
        if one.given.mined:
            dead = int((one.measure.fired[list(one.given.mined)] == 0).sum())
            result = replace(result, dead_mined=dead)
        if settings.chance:
            result = replace(result, chance=chance.of(one, result))
        found.append((result, one.measure))
    return found


@dataclass(frozen=True)
class _Read:
    """Which rows were read, as an evaluation says it."""

    left_out: int
    rows_sha256: str


def _read(
    store: Readable,
    sites: tuple[str, ...],
    chunks: list[int],
    settings: EvaluateSettings,
    together: "Sequence[_Measured]",
) -> _Read:
    """Measure some dictionaries of the same sites on one reading of these."""
    rows, digest = _left_out(store, sites, chunks, settings), hashlib.sha256()
    if settings.intervals:
        kept = np.concatenate([rows.kept(*store.rows_of_chunk(chunk)) for chunk in chunks])
        check_documents(np.asarray(column_of(store, "document", kept), np.int64))
    for batch in _held_out(store, sites, chunks, settings.batch_size, rows):
        x = _tensors(batch, sites, settings.device)
        documents = np.asarray(column_of(store, "document", batch.rows), np.int64)
        digest.update(batch.rows.astype("<i8").tobytes())
        for one in together:
            one.measure.add(x, numbers=batch.rows, documents=documents)
    return _Read(len(rows.rows), digest.hexdigest())


def _tensors(batch: Batch, sites: Sequence[str], device: str) -> Rows:
    return {name: torch.from_numpy(batch.x[name]).to(device) for name in sites}


class _Chance:
    """Random dictionaries beside those that are evaluated; two alike have one."""

    def __init__(self, store: Readable, chunks: list[int], settings: EvaluateSettings) -> None:
        self.store, self.settings = store, settings
        self.chunks = _first_chunks(store, chunks, CHANCE_ROWS)
        self.found: dict[Any, Evaluation] = {}

    def of(self, one: "_Measured", result: Evaluation) -> Evaluation:
        """What a random dictionary like that one scores."""
        dictionary = one.given.dictionary
        rule, state = dictionary.pools[0].rule, dictionary.pools[0].state_dict()
        key = (dictionary.wiring, rule.name, str(rule), dictionary.row_norm, result.l0)
        # Thresholds, and the units of norms, are those of the dictionary.
        if state or dictionary.wiring.norm != "none" or key not in self.found:
            fitted = calibration_rows(self.store, one.sites, self.settings)
            batches = _rows(self.store, one.sites, self.chunks, self.settings)
            self.found[key] = chance_of(one.given, fitted, batches, result, self.settings.seed)
        return self.found[key]


def calibration_rows(
    store: Readable,
    sites: tuple[str, ...],
    settings: EvaluateSettings,
    most: int = CALIBRATION_ROWS,
) -> Rows:
    """Rows of the training chunks, evenly spread, that a few numbers are fitted to.

    Those of the random dictionaries, and of maps between two models.
    """
    training, held_out = split_chunks(store)
    count = -(-most // store.manifest.chunk_rows)
    step = max(1, len(training) // count)
    try:
        return next(_rows(store, sites, training[::step][:count], settings, most))
    except (StopIteration, BadInput):  # there are none, or all of them are left out
        return next(_rows(store, sites, held_out[:count], settings, most))


def _rows(
    store: Readable,
    sites: tuple[str, ...],
    chunks: list[int],
    settings: EvaluateSettings,
    size: int | None = None,
) -> Iterator[Rows]:
    left = _left_out(store, sites, chunks, settings)
    for batch in read_rows(store, sites, chunks, size or settings.batch_size, left):
        yield _tensors(batch, sites, settings.device)


@dataclass(frozen=True)
class _Measured:
    """One of several dictionaries that are evaluated together."""

    path: str
    name: str
    sites: tuple[str, ...]
    """Those that it reads or writes, in the order of the store."""
    notes: tuple[str, ...]
    measure: Measure
    given: Given


def _prepare(path: str | Path, name: str, store: Readable, settings: EvaluateSettings) -> _Measured:
    """Load a dictionary, or raise BadInput if it cannot be measured on that store."""
    dictionary, metadata = opened(path, store, settings)
    needed = {site.hook_name for site in dictionary.wiring.sites}
    sites = tuple(hook_name for hook_name in store.hook_names if hook_name in needed)
    notes = doubts(path, metadata, store, any_model=settings.any_model)
    given, doubt = _given(path, dictionary.to(settings.device), metadata, store)
    prefixes = prefixes_of(path, metadata, dictionary)
    measure = Measure(dictionary, prefixes, METRICS, given)
    return _Measured(str(path), name, sites, (*notes, *doubt), measure, given)


def _given(
    path: str | Path, dictionary: Dictionary, metadata: dict[str, Any], store: Readable
) -> tuple[Given, list[str]]:
    """What the metrics of a dictionary may know, and why they do not know more."""
    writes, doubt = dictionary.wiring.writes, []
    means = {site.hook_name: store.ordinary_statistics(site.hook_name).mean for site in writes}
    try:
        planted = planted_of(store)
    except BadInput as error:
        planted, doubt = None, [f"no scores against the truth: {error.sentence}"]
    mined = mined_of(path, metadata, dictionary.d_sae)
    return Given(dictionary, means, mined, planted, model_of(store)), doubt


def entry_of(result: Evaluation, store: Readable, settings: EvaluateSettings) -> Entry:
    """A result for the record of its checkpoint, without what depends on the call."""
    numbers = result.as_dict()
    rows = {"count": result.rows, "sha256": numbers.pop("rows_sha256")}
    for part in (numbers, numbers.get("chance", {})):
        for name in OF_CALL:
            part.pop(name, None)
    options = {name: getattr(settings, name) for name in CHANGING}
    return Entry("reconstruction", store.manifest.fingerprint, rows, options, numbers)


def write_results(results: list[Evaluation], store: Readable, path: Path) -> None:
    """Write the metrics as JSON, with the fingerprint of the store."""
    document = {
        "store_fingerprint": store.manifest.fingerprint,
        "density_log10_edges": DENSITY_EDGES.tolist(),
        "results": [result.as_dict() for result in results],
    }
    write_together({path: (to_json(document, indent=2) + "\n").encode()})


def _left_out(
    store: Readable, sites: Sequence[str], chunks: list[int], settings: EvaluateSettings
) -> LeftOut:
    """The rows that are left out at any of some sites, as in training."""
    special_tokens, max_norm = settings.special_tokens, settings.max_norm
    rows = at_any(
        [
            left_out(store, site, chunks, special_tokens=special_tokens, max_norm=max_norm)
            for site in sites
        ]
    )
    if len(rows.rows) == _count(store, chunks):
        raise BadInput(
            f"every held-out row of {store.where} is left out at one of {few(sites)}: "
            "use --special-tokens, or a larger --max-norm"
        )
    return rows


def _held_out(
    store: Readable, sites: Sequence[str], chunks: list[int], size: int, rows: LeftOut
) -> Iterable[Batch]:
    shown = f"evaluate {few(sites, 1)}"
    with tqdm(total=_count(store, chunks), unit="row", desc=shown, disable=None) as bar:
        for batch in read_rows(store, sites, chunks, size, rows):
            yield batch
            bar.update(len(batch.rows))


def _count(store: Readable, chunks: list[int]) -> int:
    """Rows of some chunks."""
    return sum(stop - start for start, stop in map(store.rows_of_chunk, chunks))


def held_out_chunks(store: Readable, rows: int | None) -> list[int]:
    """The first held-out chunks with at least ``rows`` rows; all if None.

    Raises:
        BadInput: there is none.
    """
    chunks = split_chunks(store)[1]
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no held-out rows in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
    return chunks if rows is None else _first_chunks(store, chunks, rows)


def _first_chunks(store: Readable, chunks: list[int], rows: int) -> list[int]:
    """The first chunks that hold at least ``rows`` rows."""
    lengths = [stop - start for start, stop in map(store.rows_of_chunk, chunks)]
    needed = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    return chunks[:needed]
