"""A checkpoint × a store → a description of some latents, their nearest ones and their groups."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.evaluation.samples.collect import check_room
from rkstore.evaluation.samples.layouts import Found
from rkstore.evaluation.samples.names import read_names
from rkstore.evaluation.samples.samples import Samples
from rkstore.evaluation.samples.settings import LatentsSettings
from rkstore.evaluation.samples.similar import (
    check_same_sites,
    decoders,
    groups,
    highest,
    phi,
    together,
)
from rkstore.evaluation.samples.write import collected, subject_of
from rkstore.settings import check_device
from rkstore.store.open import open_readable


@dataclass(frozen=True)
class Near:
    """A latent that is like another."""

    latent: int
    cosine: float
    """Of their decoders."""
    phi: float | None
    """Correlation of their firing; None across two dictionaries."""


@dataclass(frozen=True, eq=False)
class Described:
    """Some latents of a dictionary."""

    found: Found
    latents: list[int]
    drawn_from: int | None
    """The number of latents that fire, if these were drawn from them."""
    by_decoder: list[list[Near]]
    by_firing: list[list[Near]]
    groups: list[list[int]]
    """Latents that their decoders join."""
    notes: list[str]
    """Reasons to doubt that the store is that of a dictionary."""
    names: Mapping[str, str]
    """Given by hand, by number."""
    other: Found | None = None
    """The dictionary that it is compared with."""
    of_other: Sequence[Near] = ()
    """For each latent the nearest of the other dictionary, by decoder."""
    mean_cosine: float | None = None
    """The mean over all live latents of that cosine."""


def describe(checkpoint: str | Path, settings: LatentsSettings) -> Described:
    """Collect the samples of a checkpoint, and describe some of its latents.

    Raises:
        BadInput: there is no such latent, or none fires; the other dictionary writes other sites;
            or as in :func:`rkstore.evaluation.samples.write.write_samples`.
    """
    check_device(settings.device)
    check_room(settings)
    store = open_readable(settings.store, settings.paired_with)
    _ = store.words  # or there is nothing to show
    own, notes = subject_of(checkpoint, store, settings)
    for latent in settings.latent:
        if latent >= own.dictionary.d_sae:
            raise BadInput(
                f"--latent is {latent}: {own.name} has {own.dictionary.d_sae:,}, from 0 to "
                f"{own.dictionary.d_sae - 1}"
            )
    given = read_names(settings.names, own.dictionary.d_sae)
    other = None
    if settings.against is not None:
        other, more = subject_of(settings.against, store, settings)
        check_same_sites(own.dictionary, other.dictionary)
        notes += more
    scratch = Path(tempfile.gettempdir())
    with collected(own, settings, scratch) as found:
        samples = found.samples
        latents, drawn_from = _latents(samples, settings)
        both = together(found.codes, latents, samples.d_sae)
    directions = decoders(own.dictionary, store)
    cosines = directions[latents] @ directions.T
    firing = phi(both, samples.fired[latents], samples.fired, samples.rows)
    by_decoder, by_firing = (
        [_near(latents, scores, cosines, firing, i, settings.nearest) for i in range(len(latents))]
        for scores in (cosines, firing)
    )
    joined = groups(directions, samples.fired > 0, settings.same_group)
    made = Described(found, latents, drawn_from, by_decoder, by_firing, joined, notes, given)
    if other is None:
        return made
    with collected(other, settings, scratch) as theirs:
        beside = decoders(other.dictionary, store)
        of_other = _of_other(directions[latents], beside)
        mean = _mean_cosine(directions[samples.fired > 0], beside)
    return replace(made, other=theirs, of_other=of_other, mean_cosine=mean)


def _latents(samples: Samples, settings: LatentsSettings) -> tuple[list[int], int | None]:
    """The latents to describe, and how many they were drawn from."""
    if settings.latent:
        return list(dict.fromkeys(settings.latent)), None
    alive = np.flatnonzero(samples.fired)
    if not len(alive):
        raise BadInput(
            f"no latent fires on the {samples.rows:,} rows: there is nothing to describe"
        )
    generator = np.random.default_rng(settings.seed)
    chosen = generator.choice(alive, min(settings.draw, len(alive)), replace=False)
    return sorted(chosen.tolist()), len(alive)


def _near(
    latents: Sequence[int],
    scores: NDArray[np.floating],
    cosines: NDArray[np.floating],
    firing: NDArray[np.floating],
    i: int,
    count: int,
) -> list[Near]:
    """The nearest of latent ``i`` by some scores, itself left out."""
    best = [j for j in highest(scores[i], count + 1) if j != latents[i]][:count]
    return [Near(j, float(cosines[i, j]), float(firing[i, j])) for j in best]


def _of_other(own: NDArray[np.floating], beside: NDArray[np.floating]) -> list[Near]:
    cosines = own @ beside.T
    best = cosines.argmax(axis=1).tolist()
    return [Near(j, float(cosines[i, j]), None) for i, j in enumerate(best)]


def _mean_cosine(own: NDArray[np.float32], beside: NDArray[np.float32]) -> float:
    """The mean of the largest cosine of each latent with any of the other dictionary."""
    parts = [(own[i : i + 1024] @ beside.T).max(axis=1) for i in range(0, len(own), 1024)]
    return float(np.concatenate([np.empty(0, np.float32), *parts]).mean())
