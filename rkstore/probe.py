"""A store's site → directions on disk."""

from pathlib import Path

from rkstore.batches import split_chunks
from rkstore.opening import open_store
from rkstore.rkcnn import RkCNNProbe, RkCNNResult, StoreSite
from rkstore.settings import ProbeSettings


def probe(settings: ProbeSettings) -> tuple[RkCNNResult, Path]:
    """Probe the rows of a site that dictionaries train on, and write what was found.

    Returns:
        The result, and the directory that holds it.

    Raises:
        BadInput: a setting does not fit the site.
    """
    store = open_store(settings.store)
    hook_name = store.site(settings.layer, settings.hook)
    chunks, _ = split_chunks(store)
    finder = RkCNNProbe(
        store.manifest.width(hook_name),
        m=settings.m,
        h=settings.h,
        r=settings.r,
        score_method=settings.score,
        k_neighbors=settings.k_neighbors,
        seed=settings.seed,
        device=settings.device,
        sample_rows=settings.sample_rows,
        query_rows=settings.query_rows,
        subsets=settings.subsets,
        directions=settings.directions,
        components=settings.components,
        whiten=settings.whiten,
        rounds=settings.rounds,
        max_cosine=settings.max_cosine,
    )
    result = finder.probe(StoreSite(store, hook_name, chunks), labels=settings.labels)
    path = Path(settings.out or f"results/probe/{hook_name}-{settings.score}")
    result.save(path)
    return result, path
