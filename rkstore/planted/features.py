"""Planted features: which fire in each row, and the rows that they make.

Everything follows from one seed. Rows are drawn in blocks with a generator each, so that any rows
can be drawn without those before them, also rows that no store has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rkstore.errors import BadInput, few
from rkstore.planted.directions import draw_directions
from rkstore.planted.forest import Doubles, Forest, Indices, forest, zipf
from rkstore.planted.settings import PlantSettings, resolved
from rkstore.planted.sites import PlantedSite, planted_sites

Floats = NDArray[np.float32]

# Rows of one generator. It determines every number: another size makes other stores.
BLOCK_ROWS = 256

# What a generator is for; with the seed and numbers of block and site, that is its own seed.
FEATURES, LOADINGS, SITES, DIRECTIONS, ROWS, NOISE = range(6)


class Fired(NamedTuple):
    """The features that fire in some rows, by row and then by number."""

    rows: int
    row: Indices
    feature: Indices
    magnitude: Floats

    def dense(self, features: int) -> Floats:
        """The code ``(rows, features)``."""
        code = np.zeros((self.rows, features), np.float32)
        code[self.row, self.feature] = self.magnitude
        return code


@dataclass(frozen=True)
class Planted:
    """The features and sites that some settings describe."""

    settings: PlantSettings

    @cached_property
    def features(self) -> int:
        return self.settings.usual.features

    @cached_property
    def forest(self) -> Forest:
        """Which features fire under which, and how often."""
        s, usual = self.settings, self.settings.usual
        nominal = zipf(usual.features, usual.p_max, usual.p_min, usual.zipf)
        return forest(nominal, usual.roots, s.branching or 0, s.depth or 0)

    @cached_property
    def loadings(self) -> Doubles:
        """``(F, rank)``: a free feature fires if ``loadings · u + √(1 - ‖loadings‖²) ε`` is large.

        This is the Gaussian copula of SynthSAEBench, there for all features, here for those whose
        firing is not drawn by their parent.
        """
        shape = (self.features, self.settings.rank or 0)
        drawn = self._generator(LOADINGS).standard_normal(shape) * self.settings.usual.correlation
        # A feature keeps a variance of its own, however large its loadings are.
        kept: Doubles = drawn / np.maximum(1.0, np.linalg.norm(drawn, axis=1)[:, None] / 0.95)
        return kept

    @cached_property
    def magnitudes(self) -> tuple[Doubles, Doubles]:
        """``(F,)`` each: mean and standard deviation of a feature's magnitude when it fires."""
        s = self.settings
        drawn = self._generator(FEATURES).standard_normal(self.features)
        mean = np.linspace(s.magnitude_first, s.magnitude_last, self.features)
        return mean, np.abs(s.spread + s.spread * drawn)

    @cached_property
    def sites(self) -> tuple[PlantedSite, ...]:
        """The sites, and which features are part of each."""
        return planted_sites(self.settings, self.features, self._generator(SITES))

    @cached_property
    def directions(self) -> dict[str, Floats]:
        """``(F, d_in)`` by site: unit directions; zero for features that are not part of it."""
        found = {}
        for number, site in enumerate(self.sites):
            generator = self._generator(DIRECTIONS, number)
            drawn = draw_directions(self.features, site.width, self.settings.overlap, generator)
            found[site.name] = np.where(site.has[:, None], drawn, 0.0).astype(np.float32)
        return found

    @cached_property
    def biases(self) -> dict[str, Floats]:
        """``(d_in,)`` by site: the constant that is added to every row."""
        found = {}
        for number, site in enumerate(self.sites):
            drawn = self._generator(SITES, number).standard_normal(site.width)
            bias = self.settings.bias * drawn / np.linalg.norm(drawn)
            found[site.name] = bias.astype(np.float32)
        return found

    def at(self, *names: str) -> tuple[Indices, Floats]:
        """The features that are part of any of some sites, and their directions there.

        Args:
            names: of the sites, all by default; several are concatenated.

        Returns:
            numbers of the features ``(n,)``, columns of :meth:`codes`; and directions
            ``(n, Σ d_in)``.

        Raises:
            BadInput: there is no site of a name.
        """
        chosen = names or tuple(self.directions)
        for name in chosen:
            if name not in self.directions:
                raise BadInput(f"'{name}' is no planted site: choose of {few([*self.directions])}")
        joined = np.concatenate([self.directions[name] for name in chosen], axis=1)
        part = np.flatnonzero(joined.any(axis=1))
        return part, joined[part]

    def codes(self, first: int, last: int) -> Floats:
        """The true code of rows ``first`` to ``last``, ``(last - first, F)``."""
        parts = [fired.dense(self.features) for _, fired in self._fired(first, last)]
        return np.concatenate(parts) if parts else np.zeros((0, self.features), np.float32)

    def rows(
        self, first: int, last: int, sites: tuple[PlantedSite, ...] | None = None
    ) -> Iterator[tuple[Fired, dict[str, Floats]]]:
        """The same rows block by block: what fires, and by name of site ``(n, d_in)``."""
        for start, fired in self._fired(first, last):
            made = {}
            for number, site in enumerate(self.sites):
                if sites is None or site in sites:
                    made[site.name] = self._at(number, site, start, fired)
            yield fired, made

    def _at(self, number: int, site: PlantedSite, start: int, fired: Fired) -> Floats:
        """The rows of one site: decoded features, bias and noise."""
        x = decoded(fired, self.directions[site.name]) + self.biases[site.name]
        if self.settings.noise:
            block, skipped = divmod(start, BLOCK_ROWS)
            generator = self._generator(NOISE, block, number)
            noise = generator.standard_normal((BLOCK_ROWS, site.width))
            x += self.settings.noise * noise[skipped : skipped + fired.rows]
        return x.astype(np.float32)

    def _fired(self, first: int, last: int) -> Iterator[tuple[int, Fired]]:
        """The first row of each piece and what fires in it; a piece is a block or a part of one."""
        for block in range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS)):
            begin = block * BLOCK_ROWS
            start, stop = max(first, begin), min(last, begin + BLOCK_ROWS)
            fired = self._block(block)
            part = slice(*np.searchsorted(fired.row, [start - begin, stop - begin]))
            row = fired.row[part] - (start - begin)
            yield start, Fired(stop - start, row, fired.feature[part], fired.magnitude[part])

    def _block(self, block: int) -> Fired:
        """What fires in a whole block."""
        generator, trees = self._generator(ROWS, block), self.forest
        fires = np.zeros((BLOCK_ROWS, self.features), bool)
        free = np.flatnonzero(trees.parent < 0)
        own = np.sqrt(1 - np.square(self.loadings[free]).sum(axis=1))
        shared = generator.standard_normal((BLOCK_ROWS, self.settings.rank or 0))
        normal = generator.standard_normal((BLOCK_ROWS, len(free))) * own
        normal += shared @ self.loadings[free].T
        fires[:, free] = normal > ndtri(1 - trees.given_parent[free])
        chance = generator.random((BLOCK_ROWS, self.features))  # a column for each parent
        low, high = trees.shares
        for level in trees.levels:
            drawn, above = chance[:, trees.parent[level]], fires[:, trees.parent[level]]
            fires[:, level] = above & (low[level] <= drawn) & (drawn < high[level])
        row, feature = np.nonzero(fires)
        return Fired(BLOCK_ROWS, row, feature, self._magnitude(row, feature, generator))

    def _magnitude(self, row: Indices, feature: Indices, generator: np.random.Generator) -> Floats:
        """The magnitude of each feature that fires; a child's is scaled by its parent's.

        As in SynthSAEBench by the parent's magnitude over its mean, but a negative draw changes its
        sign where there it becomes zero, so that what fires is never zero.
        """
        mean, deviation = self.magnitudes
        size = np.zeros((BLOCK_ROWS, self.features))
        drawn = generator.standard_normal(len(row))
        size[row, feature] = np.abs(mean[feature] + deviation[feature] * drawn)
        for level in self.forest.levels:
            parent = self.forest.parent[level]
            size[:, level] *= size[:, parent] / mean[parent]
        return size[row, feature].astype(np.float32)

    def _generator(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *numbers])


def plant_features(settings: PlantSettings) -> Planted:
    """The features of some settings, with every default filled in.

    Raises:
        BadInput: the settings contradict each other.
    """
    planted = Planted(resolved(settings))
    _ = planted.sites, planted.directions  # refused before anything is written
    return planted


def decoded(fired: Fired, directions: NDArray[Any]) -> Doubles:
    """``Σ magnitude · direction`` of each row, ``(rows, d)``.

    Features are added one after another and not in a matrix product, whose last bit depends on
    threads and libraries: a store has the same bytes everywhere.
    """
    out = np.zeros((fired.rows, directions.shape[1]))
    turn = np.arange(len(fired.row)) - np.searchsorted(fired.row, fired.row)
    wide = directions.astype(np.float64)
    for n in range(turn.max(initial=-1) + 1):
        now = turn == n
        magnitude = fired.magnitude[now, None].astype(np.float64)
        out[fired.row[now]] += magnitude * wide[fired.feature[now]]
    return out
