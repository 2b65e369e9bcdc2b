"""Planted rows → a store, written and resumed like a harvest."""

import importlib.metadata
from pathlib import Path

import numpy as np

from rkstore.planted.features import Fired, Planted, plant_features
from rkstore.planted.settings import PlantSettings
from rkstore.planted.sites import PlantedSite, pairs_of
from rkstore.planted.truth import settings_record, truth_digest, truth_file, truth_path
from rkstore.store.files import named, write_together
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.encoder import ShardEncoder
from rkstore.store.writing.whole import Advance, manifest_of, write_store


def plant(settings: PlantSettings) -> list[Store]:
    """Write the store of some settings, or for two models a store of each.

    If stopped, the same call continues with the next shard and ends with the same bytes. At the end
    the truth is written beside the directory, as ``<out>.truth.safetensors``.

    Raises:
        BadInput: the settings contradict each other, or the directory holds something else.
        RkstoreError: the disk is full.
    """
    planted = plant_features(settings)
    out = named(settings.out)
    if settings.kind == "models":
        stores = [
            _write(planted, (site,), out / site.model, f"planted-{site.model}")
            for site in planted.sites
        ]
    else:
        stores = [_write(planted, planted.sites, out, "planted")]
    write_together({truth_path(out): truth_file(planted)})
    return stores


def _write(planted: Planted, sites: tuple[PlantedSite, ...], out: Path, model: str) -> Store:
    """The missing shards of one store, and its truth."""
    manifest = _manifest(planted, sites, model)

    def fill(shard: ShardEncoder, advance: Advance) -> None:
        row, last = manifest.rows_of_shard(shard.shard)
        for fired, values in planted.rows(row, last, sites):
            by_hook = {site.hook_name: values[site.name] for site in sites}
            shard.add(by_hook, _columns(fired, row, manifest.context_size, planted))
            row += fired.rows
            advance(fired.rows)

    return write_store(out, manifest, fill, shown="plant")


def _manifest(planted: Planted, sites: tuple[PlantedSite, ...], model: str) -> Manifest:
    settings = planted.settings
    size = settings.context_size
    return manifest_of(
        settings,
        rows=settings.rows // size * size,
        context_size=size,
        sites=tuple(Site(site.hook_name, site.width) for site in sites),
        pairs=pairs_of(settings),
        source={
            "model": {"name": model},
            "planted": {
                "settings": settings_record(planted),
                "truth_sha256": truth_digest(planted),
            },
            "libraries": {name: importlib.metadata.version(name) for name in ("rkstore", "numpy")},
        },
    )


def _columns(fired: Fired, first: int, size: int, planted: Planted) -> dict[str, np.ndarray]:
    """The columns of some rows from ``first``: a context is a document, and a token is the number
    of the feature that fires most, or the number of features where none does.
    """
    row = np.arange(first, first + fired.rows)
    token = np.full(fired.rows, planted.features)
    rising = np.argsort(fired.magnitude, kind="stable")
    token[fired.row[rising]] = fired.feature[rising]  # the last one assigned is the largest
    return {"token_id": token, "document": row // size, "position": row % size}
