"""The probe: draw subsets, score them, keep the best, and find their directions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from rkstore.errors import BadInput
from rkstore.rkcnn.directions import DIRECTIONS, Directions, find_directions, keep_apart
from rkstore.rkcnn.moments import Doubles, Floats, Moments
from rkstore.rkcnn.result import RkCNNResult
from rkstore.rkcnn.scan import labels_at, scan
from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.scores.base import Comparison, DirectionScore, MomentScore, RowScore, Score
from rkstore.rkcnn.source import Source, StoreSite, open_source
from rkstore.rkcnn.spread import spread_rows
from rkstore.rkcnn.subsets import SUBSETS, Indices, Subsets, by_rotation
from rkstore.rkcnn.view import View, Without, orthonormal
from rkstore.settings import check_device, member_named

# Subsets whose directions and projections are held at once: 12 MB for d = 3072.
BLOCK_SUBSETS = 512

# Settings that every result depends on.
ALWAYS = (
    *("d_model", "m", "h", "r", "score_method", "k_neighbors", "seed", "sample_rows"),
    "query_rows",
)

# Refinements of the published method, with the values that disable them.
REFINEMENTS = {
    "subsets": "coordinates",
    "directions": "principal",
    "components": 1,
    "whiten": False,
    "rounds": 1,
    "max_cosine": 1.0,
}


@dataclass(frozen=True)
class Round:
    """The subsets that one round drew and kept."""

    subsets: Indices
    scores: Floats
    best: Indices
    """Numbers ``(r,)`` of the subsets kept."""
    directions: Floats
    """``(r · components, d_model)``, or none if they were not requested."""


class RkCNNProbe:
    """Finds directions in activations of width ``d_model``. Its settings are fixed."""

    def __init__(
        self,
        d_model: int,
        m: int | None = None,
        h: int = 600,
        r: int = 200,
        score_method: str | Score = "kurtosis",
        k_neighbors: int = 5,
        seed: int = 0,
        device: str = "cpu",
        sample_rows: int = 2000,
        query_rows: int | None = None,
        subsets: str | Subsets = "coordinates",
        directions: str | Directions = "principal",
        components: int = 1,
        whiten: bool = False,
        rounds: int = 1,
        max_cosine: float = 1.0,
    ) -> None:
        """Check the settings; nothing is drawn yet.

        Args:
            d_model: width of the activations.
            m: dimensions of a subset; by default the square root of ``d_model``, rounded down, as
            is usual for random subsets of features.
            h: subsets to draw. There may be fewer distinct ones, which are then all drawn.
            r: subsets to keep; the default keeps a third, so that the score decides something.
            score_method: one of ``SCORES``, or a score object.
            k_neighbors: neighbours of the knn score.
            seed: of subsets and sample; on one machine's CPU the same seed gives the same bytes.
            device: torch device on which rows are compared, and of the results.
            sample_rows: rows for knn and separation, for the signs of directions, for ica and for
            scores of projections. The cost of knn grows quadratically; moments and covariance
            always use all rows.
            query_rows: how many of those rows, evenly spread, are queries of knn among all of
            them; all by default (``scores/knn.py`` has the error of fewer).
            subsets: one of ``SUBSETS``, or a subsets object.
            directions: one of ``DIRECTIONS``, or a directions object.
            components: directions of each subset kept, at most ``m``.
            whiten: scale the dimensions of a subset to variance 1 before its principal
                directions are found; ica whitens in any case.
            rounds: how often to draw, score and keep, each time with the directions found before
                projected out of the rows: ``rounds · r · components`` directions in all.
            max_cosine: of two directions with a larger |cosine| only the better one is kept. 1
            keeps all; 0.9 drops near-duplicates (``directions/apart.py``).

        Raises:
            BadInput: a size is not positive, ``m > d_model``, ``components > m``, ``r`` is larger
                than ``h`` or than the number of distinct subsets; a name or the device is unknown.
        """
        m = math.isqrt(max(d_model, 0)) if m is None else m
        self.d_model, self.m, self.h, self.r = d_model, m, h, r
        self.k_neighbors, self.query_rows, self.whiten = k_neighbors, query_rows, whiten
        self.seed, self.device, self.sample_rows = seed, device, sample_rows
        self.components, self.rounds, self.max_cosine = components, rounds, max_cosine
        self._choose(score_method, subsets, directions)
        self._check_sizes()
        check_device(device)

    def _choose(
        self, score: str | Score, subsets: str | Subsets, directions: str | Directions
    ) -> None:
        """Make the members given by name, each with its own options."""
        given = {name: getattr(self, name) for name in ("k_neighbors", "query_rows", "whiten")}
        self._score = member_named("score", SCORES, score, given)
        self._subsets = member_named("subsets", SUBSETS, subsets, given)
        self._directions = member_named("directions", DIRECTIONS, directions, given)
        self.score_method, self.subsets = self._score.name, self._subsets.name
        self.directions = self._directions.name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that a result depends on besides the rows; refinements only if used."""
        brought: dict[str, Any] = {}
        for member in (self._score, self._subsets, self._directions):
            brought |= dict(member)
        known = {name: getattr(self, name) for name in (*ALWAYS, *REFINEMENTS)} | brought
        return {k: v for k, v in known.items() if k not in REFINEMENTS or v != REFINEMENTS[k]}

    def probe(
        self,
        activations: torch.Tensor | np.ndarray | StoreSite,
        labels: str | ArrayLike | torch.Tensor | None = None,
        compute_directions: bool = True,
        show_progress: bool = True,
    ) -> RkCNNResult:
        """Score random subsets of the dimensions and keep the best.

        The rows are read once, in blocks, so a store may have any size. Subsets with equal scores
        keep the order in which they were drawn.

        Args:
            activations: ``(n, d_model)``, or a site of a store.
            labels: a class for each row, ``(n,)``, or the column of the store that names
                it (``token_id``, ``document``, ``position``; ``next_token`` is the token of the
                next row, and -1 at the end of a block). They are optional for knn, required for
                separation, and unused by scores from moments.
            compute_directions: find the directions of each kept subset; this needs the covariance,
            ``(d_model, d_model)`` float64.
            show_progress: show a bar, if stderr is a terminal.

        Returns:
            The result, its tensors on the device of the probe.

        Raises:
            BadInput: activations of another width, with too few rows or with a value that
                is not finite; labels that are missing, of the wrong length or all the same;
                fewer than ``r`` subsets with a defined score; several rounds without directions,
                or too many rounds for the dimensions of the rows.
        """
        if self.rounds > 1 and not compute_directions:
            raise BadInput(
                "rounds project out the directions found before: compute them, or use one round"
            )
        source = open_source(activations)
        self._check_source(source)
        chosen = spread_rows(source.rows, self.sample_rows, np.random.default_rng([self.seed, 1]))
        comparison = self._comparison(source, labels, chosen)
        moments, sample = self._scan(source, chosen, compute_directions, show_progress)
        everything = view = View(moments, sample)
        found: list[Round] = []
        for number in range(self.rounds):
            if number:
                view = everything.through(Without(self._taken(found)))
            found.append(self._round(number, view, comparison, compute_directions))
        named = labels if labels is None or isinstance(labels, str) else "array"
        return self._result(found, source.describe() | {"labels": named})

    def _round(
        self, number: int, view: View, comparison: Comparison, compute_directions: bool
    ) -> Round:
        """Draw, score and keep once."""
        seed = [self.seed, 3, number] if number else self.seed
        generator = np.random.default_rng(seed)
        subsets = self._subsets.draw(self.d_model, self.m, self.h, generator)
        # Ranked in float32, as in the result.
        scores = self._scores(view, comparison, subsets).astype(np.float32)
        best = self._best(scores)
        directions = np.empty((0, self.d_model), np.float32)
        if compute_directions:
            directions = self._directions_of(view, subsets[best])
        return Round(subsets, scores, best, directions)

    def _taken(self, found: list[Round]) -> Doubles:
        """A basis ``(d_model, rank)`` of all directions so far, which must not span the space."""
        span = orthonormal(np.concatenate([part.directions for part in found]))
        if span.shape[1] == self.d_model:
            raise BadInput(
                f"the directions of {len(found)} rounds span all {self.d_model} dimensions, so "
                f"nothing is left for another: lower rounds={self.rounds}, r or components"
            )
        return span

    def _result(self, found: list[Round], source: dict[str, Any]) -> RkCNNResult:
        directions = np.concatenate([part.directions for part in found])
        kept = keep_apart(directions, self.max_cosine)
        computed = len(directions) > 0
        one_each = self.components == 1 and self.max_cosine >= 1
        return RkCNNResult(
            top_subsets=self._tensor(np.concatenate([p.subsets[p.best] for p in found])),
            top_scores=self._tensor(np.concatenate([p.scores[p.best] for p in found])),
            all_subsets=self._tensor(np.concatenate([p.subsets for p in found])),
            all_scores=self._tensor(np.concatenate([p.scores for p in found])),
            top_directions=self._tensor(directions[kept]) if computed else None,
            parents=self._tensor(kept // self.components) if computed and not one_each else None,
            settings=self.settings,
            source=source,
        )

    def _check_sizes(self) -> None:
        least = {"d_model": 1, "m": 1, "h": 1, "r": 1, "k_neighbors": 1, "seed": 0}
        least |= {"components": 1, "rounds": 1, "max_cosine": 0}
        if self.query_rows is not None:
            least["query_rows"] = 1
        for name, smallest in (least | {"sample_rows": 2}).items():
            if getattr(self, name) < smallest:
                raise BadInput(f"{name} is {getattr(self, name)}: it must be at least {smallest}")
        if self.m > self.d_model:
            raise BadInput(
                f"m is {self.m} and there are only {self.d_model} dimensions: "
                f"choose m up to {self.d_model}"
            )
        if self.r > self.h:
            raise BadInput(
                f"r is {self.r} and only h={self.h} subsets are drawn: lower r or raise h"
            )
        if self.components > self.m:
            raise BadInput(
                f"components is {self.components} and a subset has only m={self.m} dimensions: "
                f"choose components up to {self.m}"
            )
        distinct = self._subsets.distinct(self.d_model, self.m)
        if self.r > distinct:
            raise BadInput(
                f"r is {self.r} and there are only {distinct} distinct subsets of {self.m} of "
                f"{self.d_model} dimensions: choose r up to {distinct}, or another m"
            )

    def _check_source(self, source: Source) -> None:
        if source.width != self.d_model:
            raise BadInput(
                f"the activations are {source.width} wide and the probe expects "
                f"{self.d_model}: make it with d_model={source.width}"
            )
        if source.rows < 2:
            raise BadInput(f"the activations have {source.rows} rows: give at least 2")

    def _comparison(
        self, source: Source, labels: str | ArrayLike | torch.Tensor | None, chosen: Indices
    ) -> Comparison:
        """The inputs of a row score, checked before the activations are read."""
        classes = None
        if labels is not None:
            of_rows = labels_at(source, labels, chosen)
            classes = self._tensor(np.unique(of_rows, return_inverse=True)[1].astype(np.int64))
        asking = None
        if isinstance(self._score, RowScore):
            which = self._score.asking(len(chosen), np.random.default_rng([self.seed, 2]))
            asking = None if which is None else self._tensor(which)
        draws = np.random.default_rng([self.seed, 4])
        comparison = Comparison(len(chosen), classes, asking, draws)
        if isinstance(self._score, RowScore):
            self._score.check(comparison)
        return comparison

    def _scores(self, view: View, comparison: Comparison, subsets: Indices) -> Doubles:
        """Scores ``(h,)`` of subsets ``(h, m)``."""
        scores = np.empty(len(subsets))
        for number, which in by_rotation(subsets, self.d_model):
            columns = subsets[which] % self.d_model
            scores[which] = self._scores_of_columns(view.rotated(number), comparison, columns)
        return scores

    def _scores_of_columns(self, view: View, comparison: Comparison, columns: Indices) -> Doubles:
        """Scores ``(h,)`` of groups of the view's columns, ``(h, m)``."""
        if isinstance(self._score, MomentScore):
            return self._score.of_subsets(view.moments, columns)
        if isinstance(self._score, RowScore):
            sample = self._tensor(view.sample)
            return self._score.of_subsets(sample, self._tensor(columns), comparison)
        assert isinstance(self._score, DirectionScore)
        scores = np.full(len(columns), np.nan)
        # A group of constant columns has no direction.
        varies = np.flatnonzero((view.moments.m2[columns] > 0).any(axis=1))
        for start in range(0, len(varies), BLOCK_SUBSETS):
            block = varies[start : start + BLOCK_SUBSETS]
            directions = self._find(view, columns[block])
            found = self._score.of_projections(view.sample @ directions.T)
            scores[block] = found.reshape(-1, self.components).max(axis=1)
        return scores

    def _directions_of(self, view: View, subsets: Indices) -> Floats:
        """Directions ``(r · components, d_model)`` of subsets ``(r, m)``."""
        directions = np.empty((len(subsets), self.components, self.d_model), np.float32)
        for number, which in by_rotation(subsets, self.d_model):
            rotated = view.rotated(number)
            found = rotated.back(self._find(rotated, subsets[which] % self.d_model))
            directions[which] = found.reshape(-1, self.components, self.d_model)
        return directions.reshape(-1, self.d_model)

    def _find(self, view: View, columns: Indices) -> Floats:
        return find_directions(
            view.moments.covariance, columns, view.sample, self._directions, self.components
        )

    def _best(self, scores: Floats) -> Indices:
        """Indices ``(r,)`` of the best subsets, each of which must have a score."""
        defined = len(scores) - int(np.isnan(scores).sum())
        if defined < self.r:
            raise BadInput(
                f"r is {self.r} and only {defined} of {len(scores)} subsets have a "
                f"{self.score_method} score, the others do not vary: lower r or probe other rows"
            )
        # NumPy sorts NaN, an undefined score, after every number.
        return np.argsort(-scores, kind="stable")[: self.r]

    def _scan(
        self, source: Source, chosen: Indices, compute_directions: bool, show_progress: bool
    ) -> tuple[Moments, Floats]:
        """Which results of :func:`scan` are needed."""
        rotates = self.subsets == "bases"
        comoment = compute_directions or rotates or isinstance(self._score, DirectionScore)
        largest = isinstance(self._score, MomentScore) and self._score.needs_largest
        return scan(source, chosen, comoment, largest, show_progress)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)
