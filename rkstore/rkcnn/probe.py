"""The probe: draw subsets, score them, keep the best, and find their directions."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from rkstore.device import check_device
from rkstore.errors import BadInput
from rkstore.rkcnn.directions import principal_directions
from rkstore.rkcnn.moments import Floats, Moments
from rkstore.rkcnn.result import RkCNNResult
from rkstore.rkcnn.scores import Comparison, MomentScore, score_named
from rkstore.rkcnn.source import (
    Source,
    StoreSite,
    ahead,
    open_source,
    read_blocks,
    spread_rows,
)
from rkstore.rkcnn.subsets import Indices, random_subsets


class RkCNNProbe:
    """Looks for directions in activations of width ``d_model``. Its settings do not change."""

    def __init__(
        self,
        d_model: int,
        m: int | None = None,
        h: int = 600,
        r: int = 200,
        score_method: str = "kurtosis",
        k_neighbors: int = 5,
        seed: int = 0,
        device: str = "cpu",
        sample_rows: int = 2000,
        query_rows: int | None = None,
    ) -> None:
        """Check the settings; nothing is drawn yet.

        Args:
            d_model: width of the activations.
            m: dimensions in a subset; the root of ``d_model``, rounded down, by default,
                as is usual where random subsets of features are drawn.
            h: subsets to draw. There may be fewer distinct ones, which are then all drawn.
            r: subsets to keep; the default keeps a third, so that the score decides something.
            score_method: one of ``SCORES``.
            k_neighbors: neighbours of the knn score.
            seed: decides subsets and sample; on one machine's CPU the same seed gives the same
                bytes.
            device: torch device on which rows are compared, and of the results.
            sample_rows: rows that knn and separation compare and that decide the signs of
                directions. The cost of knn grows with their square; moments and covariance
                always use all rows.
            query_rows: of those rows, how many ask for their neighbours among all of them,
                spread evenly; all by default. Fewer make knn an estimate, faster in proportion:
                with labels its standard error is less than ``1 / (2 √query_rows)``, and
                ``scores/knn.py`` has the formula without.

        Raises:
            BadInput: a size is not positive, ``m > d_model``, ``r`` is larger than ``h`` or
                than the number of distinct subsets; the score or the device is unknown.
        """
        m = math.isqrt(max(d_model, 0)) if m is None else m
        self.d_model, self.m, self.h, self.r = d_model, m, h, r
        self.score_method, self.k_neighbors = score_method, k_neighbors
        self.seed, self.device, self.sample_rows = seed, device, sample_rows
        self.query_rows = query_rows
        self._score = score_named(score_method)
        self._check_sizes()
        check_device(device)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides a result besides the rows."""
        names = ("d_model", "m", "h", "r", "score_method", "k_neighbors", "seed", "sample_rows")
        return {name: getattr(self, name) for name in (*names, "query_rows")}

    def probe(
        self,
        activations: torch.Tensor | np.ndarray | StoreSite,
        labels: str | ArrayLike | torch.Tensor | None = None,
        compute_directions: bool = True,
    ) -> RkCNNResult:
        """Score random subsets of the dimensions and keep the best.

        The rows are read once, in blocks, so a store of any size will do. Subsets of
        the same score keep the order in which they were drawn.

        Args:
            activations: ``(n, d_model)``, or a site of a store.
            labels: a class for each row, ``(n,)``, or the column of the store that names
                it (``token_id``, ``document``, ``position``). knn may use them, separation
                must, the scores from moments do not.
            compute_directions: find the principal direction of each subset kept; it needs
                the covariance, ``(d_model, d_model)`` float64.

        Returns:
            The result, its tensors on the device of the probe.

        Raises:
            BadInput: activations of another width, with too few rows or with a value that
                is not finite; labels that are missing, of the wrong length or all the same;
                fewer than ``r`` subsets of which the score is defined.
        """
        source = open_source(activations)
        self._check_source(source)
        chosen = spread_rows(source.rows, self.sample_rows, np.random.default_rng([self.seed, 1]))
        comparison = self._comparison(source, labels, chosen)
        subsets = random_subsets(self.d_model, self.m, self.h, np.random.default_rng(self.seed))
        moments, sample = _scan(source, chosen, compute_directions)
        # Ranked as they will be seen: in float32.
        scores = self._scores(moments, sample, comparison, subsets).astype(np.float32)
        best = self._best(scores)
        directions = None
        if compute_directions:
            directions = principal_directions(moments.covariance, subsets[best], sample)
        return RkCNNResult(
            top_subsets=self._tensor(subsets[best]),
            top_scores=self._tensor(scores[best]),
            all_subsets=self._tensor(subsets),
            all_scores=self._tensor(scores),
            top_directions=None if directions is None else self._tensor(directions),
            settings=self.settings,
            source=source.describe() | {"labels": _label_name(labels)},
        )

    def _check_sizes(self) -> None:
        least = {"d_model": 1, "m": 1, "h": 1, "r": 1, "k_neighbors": 1, "seed": 0}
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
        distinct = math.comb(self.d_model, self.m)
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
        """What a row score needs to know; checked here, before the activations are read."""
        classes = None
        if labels is not None:
            of_rows = _labels_at(source, labels, chosen)
            classes = self._tensor(np.unique(of_rows, return_inverse=True)[1].astype(np.int64))
        asking = None
        if self.query_rows is not None:
            generator = np.random.default_rng([self.seed, 2])
            asking = self._tensor(spread_rows(len(chosen), self.query_rows, generator))
        comparison = Comparison(len(chosen), self.k_neighbors, classes, asking)
        if not isinstance(self._score, MomentScore):
            self._score.check(comparison)
        return comparison

    def _scores(
        self, moments: Moments, sample: Floats, comparison: Comparison, subsets: Indices
    ) -> NDArray[np.float64]:
        """Scores ``(h,)`` of subsets ``(h, m)``."""
        if isinstance(self._score, MomentScore):
            return self._score.of_subsets(moments, subsets)
        return self._score.of_subsets(self._tensor(sample), self._tensor(subsets), comparison)

    def _best(self, scores: Floats) -> Indices:
        """Numbers ``(r,)`` of the best subsets, of which each must have a score."""
        defined = len(scores) - int(np.isnan(scores).sum())
        if defined < self.r:
            raise BadInput(
                f"r is {self.r} and only {defined} of {len(scores)} subsets have a "
                f"{self.score_method} score, the others do not vary: lower r or probe other rows"
            )
        # NumPy sorts NaN, an undefined score, behind every number.
        return np.argsort(-scores, kind="stable")[: self.r]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


def _scan(source: Source, chosen: Indices, comoment: bool) -> tuple[Moments, Floats]:
    """Read all rows once: their moments, and the chosen ones, centred, ``(sample, d)``.

    Centred because float32 keeps the digits of a difference that way, and neither a
    distance nor a skewness changes.
    """
    sample = np.empty((len(chosen), source.width), np.float32)

    def blocks() -> Iterator[Floats]:
        start = 0
        with tqdm(total=source.rows, desc="probe", unit="row", disable=None) as bar:
            for block in read_blocks(source):
                _check_finite(block, start)
                first, last = np.searchsorted(chosen, [start, start + len(block)])
                sample[first:last] = block[chosen[first:last] - start]
                yield block
                start += len(block)
                bar.update(len(block))

    moments = Moments.over(ahead(blocks()), comoment, np.float32)
    return moments, (sample - moments.mean).astype(np.float32)


def _check_finite(block: Floats, start: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        row, dimension = (int(i) for i in np.argwhere(~finite)[0])
        raise BadInput(
            f"row {start + row} of the activations has {block[row, dimension]} in dimension "
            f"{dimension}: they must be finite in float32, leave that row out"
        )


def _labels_at(source: Source, labels: str | ArrayLike | torch.Tensor, rows: Indices) -> np.ndarray:
    """Labels of these rows, ``(len(rows),)``."""
    if isinstance(labels, str):
        return source.column(labels, rows)
    array = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if array.shape != (source.rows,):
        raise BadInput(
            f"labels have shape {array.shape} and the activations {source.rows} rows: "
            "give one label a row"
        )
    return array[rows]


def _label_name(labels: str | ArrayLike | torch.Tensor | None) -> str | None:
    return labels if labels is None or isinstance(labels, str) else "array"
