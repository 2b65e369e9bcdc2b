"""Store → files of another program, in bounded memory, atomically."""

import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError
from rkstore.settings import member_named
from rkstore.share.exchange import EXPORTERS
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.share.settings import ExportSettings
from rkstore.store.files import directory_aside, writing
from rkstore.store.store import Store
from rkstore.store.writing.lock import locked


def export_store(store: Store, settings: ExportSettings) -> Path:
    """Write sites and columns of a store for another program; returns the directory.

    Raises:
        BadInput: a hook that fits no site, no rows, or the directory is not empty.
        DamagedStore: see :meth:`Store.chunk`.
        RkstoreError: the disk has no room for it.
    """
    if settings.to is None:
        raise BadInput(f"say what to write with --to: one of {', '.join(EXPORTERS)}")
    exporter = member_named("--to", EXPORTERS, settings.to, dict(settings))
    dtype = np.dtype(settings.dtype)
    hook_names = _sites(store, settings)
    for name in hook_names:
        if name in exporter.reserved:
            raise BadInput(f"a site called '{name}' cannot be written as {exporter.name}")
    default = Path("exports") / f"{store.name}-{exporter.name}"
    out = Path(settings.out or default)
    outgoing = Outgoing(store, hook_names, dtype)
    total = outgoing.rows * len(hook_names)
    _check_free(out)
    with writing(out, "the store is intact"), locked(out):
        _check_free(out)  # another export may have ended just before
        _check_room(outgoing, out)
        with (
            directory_aside(out) as aside,
            tqdm(total=total, unit="row", unit_scale=True, desc="export", disable=None) as bar,
        ):
            outgoing.advance = bar.update
            exporter.write(outgoing, aside)
    return out


def _sites(store: Store, settings: ExportSettings) -> list[str]:
    """The sites that fit the layer and any of the hooks; all if neither is given."""
    rows = store.stop_row - store.first_row
    if not rows:
        raise BadInput(f"the store at {store.where} has no rows yet: run its harvest again")
    if rows % store.manifest.context_size:
        raise BadInput(f"the rows of {store.where} are not whole blocks: it was not harvested")
    return store.sites(settings.layer, settings.hook)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already and not empty: choose another --out")


def _check_room(outgoing: Outgoing, out: Path) -> None:
    per_row = sum(map(outgoing.width, outgoing.hook_names)) * outgoing.dtype.itemsize
    needed, free = outgoing.rows * per_row, shutil.disk_usage(out.parent).free
    if needed > free:
        raise RkstoreError(
            f"{out} would take {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free: make "
            "room, or choose fewer sites or --dtype float16"
        )
