"""Dictionaries × held-out rows → the quality of their latents."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import doubts, mined_of, names
from rkstore.evaluation.evaluate import held_out_chunks
from rkstore.evaluation.latents.absorption import Absorption, Direction, absorption, direction_of
from rkstore.evaluation.latents.classes import Labels, usual_classes
from rkstore.evaluation.latents.directions import decoder_directions, encoder_directions
from rkstore.evaluation.latents.features import code_of, principal_components, random_code
from rkstore.evaluation.latents.matching import Stability, stability
from rkstore.evaluation.latents.probing import (
    Accuracy,
    Balanced,
    ClassProbe,
    dense_probe,
    probe,
)
from rkstore.evaluation.latents.sample import Floats, Sample, labels_of, sample
from rkstore.evaluation.latents.settings import QualitySettings
from rkstore.evaluation.latents.spread import Mined, Spreads, mined_against_rest, spreads
from rkstore.evaluation.metrics.truth import planted_of
from rkstore.evaluation.opened import opened
from rkstore.evaluation.results import Entry
from rkstore.planted.classes import planted_classes
from rkstore.settings import check_device, identity_of
from rkstore.store.batches.kept import at_any, left_out
from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.sites import Site

# What of a result says how it was asked for, and options that change a number in it.
OF_CALL = ("name", "path", "notes")
CHANGING = ("k", "special_tokens", "max_norm", "seed", "device")

# The classes of the rows of a sample.
Labelled = Callable[[Sample], Labels]

Sites = tuple[Site, ...]


@dataclass(frozen=True)
class Quality:
    """The latents of one dictionary."""

    name: str
    path: str
    hook_name: str
    d_sae: int
    l0: float
    spreads: Spreads
    mined: Mined | None
    """None if its training records no mined latents."""
    probes: tuple[ClassProbe, ...]
    absorption: tuple[Absorption, ...]
    notes: tuple[str, ...]
    """What was left out, and reasons to doubt the comparison."""

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON gives it back."""
        found: dict[str, Any] = json.loads(to_json(asdict(self)))
        return found


@dataclass(frozen=True)
class Pair:
    """Two dictionaries of the same sites."""

    one: str
    other: str
    stability: Stability


@dataclass(frozen=True)
class Judged:
    """The quality of some dictionaries, on the same rows."""

    rows: int
    rows_sha256: str
    """SHA-256 of the numbers of the rows, int64, little-endian."""
    groups: int
    unit: str
    """Whole documents or contexts were drawn, and part of them trained the probes."""
    classes: str | None
    """Which token classes were probed for."""
    qualities: tuple[Quality, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    """Of all of them: classes without enough examples, and why there are no classes."""

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def judge(
    paths: Iterable[str | Path], settings: QualitySettings, labelled: Labelled | None = None
) -> Judged:
    """Judge the latents of dictionaries on held-out rows of a store.

    Args:
        labelled: gives the classes of the rows, instead of the store's text.

    Raises:
        BadInput: a path holds no dictionary or is given twice, one of its sites is not in the
            store or has another width, it is of another model; there are too few held-out
            documents; or classes are asked for that the store cannot have.
    """
    check_device(settings.device)
    store = open_readable(settings.store, settings.paired_with)
    given = list(paths)
    if not given:
        raise BadInput("there is nothing to judge: give at least one checkpoint")
    classes = "given" if labelled else _classes(store, settings.classes)
    opened = [_opened(*each, store, settings) for each in zip(given, names(given), strict=True)]
    sites = dict.fromkeys(site for one in opened for site in one.dictionary.wiring.sites)
    chosen = _sample(store, tuple(sites), settings)
    labels = labelled(chosen) if labelled else _labels(chosen, classes)
    rows, refused = _balanced(labels, chosen, settings.seed)
    bench = _Bench(chosen, labels, rows, settings)
    qualities = tuple(bench.judge(one) for one in opened)
    pairs, unmatched = _pairs(opened, chosen, settings.seed)
    said = [*refused, *unmatched]
    if classes is None:
        said.append(f"{store.where} has no tokenizer, so its tokens have no classes to probe for")
    digest = hashlib.sha256(chosen.rows.astype("<i8").tobytes()).hexdigest()
    return Judged(
        rows=len(chosen.rows),
        rows_sha256=digest,
        groups=chosen.groups,
        unit=chosen.unit,
        classes=classes,
        qualities=qualities,
        pairs=pairs,
        notes=tuple(said),
    )


def write_judged(
    judged: Judged, text: str, store: Readable, settings: QualitySettings, out: Path
) -> None:
    """Write ``quality.json`` and the tables, ``quality.md``, to a directory."""
    document = {
        "store_fingerprint": store.manifest.fingerprint,
        "settings": identity_of(settings),
        **judged.as_dict(),
    }
    write_together(
        {
            out / "quality.json": (to_json(document, indent=1) + "\n").encode(),
            out / "quality.md": f"{text}\n".encode(),
        }
    )


def entry_of(quality: Quality, judged: Judged, store: Readable, settings: QualitySettings) -> Entry:
    """The quality of one dictionary for the record of its checkpoint."""
    result = quality.as_dict()
    for name in OF_CALL:
        del result[name]
    rows = {"count": judged.rows, "sha256": judged.rows_sha256}
    options = {name: getattr(settings, name) for name in CHANGING} | {"classes": judged.classes}
    options = json.loads(to_json(options))  # as it is read again
    return Entry("latents", store.manifest.fingerprint, rows, options, result)


@dataclass(frozen=True)
class _Opened:
    path: str
    name: str
    dictionary: Dictionary
    notes: tuple[str, ...]
    mined: Sequence[int]


def _opened(path: str | Path, name: str, store: Readable, settings: QualitySettings) -> _Opened:
    """Load a dictionary, or raise BadInput if it does not fit the store."""
    dictionary, metadata = opened(path, store, settings)
    notes = doubts(path, metadata, store, any_model=settings.any_model)
    mined = mined_of(path, metadata, dictionary.d_sae)
    return _Opened(str(path), name, dictionary.to(settings.device).eval(), tuple(notes), mined)


def _sample(store: Readable, sites: Sites, settings: QualitySettings) -> Sample:
    """Held-out rows that are not left out at any of the sites."""
    chunks = held_out_chunks(store, None)
    special_tokens, max_norm = settings.special_tokens, settings.max_norm
    out = at_any(
        [
            left_out(store, n.hook_name, chunks, special_tokens=special_tokens, max_norm=max_norm)
            for n in sites
        ]
    )
    return sample(store, chunks, out, settings.rows, settings.seed)


def _classes(store: Readable, asked: str | None) -> str | None:
    """Which classes the tokens of a store have: those that are asked for, or its own; None if it
    does not have a text."""
    planted = planted_of(store) is not None
    if asked == "planted" and not planted:
        raise BadInput(
            f"{store.where} was not planted, or was imported since: --classes planted is for a "
            "store of 'rkstore plant'"
        )
    if asked is not None:
        return asked
    return "planted" if planted else usual_classes(store) if store.has_words else None


def _labels(chosen: Sample, classes: str | None) -> Labels:
    """The classes of the rows."""
    if classes == "planted":
        truth = planted_of(chosen.store)
        assert truth is not None
        return planted_classes(truth, chosen.rows)
    return {} if classes is None else labels_of(chosen, classes)


def _balanced(labels: Labels, chosen: Sample, seed: int) -> tuple[dict[str, Balanced], list[str]]:
    """The rows of each class that has enough, and a sentence for each that has not."""
    found, refused = {}, []
    for name, of_rows in labels.items():
        try:
            found[name] = Balanced.of(name, of_rows, chosen.train, seed)
        except BadInput as error:
            refused.append(f"left out: {error.sentence}")
    return found, refused


def _pairs(
    opened: Sequence[_Opened], chosen: Sample, seed: int
) -> tuple[tuple[Pair, ...], list[str]]:
    """Every two dictionaries of the same sites, and a sentence for those that are too large."""
    found, refused = [], []
    for one, other in combinations(opened, 2):
        own, its = one.dictionary.wiring, other.dictionary.wiring
        if (own.reads, own.writes) != (its.reads, its.writes):
            continue
        sizes = {site.hook_name: chosen.size(site.hook_name) for site in own.sites}
        decoders, encoders = (
            (of(one.dictionary, sizes), of(other.dictionary, sizes))
            for of in (decoder_directions, encoder_directions)
        )
        try:
            found.append(Pair(one.name, other.name, stability(decoders, encoders, seed)))
        except BadInput as error:
            refused.append(f"{one.name} and {other.name}: {error.sentence}")
    return tuple(found), refused


class _Bench:
    """What dictionaries share: the rows, and what does not depend on a dictionary."""

    def __init__(
        self,
        chosen: Sample,
        labels: Labels,
        rows: Mapping[str, Balanced],
        settings: QualitySettings,
    ) -> None:
        self.chosen, self.labels, self.rows, self.settings = chosen, labels, rows, settings
        # Of the last sites alone: they are large.
        self._centred: dict[Sites, Floats] = {}
        self._components: dict[Sites, Floats] = {}
        self._dense: dict[tuple[Sites, str], Accuracy] = {}
        self._directions: dict[tuple[Sites, str], Direction] = {}

    def judge(self, one: _Opened) -> Quality:
        """The quality of one dictionary."""
        chosen, seed, dictionary = self.chosen, self.settings.seed, one.dictionary
        code = code_of(dictionary, chosen, self.settings.batch_size)
        sites = dictionary.wiring.sites
        sizes = {site.hook_name: chosen.size(site.hook_name) for site in sites}
        decoders = decoder_directions(dictionary, sizes)
        norms = np.linalg.norm(decoder_directions(dictionary, {}), axis=1)
        probes = tuple(self._probes(dictionary, code)) if self.rows else ()
        found, notes = self._absorption(dictionary, code, decoders)
        return Quality(
            name=one.name,
            path=one.path,
            hook_name=",".join(site.hook_name for site in dictionary.wiring.reads),
            d_sae=dictionary.d_sae,
            l0=code.count_nonzero() / code.shape[0],
            spreads=spreads(code, chosen.tokens, seed),
            mined=mined_against_rest(code, norms, one.mined, seed),
            probes=probes,
            absorption=tuple(found),
            notes=(*one.notes, *notes),
        )

    def _probes(self, dictionary: Dictionary, code: Any) -> Iterable[ClassProbe]:
        chosen, seed, sites = self.chosen, self.settings.seed, dictionary.wiring.reads
        raw = self._side_by_side(sites)
        if sites not in self._components:
            self._components = {sites: principal_components(chosen, sites, seed)}
        random = random_code(dictionary, code, chosen, seed, self.settings.batch_size)
        features = {
            "latents": code,
            "random dictionary": random,
            "raw dimensions": raw,
            "PCA": self._components[sites],
        }
        for name in tqdm(self.rows, desc="probe", unit="class", disable=None):
            rows = self.rows[name]
            if (sites, name) not in self._dense:
                self._dense[sites, name] = dense_probe(rows, raw, chosen.group, seed)
            dense = self._dense[sites, name]
            yield probe(name, rows, features, dense, chosen.group, self.settings.k, seed)

    def _absorption(
        self, dictionary: Dictionary, code: Any, decoders: Any
    ) -> tuple[list[Absorption], list[str]]:
        """Of each class, and what was left out."""
        sites = dictionary.wiring.writes
        if not self.rows:
            return [], []
        if dictionary.row_norm != "none" or dictionary.wiring.views > 1:
            return [], ["no absorption: what a latent writes is not its activation times a row"]
        b_dec = dictionary.b_dec.detach().cpu().double().numpy()
        written = self.chosen.side_by_side(sites, b_dec)
        found, refused = [], []
        for name in tqdm(self.rows, desc="absorption", unit="class", disable=None):
            try:
                direction = self._direction(sites, name)
                rows, seed = self.rows[name], self.settings.seed
                found.append(absorption(name, rows, direction, code, written, decoders, seed))
            except BadInput as error:
                refused.append(f"no absorption: {error.sentence}")
        return found, refused

    def _direction(self, sites: Sites, name: str) -> Direction:
        if (sites, name) not in self._directions:
            tokens = np.flatnonzero((self.labels[name] == 1) & ~self.chosen.train)
            x = self._side_by_side(sites)
            self._directions[sites, name] = direction_of(name, self.rows[name], tokens, x)
        return self._directions[sites, name]

    def _side_by_side(self, sites: Sites) -> Floats:
        """Activations of some sites, centred."""
        if sites not in self._centred:
            self._centred = {sites: self.chosen.side_by_side(sites)}
        return self._centred[sites]
