"""The best few entries of each of many owners, of a stream that is never in memory as a whole."""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

EMPTY = np.uint64(2**64 - 1)


class Best:
    """A table ``(owners, slots)`` of the entries with the smallest keys, which are below 2³².

    Of equal keys the one offered first stays. What is kept depends on the entries and their order,
    not on how many are offered at a time.
    """

    def __init__(self, owners: int, slots: int) -> None:
        self.keys = np.full((owners, slots), EMPTY)
        self.rows = np.zeros((owners, slots), np.int64)
        self.values = np.zeros((owners, slots), np.float32)
        self._worst = np.full(owners, EMPTY)

    def near(self, owners: NDArray[np.int64], keys: Keys) -> NDArray[np.int64]:
        """Which of some entries may get into the table: their indices, ascending."""
        if not self.keys.shape[1]:
            return np.empty(0, np.int64)
        return np.flatnonzero(keys < self._worst[owners])

    def offer(
        self,
        owners: NDArray[np.int64],
        keys: Keys,
        rows: NDArray[np.int64],
        values: NDArray[np.float32],
    ) -> None:
        """Offer entries ``(n,)``, those of an owner in the order in which equal ones count."""
        if not len(owners):
            return
        slots = self.keys.shape[1]
        order = ranked(owners, keys)
        own, begins, counts = np.unique(owners[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(begins, counts)
        order, place = order[place < slots], place[place < slots]
        line = np.repeat(np.arange(len(own)), np.minimum(counts, slots))
        width = slots + int(place.max()) + 1

        def beside(table: NDArray[np.generic], new: NDArray[np.generic]) -> NDArray[np.generic]:
            both = np.full((len(own), width), EMPTY if table.dtype == EMPTY.dtype else 0)
            both = both.astype(table.dtype)
            both[:, :slots] = table[own]
            both[line, slots + place] = new[order]
            return both

        both = beside(self.keys, keys)
        # The old ones stand first, and the sort is stable.
        kept = np.argsort(both, axis=1, kind="stable")[:, :slots]
        for table, new in ((self.keys, keys), (self.rows, rows), (self.values, values)):
            table[own] = np.take_along_axis(beside(table, new), kept, axis=1)
        self._worst[own] = self.keys[own].max(axis=1)

    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Owner, row and value of all that is kept, by owner."""
        owners, places = np.nonzero(self.keys != EMPTY)
        return owners, self.rows[owners, places], self.values[owners, places]


def ranked(owners: NDArray[np.int64], keys: Keys) -> NDArray[np.int64]:
    """The stable order of entries by owner, then by key, which is below 2³²."""
    if int(owners.max(initial=0)) < 2**31:  # one sort in place of two
        return np.argsort((owners.astype(np.uint64) << np.uint64(32)) | keys, kind="stable")
    return np.lexsort((keys, owners))


def falling(magnitudes: NDArray[np.float32]) -> Keys:
    """Keys by which larger magnitudes come first: the bits of floats above zero rise with them."""
    bits = np.ascontiguousarray(magnitudes, np.float32).view(np.uint32)
    return (np.uint32(2**32 - 1) - bits).astype(np.uint64)


def drawn(rows: NDArray[np.int64], latents: NDArray[np.int32], seed: int) -> Keys:
    """Keys in a random order that depends on seed, row and latent alone.

    By SplitMix64 (Steele, Lea & Flood 2014). The entries with the smallest keys are a uniform
    sample without replacement, however the rows were read.
    """
    start = _mixed(np.array([seed], np.uint64))
    keys = _mixed(_mixed(start + rows.astype(np.uint64)) + latents.astype(np.uint64))
    return keys >> np.uint64(32)


def _mixed(x: Keys) -> Keys:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = x ^ (x >> np.uint64(31))
    return mixed
