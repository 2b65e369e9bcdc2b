"""Dictionaries × held-out blocks × their model → how it predicts with reconstructions in it.

The one place outside ``harvest/`` that loads a model. Definitions: Bricken et al. (2023), "Towards
Monosemanticity" (cross-entropy recovered); Ameisen et al. (2025), "Circuit Tracing" (replacement
model, error nodes).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError
from rkstore.evaluation.blocks import HeldOutBlocks
from rkstore.evaluation.chance import random_like
from rkstore.evaluation.checkpoints import doubts, names
from rkstore.evaluation.evaluate import CHANGING, calibration_rows, held_out_chunks
from rkstore.evaluation.metrics.base import fires
from rkstore.evaluation.metrics.documents import LEAST_DOCUMENTS
from rkstore.evaluation.opened import opened
from rkstore.evaluation.passes import Batch, Given, Pass, Planned, planned
from rkstore.evaluation.predictions import CLEAN, PerRow, Reference, SpliceEvaluation, evaluation
from rkstore.evaluation.results import Entry
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.evaluation.splices import Splice
from rkstore.evaluation.steering import Steering, SteeringEvaluation
from rkstore.settings import check_device
from rkstore.store.files import write_together
from rkstore.store.jsontext import to_json
from rkstore.store.open import open_readable
from rkstore.store.paired import PairedStore
from rkstore.store.readable import Readable

if TYPE_CHECKING:
    from rkstore.harvest.model import Model

# Logits of a batch: 256 MB in float32, of which some copies are made.
LOGITS = 2**26

# Share of the variance of a site by which the rows that the model computes may differ from those
# stored: far above the error of any codec, far below what another model or other tokens give.
SAME_ROWS = 0.5


@dataclass(frozen=True)
class FunctionalEvaluation:
    """How a model predicts with one dictionary in it."""

    name: str
    """The shortest suffix of the checkpoint's path that no other checkpoint has."""
    path: str
    notes: tuple[str, ...]
    splices: tuple[SpliceEvaluation, ...]
    """Of each written site, and of all sites of a model at once if it has several."""
    steering: tuple[SteeringEvaluation, ...] = ()
    """Of each group of latents, with ``--steer``."""

    def as_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return {
            "name": self.name,
            "path": self.path,
            "notes": list(self.notes),
            "splices": [splice.as_dict() for splice in self.splices],
            "steering": [group.as_dict() for group in self.steering],
        }

    def recorded(self) -> dict[str, Any]:
        """Numbers by name for the record: those of all sites at once, then of each site.

        Of two models, those of each under its name.
        """
        by_model: dict[str, list[SpliceEvaluation]] = {}
        for splice in self.splices:
            by_model.setdefault(splice.prefix, []).append(splice)
        found = {
            prefix: splices[-1].flat()
            | {"sites": {splice.sites[0]: splice.flat() for splice in splices[:-1]}}
            for prefix, splices in by_model.items()
        }
        return found.get("") or {prefix.rstrip(":"): numbers for prefix, numbers in found.items()}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model of a store."""

    model: "Model"
    prefix: str
    """What the names of its sites begin with: nothing, or ``base:`` and ``chat:`` of a pair."""
    notes: tuple[str, ...]
    """Why it may not be the store's model."""

    def order(self, sites: Iterable[str]) -> list[str]:
        """Those of some sites that are its own, in the order of computation."""
        place = {name: i for i, name in enumerate(self.model.widths)}
        own = [site for site in sites if site.startswith(self.prefix)]
        return sorted(own, key=lambda site: place[self.model.hook_of(self.bare(site))[0]])

    def bare(self, site: str) -> str:
        """The name that the model has for one of its sites."""
        return site.removeprefix(self.prefix)

    def logits(self, tokens: NDArray[np.int64], sites: Sequence[str], splice: Splice) -> Tensor:
        """A pass over blocks of tokens, ``(blocks, context_size, vocabulary)``."""
        from rkstore.harvest.edited import logits

        def edit(site: str, rows: Tensor) -> Tensor | None:
            return splice(self.prefix + site, rows)

        return logits(self.model, tokens, [self.bare(site) for site in sites], edit)


class Functional:
    """Dictionaries and the model of their store, ready to be measured.

    Args:
        paths: checkpoints.
        by: row numbers → what their intervals are by; the documents of the rows by default.

    Raises:
        BadInput: no row is held out, the store has no tokens, too few documents or another model;
            a path holds no dictionary, or one of other sites, or of sites at which nothing can be
            replaced.
        RkstoreError: the Hub cannot be reached.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        settings: EvaluateSettings,
        by: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
    ) -> None:
        check_device(settings.device)
        self.settings, self.by = settings, by
        self.store = open_readable(settings.store, settings.paired_with)
        chunks = held_out_chunks(self.store, settings.rows)
        self.blocks = HeldOutBlocks.of(self.store, chunks, settings.blocks)
        paths = list(paths)
        if not paths:
            raise BadInput("there is nothing to evaluate: give at least one checkpoint")
        self.given = [
            self._given(path, name) for path, name in zip(paths, names(paths), strict=True)
        ]
        if settings.intervals:
            self._check_documents()
        self.models = models_of(self.store, settings.model, settings.device)
        self._check_sites()
        self.steering = [Steering(self, one) for one in self.given] if settings.steer else []
        self.plan = [(loaded, self._planned(loaded)) for loaded in self.models]

    def _planned(self, loaded: Loaded) -> list[Planned]:
        """The splices of all dictionaries in one model."""
        each_site = self.settings.each_site
        return [
            splice
            for one in self.given
            for splice in planned(one, loaded.order(one.sites), each_site=each_site)
        ]

    def run(self) -> list[FunctionalEvaluation]:
        """Run the model over the blocks, once for each pass.

        Raises:
            BadInput: the model does not compute the rows that are stored.
        """
        passes = [(loaded, _distinct(several)) for loaded, several in self.plan]
        found: dict[tuple[Any, ...], list[PerRow]] = {}
        total = len(self.blocks) * sum(1 + len(several) for _, several in passes)
        with tqdm(total=total, unit="block", desc="run the model", disable=None) as bar:
            for begin in range(0, len(self.blocks), self._at_once):
                here = slice(begin, min(begin + self._at_once, len(self.blocks)))
                tokens, batch, clean = self.clean(here)
                for (loaded, several), reference in zip(passes, clean, strict=True):
                    found.setdefault((loaded.prefix, CLEAN), []).append(reference.itself())
                    bar.update(len(tokens))
                    for each in several:
                        logits = loaded.logits(tokens, each.sites, each.splice(batch))
                        found.setdefault(each.key, []).append(reference.compared(logits))
                        bar.update(len(tokens))
        joined = {key: PerRow.joined(parts) for key, parts in found.items()}
        found_of = [self._result(one, joined) for one in self.given]
        if not self.steering:
            return found_of
        return [
            replace(result, steering=steering.run())
            for result, steering in zip(found_of, self.steering, strict=True)
        ]

    def entry_of(self, result: FunctionalEvaluation) -> Entry:
        """A result for the record of its checkpoint."""
        one = next(one for one in self.given if one.path == result.path)
        rows = self.blocks.rows[one.chosen & self.blocks.held_out]
        digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
        return Entry(
            "model",
            self.store.manifest.fingerprint,
            {"count": len(rows), "sha256": digest},
            {name: getattr(self.settings, name) for name in CHANGING},
            result.recorded(),
        )

    def write(self, results: Sequence[FunctionalEvaluation], path: Path) -> None:
        """Write the numbers as JSON, with what they are of."""
        settings = self.settings
        document = {
            "store_fingerprint": self.store.manifest.fingerprint,
            "models": [loaded.model.describe()["model"] for loaded in self.models],
            "blocks": len(self.blocks),
            "special_tokens": settings.special_tokens,
            "max_norm": settings.max_norm,
            "results": [result.as_dict() for result in results],
        }
        write_together({path: (to_json(document, indent=2) + "\n").encode()})

    @property
    def _at_once(self) -> int:
        """Blocks in a batch."""
        vocabulary = max(loaded.model.capture.vocabulary for loaded in self.models)
        rows = min(self.settings.batch_size, LOGITS // vocabulary)
        return max(1, rows // int(self.blocks.rows.shape[1]))

    def clean(self, here: slice) -> tuple[NDArray[np.int64], Batch, list[Reference]]:
        """The clean runs of some blocks: their tokens, rows and reconstructions, and logits."""
        tokens, rows = self.blocks.tokens[here], dict[str, Tensor]()
        references = []
        for loaded in self.models:
            sites = loaded.order(dict.fromkeys(site for one in self.given for site in one.sites))

            def keep(site: str, x: Tensor) -> None:
                rows[site] = x

            references.append(Reference(loaded.logits(tokens, sites, keep), tokens))
        if here.start == 0:
            self._check_rows(here, rows)
        return tokens, Batch.of(here, rows, self.given), references

    def _given(self, path: str | Path, name: str) -> Given:
        settings = self.settings
        dictionary, metadata = opened(path, self.store, settings)
        notes = doubts(path, metadata, self.store, any_model=settings.any_model)
        sites = [site.hook_name for site in dictionary.wiring.sites]
        chosen = self.blocks.chosen(sites, settings.special_tokens, settings.max_norm)
        measured = (chosen & self.blocks.held_out).reshape(-1)
        means = {
            site.hook_name: torch.from_numpy(
                self.blocks.read(site.hook_name)[measured].mean(axis=0, dtype=np.float64)
            ).to(settings.device, torch.float32)
            for site in dictionary.wiring.writes
        }
        made = Given(str(path), name, dictionary.to(settings.device), tuple(notes), chosen, means)
        return replace(made, random=self._random(made)) if settings.chance else made

    def _random(self, one: Given) -> Given:
        """A random dictionary like one, on whose latents as many fire."""
        rows = calibration_rows(self.store, tuple(one.sites), self.settings)
        with torch.inference_mode():
            l0 = fires(one.dictionary.encode(rows)).sum(dim=-1).double().mean().item()
        dictionary = random_like(one.dictionary, rows, l0, self.settings.seed)
        return replace(one, name=f"{one.name} random", dictionary=dictionary)

    def _documents(self, one: Given) -> NDArray[np.int64]:
        """The documents of the rows that are measured."""
        rows = self.blocks.rows[one.chosen & self.blocks.held_out]
        if self.by is not None:
            return self.by(rows)
        found: NDArray[np.int64] = self.store["document", rows].astype(np.int64)
        return found

    def _check_documents(self) -> None:
        for one in self.given:
            count = len(np.unique(self._documents(one)))
            if count < LEAST_DOCUMENTS:
                raise BadInput(
                    f"the rows that {one.name} is measured on with the model are of {count} "
                    f"documents, too few for an interval: use more --blocks, a store with "
                    f"{LEAST_DOCUMENTS} documents in its held-out rows, or leave out --intervals"
                )

    def _check_sites(self) -> None:
        """Raise BadInput unless the models have the sites, and what is written can be replaced."""
        from rkstore.harvest.edited import check_has, check_logits, check_replaceable

        for loaded in self.models:
            check_logits(loaded.model)
            every = {site for one in self.given for site in one.sites}
            for site in sorted(every):
                if site.startswith(loaded.prefix):
                    check_has(loaded.model, loaded.bare(site))
            for site in loaded.order({site for one in self.given for site in one.writes}):
                check_replaceable(loaded.model, loaded.bare(site))

    def _check_rows(self, here: slice, rows: dict[str, Tensor]) -> None:
        """Raise BadInput unless the model computes what is stored of these blocks."""
        numbers = self.blocks.rows[here].reshape(-1)
        for one in self.given:
            chosen = one.chosen[here].reshape(-1)
            for site in one.sites:
                stored = self.store[site, numbers[chosen]].astype(np.float64)
                computed = rows[site].cpu().numpy()[chosen]
                error = np.square(computed - stored).sum()
                if not error <= SAME_ROWS * np.square(stored - stored.mean(axis=0)).sum():
                    raise BadInput(
                        f"the rows of {site} in {self.store.where} are not what the model computes "
                        "of their tokens: give the model that they were harvested from with --model"
                    )

    def _result(self, one: Given, passes: dict[tuple[Any, ...], PerRow]) -> FunctionalEvaluation:
        measured = (one.chosen & self.blocks.held_out).reshape(-1)
        found = []
        for loaded, several in self.plan:
            for each in (each for each in several if each.given is one):
                own = {name: passes[one_pass.key] for name, one_pass in each.passes.items()}
                own[CLEAN] = passes[loaded.prefix, CLEAN]
                splice = (loaded.model.name, loaded.prefix, each.sites, each.feedback)
                found.append(evaluation(splice, own, measured, self._documents(one)))
        notes = (*one.notes, *(note for loaded in self.models for note in loaded.notes))
        return FunctionalEvaluation(one.name, one.path, notes, tuple(found))


def _distinct(several: Iterable[Planned]) -> list[Pass]:
    """Each pass once."""
    found = {one.key: one for each in several for one in each.passes.values()}
    return list(found.values())


def models_of(store: Readable, given: Sequence[str], device: str) -> list[Loaded]:
    """The models of a store, or of both stores of a pair.

    Args:
        given: what to load instead of the recorded names: nothing, or one for each store.

    Raises:
        BadInput: a model is not found, or has other weights than the store's.
    """
    stores: list[tuple[str, Readable]] = [("", store)]
    if isinstance(store, PairedStore):
        stores = [
            (f"{name}:", own)
            for name, own in zip(store.names, (store.first, store.second), strict=True)
        ]
    if len(given) not in (0, len(stores)):
        raise BadInput(
            f"--model is given {len(given)} times for {len(stores)} stores: give one for each, in "
            "the order of --store and --paired-with"
        )
    return [
        _loaded(own, prefix, name, device) for (prefix, own), name in zip_longest(stores, given)
    ]


def _loaded(store: Readable, prefix: str, given: str | None, device: str) -> Loaded:
    """The model of one store.

    Raises:
        BadInput: it is another one, or it is not found.
    """
    from rkstore.harvest.load import load_model

    recorded = store.manifest.source.get("model") or {}
    known, name = recorded.get("weights_sha256"), given or recorded.get("name")
    if not name:
        raise BadInput(f"{store.where} does not record its model: give it with --model")
    revision = recorded.get("revision") if name == recorded.get("name") else None
    dtype = str(recorded.get("dtype") or "float32")
    captured = {key: str(recorded[key]) for key in ("capture",) if key in recorded}
    try:
        model = load_model(str(name), device=device, dtype=dtype, revision=revision, **captured)
    except RkstoreError:
        if given:
            raise
        raise BadInput(
            f"the model of {store.where} is not found by its recorded name, {name}: give its "
            "directory with --model"
        ) from None
    digest = model.describe()["model"]["weights_sha256"]
    if known not in (None, digest):
        raise BadInput(
            f"{name} has other weights ({digest[:12]}) than the model of {store.where} "
            f"({known[:12]}): give that one with --model"
        )
    unknown = f"{store.where} does not record the weights of its model: they are unverified"
    return Loaded(model, prefix, () if known else (unknown,))
