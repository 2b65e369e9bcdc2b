"""Planted rows → a store, written and resumed like a harvest."""

import importlib.metadata
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rkstore.planted.features import Fired, Planted, plant_features
from rkstore.planted.settings import PlantSettings
from rkstore.planted.sites import PlantedSite, pairs_of
from rkstore.planted.truth import settings_record, truth_digest, truth_file, truth_path
from rkstore.store.codecs import codec_named
from rkstore.store.files import named, write_together
from rkstore.store.formats import compression_for
from rkstore.store.manifest import CHUNK_ROWS, Manifest, largest_divisor
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter


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
    with StoreWriter(out, manifest) as writer:
        done = manifest.rows_recorded(writer.next_shard)
        with tqdm(
            total=manifest.rows,
            initial=done,
            unit="row",
            unit_scale=True,
            desc="plant",
            disable=None,
        ) as bar:
            while writer.next_shard < manifest.shards:
                shard = writer.begin_shard()
                row, last = manifest.rows_of_shard(shard.shard)
                for fired, values in planted.rows(row, last, sites):
                    by_hook = {site.hook_name: values[site.name] for site in sites}
                    shard.add(by_hook, _columns(fired, row, manifest.context_size, planted))
                    row += fired.rows
                    bar.update(fired.rows)
                writer.finish_shard(shard)
    return Store(out)


def _manifest(planted: Planted, sites: tuple[PlantedSite, ...], model: str) -> Manifest:
    settings = planted.settings
    size = settings.context_size
    shard_rows = max(1, round(settings.shard_rows / size)) * size
    return Manifest(
        rows=settings.rows // size * size,
        context_size=size,
        shard_rows=shard_rows,
        chunk_rows=largest_divisor(shard_rows, CHUNK_ROWS),
        codec=settings.codec,
        format=settings.format,
        compression=compression_for(
            settings.format, codec_named(settings.codec).dtype, settings.compression
        ),
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
