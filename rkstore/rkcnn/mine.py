"""A site of a store → directions: mined in memory, or probed, saved and read back."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rkstore.errors import BadInput
from rkstore.rkcnn.directions import DIRECTIONS
from rkstore.rkcnn.probe import RkCNNProbe
from rkstore.rkcnn.result import DESCRIPTION, RkCNNResult
from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.scores.base import Score
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.rkcnn.source import StoreSite, open_source
from rkstore.rkcnn.subsets import SUBSETS
from rkstore.store.batches.kept import left_out
from rkstore.store.batches.plan import split_chunks
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable

# The default directory of results.
RESULTS = "results/probe"

# Rows that mined directions are computed from: forty per dimension for a covariance of 3,072; all
# rows of a large store would take longer than training.
MINED_ROWS = 131_072


@dataclass(frozen=True, eq=False)
class Probed:
    """Directions of a site, found in its training rows."""

    hook_name: str
    directions: torch.Tensor
    """``(n, d_in)`` float32, of norm 1, the best first."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.directions.numpy().tobytes()).hexdigest()


def mine_directions(
    activations: torch.Tensor | np.ndarray | StoreSite,
    d_model: int | None = None,
    n_directions: int = 100,
    subset_size: int | None = None,
    n_subsets: int = 1000,
    score_method: str | Score = "kurtosis",
    device: str = "cpu",
    seed: int | None = None,
    show_progress: bool = True,
) -> torch.Tensor:
    """The principal directions of the best of some random subsets, ``(n_directions, d_model)``.

    Each has norm 1, is zero outside its subset, and has a positively skewed projection; the best
    comes first. The names and defaults are those of the RkCNN-SAE code.

    Args:
        activations: ``(n, d_model)``, or a site of a store.
        d_model: width of the activations; need not be given.
        subset_size: dimensions of a subset; the square root of ``d_model`` by default.
        n_subsets: how many are drawn, at least ``n_directions``.
        seed: of the subsets; 0 by default, so that a call can be repeated.

    Raises:
        BadInput: there are fewer subsets than that, or fewer with a defined score; or the
            activations have another width.
    """
    probe = RkCNNProbe(
        open_source(activations).width if d_model is None else d_model,
        m=subset_size,
        h=n_subsets,
        r=n_directions,
        score_method=score_method,
        device=device,
        seed=seed or 0,
    )
    directions = probe.probe(activations, show_progress=show_progress).top_directions
    assert directions is not None
    return directions


def probe(settings: ProbeSettings) -> tuple[RkCNNResult, Path]:
    """Probe the training rows of a site, and save the result.

    Returns:
        The result, and the directory that holds it.

    Raises:
        BadInput: a setting does not fit the site.
    """
    store = open_readable(settings.store, settings.paired_with)
    hook_name = store.site(settings.layer, settings.hook)
    chunks, _ = split_chunks(store)
    finder = RkCNNProbe(
        store.manifest.width(hook_name),
        m=settings.m,
        h=settings.h,
        r=settings.r,
        score_method=settings.options(SCORES[settings.score]),
        seed=settings.seed,
        device=settings.device,
        sample_rows=settings.sample_rows,
        subsets=settings.options(SUBSETS[settings.subsets]),
        directions=settings.options(DIRECTIONS[settings.directions]),
        components=settings.components,
        rounds=settings.rounds,
        max_cosine=settings.max_cosine,
    )
    kept = left_out(
        store, hook_name, chunks, special_tokens=settings.special_tokens, max_norm=settings.max_norm
    )
    result = finder.probe(StoreSite(store, hook_name, chunks, kept), labels=settings.labels)
    path = Path(settings.out or f"{RESULTS}/{hook_name}-{settings.score}")
    result.save(path)
    return result, path


def last_probed(store: Readable, under: str | Path = RESULTS) -> tuple[str, Path] | None:
    """The site of a store that was probed last, and the path of the result; None if none was.

    By the time of the file: a time inside it would make results of the same rows differ.
    """
    files = Path(under).rglob(DESCRIPTION)
    for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file), reverse=True):
        try:
            source = json.loads(file.read_text("utf-8"))["source"]
            fingerprint, hook_name = source["store"], source["hook_name"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not from a store, or not a probe's file
        if fingerprint == store.manifest.fingerprint and hook_name in store.hook_names:
            return hook_name, file.parent
    return None


def probed(path: str | Path, store: Readable) -> Probed:
    """The directions in a saved result, to initialise a dictionary of that store.

    Raises:
        BadInput: there is none; it belongs to another store; or it saw held-out rows.
    """
    result = RkCNNResult.load(path)
    source, directions = result.source, result.top_directions
    if source.get("store") != store.manifest.fingerprint:
        raise BadInput(
            f"the probe in {path} belongs to another store than {store.where}: probe this one"
        )
    hook_name = store.check_site(str(source.get("hook_name")))
    if directions is None:
        raise BadInput(f"the probe in {path} was made without directions: probe again with them")
    width = store.manifest.width(hook_name)
    if directions.ndim != 2 or directions.shape[1] != width:
        raise BadInput(
            f"the directions in {path} have shape {tuple(directions.shape)}, "
            f"{hook_name} is {width} wide: probe again"
        )
    chunks, held_out = source.get("chunks"), set(split_chunks(store)[1])
    if chunks is None or held_out.intersection(chunks):
        raise BadInput(
            f"the probe in {path} saw rows that are held out for evaluation: "
            "probe with 'rkstore probe', or give StoreSite the chunks to train on"
        )
    return Probed(hook_name, directions)
