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
from rkstore.dictionaries.disk import UNNAMED, load_dictionary
from rkstore.dictionaries.rows import Rows
from rkstore.errors import BadInput, few
from rkstore.evaluation.chance import CALIBRATION_ROWS, CHANCE_ROWS, chance_of
from rkstore.evaluation.checkpoints import doubts, mined_of, names, prefixes_of
from rkstore.evaluation.measure import DENSITY_EDGES, Evaluation, Measure
from rkstore.evaluation.metrics import METRICS
from rkstore.evaluation.metrics.base import Given
from rkstore.evaluation.metrics.documents import check_documents
from rkstore.evaluation.metrics.truth import model_of, planted_of
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
from rkstore.store.sites import Site, head_of

# What of a result says how it was asked for, and options that change a number in it.
OF_CALL = ("name", "path", "rows_sha256")
CHANGING = ("special_tokens", "max_norm", "chance", "seed", "device")


def evaluate(paths: Iterable[str | Path], settings: EvaluateSettings) -> list[Evaluation]:
    """Evaluate dictionaries on the held-out rows of a store, reading each set of sites once.

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
    chunks = _first_chunks(store, split_chunks(store)[1], settings.rows)
    if not chunks:
        raise BadInput(
            f"the store at {store.where} has no held-out rows in its rows "
            f"{store.first_row}:{store.stop_row}: pull more of them"
        )
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
    if settings.intervals:
        check_documents({result.name: result.metrics.get("intervals") for result, _ in found})
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
        training = split_chunks(store)[0]
        most = -(-CALIBRATION_ROWS // store.manifest.chunk_rows)
        step = max(1, len(training) // most)
        self.fitted = training[::step][:most] or self.chunks[:most]
        self.found: dict[Any, Evaluation] = {}

    def of(self, one: "_Measured", result: Evaluation) -> Evaluation:
        """What a random dictionary like that one scores."""
        dictionary = one.given.dictionary
        rule, state = dictionary.pools[0].rule, dict(dictionary.pools[0].named_buffers())
        key = (dictionary.wiring, rule.name, str(rule), dictionary.row_norm, result.l0)
        if state or list(dictionary.pools[0].parameters()) or key not in self.found:
            fitted = next(self._rows(one.sites, self.fitted, CALIBRATION_ROWS))
            batches = self._rows(one.sites, self.chunks, self.settings.batch_size)
            self.found[key] = chance_of(one.given, fitted, batches, result, self.settings.seed)
        return self.found[key]

    def _rows(self, sites: tuple[str, ...], chunks: list[int], size: int) -> Iterator[Rows]:
        left = _left_out(self.store, sites, chunks, self.settings)
        for batch in read_rows(self.store, sites, chunks, size, left):
            yield _tensors(batch, sites, self.settings.device)


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
    dictionary, metadata = load_dictionary(path)
    for site in dictionary.wiring.sites:
        check_site(path, site, metadata, store)
    needed = {site.hook_name for site in dictionary.wiring.sites}
    sites = tuple(hook_name for hook_name in store.hook_names if hook_name in needed)
    notes = doubts(path, metadata, store, any_model=settings.any_model)
    given, doubt = _given(path, dictionary.to(settings.device), metadata, store)
    measure = Measure(dictionary, prefixes_of(path, metadata), METRICS, given)
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


def check_site(path: str | Path, site: Site, metadata: dict[str, Any], store: Readable) -> None:
    """Raise BadInput unless the store has the site of a dictionary, in its width."""
    if site.hook_name not in store.hook_names:
        if site.hook_name == UNNAMED and not metadata.get("hook_name"):
            raise BadInput(
                f"{path} does not say what it is for: write the hook_name of its activations into "
                "the metadata of its cfg.json"
            )
        raise BadInput(
            f"'{site.hook_name}' is not in the store at {store.where}, which has "
            f"{few(store.hook_names)}, and {path} needs it: {_remedy(site.hook_name, store)}"
        )
    width = store.manifest.width(site.hook_name)
    if site.width != width:
        raise BadInput(
            f"{path} is for activations {site.width} wide, "
            f"{site.hook_name} in {store.where} is {width} wide"
        )


def _remedy(hook_name: str, store: Readable) -> str:
    """What to do about a site that is not in a store."""
    of_pair, paired = ":" in hook_name, any(":" in name for name in store.hook_names)
    if of_pair and not paired:
        return "it is for two stores, so give the second one with --paired-with"
    if paired and not of_pair:
        return "it is for one store, so leave out --paired-with"
    own, head = head_of(hook_name.rpartition(":")[2])
    apart = "" if head is None else " --heads apart"
    return f"harvest it with --hook {own}{apart}, or pull it if this is a part of a store"


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


def _first_chunks(store: Readable, chunks: list[int], rows: int | None) -> list[int]:
    """The first chunks that hold at least ``rows`` rows; all by default."""
    if rows is None:
        return chunks
    lengths = [stop - start for start, stop in map(store.rows_of_chunk, chunks)]
    needed = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    return chunks[:needed]
