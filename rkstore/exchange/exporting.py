"""Store → files of another program, in bounded memory, there as a whole or not at all."""

import os
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError
from rkstore.exchange import exporter_named
from rkstore.exchange.base import rows_of
from rkstore.settings import ExportSettings
from rkstore.store import Store


def export_store(store: Store, settings: ExportSettings) -> Path:
    """Write sites and columns of a store for another program; returns the directory.

    Raises:
        BadInput: no such site, no rows, or the directory is not empty.
        DamagedStore: see :meth:`Store.chunk`.
        RkstoreError: the disk has no room for it.
    """
    exporter = exporter_named(settings.to)
    dtype = np.dtype(settings.dtype)
    hook_names = _sites(store, settings)
    for name in hook_names:
        if name in exporter.reserved:
            raise BadInput(f"a site called '{name}' cannot be written as {exporter.name}")
    out = Path(settings.out or Path("exports") / f"{store.root.absolute().name}-{exporter.name}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already and not empty: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_room(store, hook_names, dtype, out)
    aside = out.parent / f".{out.name}.{os.getpid()}"
    aside.mkdir()
    try:
        with tqdm(
            total=rows_of(store) * len(hook_names),
            unit="row",
            unit_scale=True,
            desc="export",
            disable=None,
        ) as bar:
            exporter.write(store, hook_names, dtype, aside, bar.update)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def _sites(store: Store, settings: ExportSettings) -> list[str]:
    """The sites that fit a layer and a hook; all if neither is given."""
    if not rows_of(store):
        raise BadInput(f"the store at {store.root} has no rows yet: run its harvest again")
    if rows_of(store) % store.manifest.context_size:
        raise BadInput(f"the rows of {store.root} are no whole blocks: it was not harvested")
    start = "" if settings.layer is None else f"blocks.{settings.layer}."
    asked = set(settings.hook)
    fitting = [
        name
        for name in store.hook_names
        if name.startswith(start) and (not asked or {name, name.split(".", 2)[-1]} & asked)
    ]
    # None fits: the store says what there is.
    return fitting or [store.site(settings.layer, next(iter(settings.hook), None))]


def _check_room(store: Store, hook_names: list[str], dtype: np.dtype, out: Path) -> None:
    widths = sum(map(store.manifest.width, hook_names))
    needed, free = rows_of(store) * widths * dtype.itemsize, shutil.disk_usage(out.parent).free
    if needed > free:
        raise RkstoreError(
            f"{out} would take {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free: make "
            "room, or choose fewer sites or --dtype float16"
        )
