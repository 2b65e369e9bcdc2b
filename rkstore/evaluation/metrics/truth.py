"""Where the features are known: the scores of a planted store, beside their chance levels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from rkstore.errors import BadInput
from rkstore.evaluation.metrics.base import Given, Integers, Metric, Seen, Totals, decoder_of
from rkstore.planted.scores import (
    CodeCounts,
    CodeScores,
    DirectionScores,
    best_features,
    chance_directions,
    direction_scores,
)
from rkstore.store.paired import PairedStore
from rkstore.store.readable import Readable
from rkstore.store.store import Store

if TYPE_CHECKING:
    from rkstore.planted.features import Planted

# Draws of random directions behind their chance level, and with how many cosines they are one: the
# best matching of 4,096 latents and 16,384 features takes a while.
DRAWS, MANY = 10, 10_000_000


@dataclass(frozen=True)
class TruthNumbers:
    """Scores as in SynthSAEBench (arXiv 2602.14687): see :mod:`rkstore.planted.scores`."""

    features: int
    """Those that are part of a written site."""
    directions: DirectionScores
    chance: DirectionScores
    """Of random directions, as many and as wide."""
    code: CodeScores


class Truth(Metric):
    """Counts of what fires, against the true code of the same rows."""

    name = "planted"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        assert given.planted is not None
        self._planted = given.planted
        decoder = decoder_of(given.dictionary)
        self._part, self._features = self._planted.at(*planted_names(given, self._planted))
        self._decoder = np.concatenate([d.cpu().numpy() for d in decoder.values()], axis=1)
        self._counts = CodeCounts(best_features(self._decoder, self._features))

    @classmethod
    def applies(cls, given: Given) -> bool:
        """The store was planted, and has the written sites."""
        return given.planted is not None and bool(planted_names(given, given.planted))

    def add(self, seen: Seen) -> None:
        if seen.numbers is None:
            raise BadInput("true codes are of numbered rows: give their numbers in the store")
        true = np.concatenate([self._planted.codes(*run) for run in _runs(seen.numbers)])
        x, found = (
            np.concatenate([part.cpu().numpy() for part in sites.values()], axis=1)
            for sites in (seen.written, seen.found)
        )
        self._counts.add(seen.on.cpu().numpy(), true[:, self._part], x, found)

    def merge(self, other: Self) -> None:
        self._counts.merge(other._counts)

    def result(self, totals: Totals) -> TruthNumbers:  # noqa: ARG002
        draws = DRAWS if len(self._decoder) * len(self._features) < MANY else 1
        return TruthNumbers(
            len(self._features),
            direction_scores(self._decoder, self._features),
            chance_directions(self._decoder, self._features, draws),
            self._counts.scores(),
        )


def planted_of(store: Readable) -> "Planted | None":
    """The features that a store was planted with; None if they are not known.

    Raises:
        BadInput: this version draws others.
    """
    from rkstore.planted.truth import planted_in

    one = store.first if isinstance(store, PairedStore) else store
    source = one.manifest.source
    if not isinstance(one, Store) or "planted" not in source or "imported_from" in source:
        return None
    return planted_in(one)


def model_of(store: Readable) -> str:
    """Which of two planted models a store is of; empty of any other store."""
    model, planted = store.manifest.source.get("model"), store.manifest.source.get("planted")
    name = str(model.get("name")) if isinstance(model, dict) and planted else ""
    return name.removeprefix("planted-") if name.startswith("planted-") else ""


def planted_names(given: Given, planted: "Planted") -> tuple[str, ...]:
    """The written sites under their names in the truth; none if it lacks one of them.

    A store of one of two models has its site without the model's name.
    """
    known = planted.directions
    found = []
    for site in given.dictionary.wiring.writes:
        name = f"{given.model}:{site.hook_name}" if given.model else site.hook_name
        if name not in known:
            return ()
        found.append(name)
    return tuple(found)


def _runs(numbers: Integers) -> list[tuple[int, int]]:
    """Consecutive row numbers as ranges."""
    ends = np.flatnonzero(np.diff(numbers) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(numbers, ends)]
