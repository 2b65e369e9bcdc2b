"""What each latent fires on, counted in one pass: tokens, and latents that fire together."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

# Entries that wait to be counted: 100 MB.
WAITING = 4_000_000

# Rows on which latents are counted together, spread over all of them.
TOGETHER_ROWS = 131_072

# Tokens on which two latents fire before they are said to fire together.
LEAST_TOGETHER = 3

# Latents whose neighbours are computed at once: 50 MB of products with 24,576.
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Tokens:
    """On which tokens each latent fires. Entries are ordered by latent, then by falling mass."""

    starts: Ints
    """Entries of latent ``i``: ``starts[i]:starts[i + 1]``."""
    token: Ints
    mass: Doubles
    """Sum of the magnitudes of its activation there."""
    count: Ints
    base: Doubles
    """How often each token is among the rows, a share, ``(tokens,)``."""

    @property
    def distinct(self) -> Ints:
        """Different tokens that each latent fires on, ``(d_sae,)``."""
        return np.diff(self.starts)

    def of(self, latent: int, most: int) -> list[tuple[int, int, float]]:
        """The tokens with most of its activation: number, how often, share."""
        some = slice(int(self.starts[latent]), int(self.starts[latent + 1]))
        whole = self.mass[some].sum()
        best = zip(self.token[some][:most], self.count[some], self.mass[some], strict=False)
        return [(int(token), int(count), float(mass / whole)) for token, count, mass in best]

    def telling(self, most: int) -> Ints:
        """The tokens that tell each latent from the rest, ``(d_sae, most)``; -1: no more.

        Those with the greatest ``share · log(share / base)``: by their share alone most latents
        would be *the* and *of*.
        """
        owners = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        whole = np.bincount(owners, self.mass, len(self.starts) - 1)
        share = self.mass / whole[owners]
        score = share * np.log(share / self.base[self.token])
        order = np.lexsort((self.token, -score, owners))
        rank = np.arange(len(order)) - self.starts[owners]
        found = np.full((len(self.starts) - 1, most), -1, np.int64)
        told = rank < most
        found[owners[told], rank[told]] = self.token[order][told]
        return found

    def strongest_share(self) -> Doubles:
        """The share of its activation at its first token, ``(d_sae,)``; 0 if it never fires."""
        owners = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        whole = np.bincount(owners, self.mass, len(self.starts) - 1)
        found = np.zeros(len(whole))
        fires = whole > 0
        found[fires] = self.mass[self.starts[:-1][fires]] / whole[fires]
        return found


@dataclass(eq=False)
class Sums:
    """Sums of mass, and counts, by keys that come in any order."""

    _waiting: list[tuple[Ints, Doubles, Ints]] = field(default_factory=list)

    def add(self, key: Ints, mass: Doubles) -> None:
        """Add one mass for each of some keys."""
        self._waiting.append(_summed(key, mass, np.ones_like(key)))
        if len(self._waiting) > 1 and sum(len(part[0]) for part in self._waiting) > WAITING:
            self._merge()

    def _merge(self) -> None:
        parts = zip(*self._waiting, strict=True)
        self._waiting = [_summed(*(np.concatenate(part) for part in parts))]

    def found(self) -> tuple[Ints, Doubles, Ints]:
        """The keys, ascending, and the mass and the count of each."""
        if not self._waiting:
            nothing = np.empty(0, np.int64)
            return nothing, nothing.astype(float), nothing
        self._merge()
        return self._waiting[0]


@dataclass(eq=False)
class Tally:
    """Takes the codes of rows in any batches, and counts.

    Args:
        d_sae: latents.
        tokens: different tokens, whose numbers are below it.
        rows: how many will be added, for an even choice of those that are counted together.
    """

    d_sae: int
    tokens: int
    rows: int
    _seen: int = 0
    _base: Ints = field(init=False)
    _sums: Sums = field(default_factory=Sums)
    _together: list[tuple[Ints, Ints]] = field(default_factory=list)
    _counted_rows: int = 0

    def __post_init__(self) -> None:
        self._base = np.zeros(self.tokens, np.int64)

    def add(
        self,
        token: Ints,
        row: NDArray[np.integer],
        latent: NDArray[np.integer],
        value: NDArray[np.floating],
    ) -> None:
        """Add a batch.

        Args:
            token: of each row, ``(rows,)``.
            row, latent, value: the entries of the code, ``(n,)``, with the row's place in
                ``token``.
        """
        self._base += np.bincount(token, minlength=self.tokens)
        key = latent.astype(np.int64) * self.tokens + token[row]
        self._sums.add(key, np.abs(value, dtype=np.float64))
        every = max(1, -(-self.rows // TOGETHER_ROWS))
        chosen = np.flatnonzero((self._seen + np.arange(len(token))) % every == 0)
        place = np.full(len(token), -1, np.int64)
        place[chosen] = self._counted_rows + np.arange(len(chosen))
        here = place[row] >= 0
        self._together.append((place[row[here]], latent[here].astype(np.int64)))
        self._counted_rows += len(chosen)
        self._seen += len(token)

    def found(self) -> Tokens:
        """On which tokens each latent fires."""
        key, mass, count = self._sums.found()
        latent, token = key // self.tokens, key % self.tokens
        order = np.lexsort((token, -mass, latent))
        starts = np.searchsorted(latent, np.arange(self.d_sae + 1)).astype(np.int64)
        base = self._base / max(1, int(self._base.sum()))
        return Tokens(starts, token[order], mass[order], count[order], base)

    def together(self, most: int) -> list[list[tuple[int, float]]]:
        """For each latent those that fire together with it, best first: number and φ.

        φ is the correlation of two latents' being on, over the rows that are counted.
        """
        from scipy.sparse import csr_matrix

        rows = np.concatenate([part[0] for part in self._together] or [np.empty(0, np.int64)])
        latents = np.concatenate([part[1] for part in self._together] or [np.empty(0, np.int64)])
        n = max(1, self._counted_rows)
        ones = np.ones(len(rows), np.float32)
        on = csr_matrix((ones, (rows, latents)), shape=(n, self.d_sae))
        by_latent = on.T.tocsr()
        fired = np.bincount(latents, minlength=self.d_sae).astype(np.float64)
        found: list[list[tuple[int, float]]] = []
        for first in range(0, self.d_sae, BLOCK):
            both = (by_latent[first : first + BLOCK] @ on).tocsr()
            for i in range(both.shape[0]):
                at = slice(both.indptr[i], both.indptr[i + 1])
                found.append(_best(first + i, both.indices[at], both.data[at], fired, n, most))
        return found


def _best(
    own: int, others: Ints, both: Doubles, fired: Doubles, n: int, most: int
) -> list[tuple[int, float]]:
    """The latents of the greatest φ with one latent."""
    known = (both >= LEAST_TOGETHER) & (others != own)
    others, shared = others[known], both[known].astype(np.float64)
    spread = np.sqrt(fired[own] * (n - fired[own]) * fired[others] * (n - fired[others]))
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = (n * shared - fired[own] * fired[others]) / spread
    # A latent that fires on every row has no correlation with any.
    real = np.isfinite(phi) & (phi > 0)
    others, phi = others[real], phi[real]
    order = np.lexsort((others, -phi))[:most]
    return [(int(others[k]), float(phi[k])) for k in order]


def _summed(key: Ints, mass: Doubles, count: Ints) -> tuple[Ints, Doubles, Ints]:
    """The sums of mass and count of each key, keys ascending."""
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    if not len(first):
        return key, mass, count
    return key[first], np.add.reduceat(mass[order], first), np.add.reduceat(count[order], first)
