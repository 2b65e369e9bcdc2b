"""Files of another program → store, shard by shard, without a model."""

import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rkstore.errors import BadInput, RkstoreError, one_line
from rkstore.settings import check_distinct, flag_of, member_named, options_in, unread
from rkstore.share.exchange import IMPORTERS
from rkstore.share.exchange.base import Floats, Source
from rkstore.share.settings import ImportSettings
from rkstore.store.files import named, sha256
from rkstore.store.manifest import SITE_NAME, Manifest
from rkstore.store.store import Store
from rkstore.store.writing.encoder import ShardEncoder
from rkstore.store.writing.whole import Advance, manifest_of, write_store

INT32 = np.iinfo(np.int32)

# The number of a layer, as most programs write it in a name.
LAYER = re.compile(r"(?<![a-z])(?:layers?|blocks?|h)[._-]?([0-9]{1,18})(?![0-9])", re.IGNORECASE)


def import_store(
    path: str | Path, settings: ImportSettings, say: Callable[[str], object] = lambda _: None
) -> Store:
    """Write a store of the rows in files of another program.

    If stopped, the same import continues with the next shard. Missing columns are filled in:
    ``token_id`` is -1, ``document`` counts the blocks, ``position`` counts within a block. Without
    a context size each row is its own block. For an export, blocks, columns, model and codec error
    are those of the original store.

    Args:
        say: called with a sentence for each array that became a site, if there are several or names
            were given.

    Raises:
        BadInput: the files are not what ``--from`` says, or a value is not finite.
        RkstoreError: they cannot be read, or the disk is full.
    """
    path = named(path)
    if settings.from_ is None:
        raise BadInput(f"say what the files are with --from: one of {', '.join(IMPORTERS)}")
    importer = member_named("--from", IMPORTERS, settings.from_, dict(settings))
    if not path.exists():
        raise BadInput(f"there is nothing at {path} to import")
    check_distinct("--hook-name", settings.hook_name)
    for name in unread(settings):
        if getattr(settings, name) != options_in(type(settings))[name].default:
            raise BadInput(
                f"{flag_of(name)} has no effect with --from {importer.name}: leave it out"
            )
    source = importer.open(path, settings)
    manifest = _manifest(path, source, settings)
    name = path.absolute().name if path.is_dir() else path.stem
    out = Path(settings.out or Path("stores") / name)

    def said() -> None:
        if settings.hook_name or len(source.arrays) > 1:
            for site, array in source.arrays.items():
                say(_assigned(array, site))

    def fill(shard: ShardEncoder, advance: Advance) -> None:
        first, last = manifest.rows_of_shard(shard.shard)
        values = _values(path, source, first, last)
        shard.add(values, _columns(path, source, manifest.context_size, first, last))
        advance(last - first)

    return write_store(out, manifest, fill, shown="import", on_open=said)


def _assigned(array: str, site: str) -> str:
    """Which array became which site, and whether their names disagree about the layer."""
    layers = [found[1] for name in (array, site) if (found := LAYER.search(name))]
    differ = len({int(layer) for layer in layers}) > 1
    return f"{array} → {site}" + (f": layer {' is called '.join(layers)}" if differ else "")


def _manifest(path: Path, source: Source, settings: ImportSettings) -> Manifest:
    for site in source.sites:
        if not SITE_NAME.fullmatch(site.hook_name):
            raise BadInput(f"'{site.hook_name}' cannot name a site: give --hook-name")
        if settings.d_in is not None and site.width != settings.d_in:
            raise BadInput(
                f"{site.hook_name} is {site.width} wide, not {settings.d_in} as --d-in says"
            )
    return manifest_of(
        settings,
        rows=source.rows,
        context_size=_context_size(path, source, settings),
        sites=source.sites,
        source={
            **(source.facts.inherited(source.arrays) if source.facts else {}),
            **_model(path, source, settings),
            "imported_from": settings.from_,
            "dtype": source.dtype,
            "files": _described(source.files),
            "columns": list(source.columns),
            "libraries": {name: importlib.metadata.version(name) for name in ("rkstore", "numpy")},
        },
    )


def _model(path: Path, source: Source, settings: ImportSettings) -> dict[str, Any]:
    """The model by the given name, unless the files record it."""
    known = source.facts.source.get("model", {}) if source.facts else {}
    if known.get("name", settings.model_name) not in (None, settings.model_name):
        if settings.model_name:
            raise BadInput(
                f"--model-name is {settings.model_name}: {path} was exported from a store of "
                f"{known['name']}"
            )
        return {}
    return {"model": known | {"name": settings.model_name}} if settings.model_name else {}


def _context_size(path: Path, source: Source, settings: ImportSettings) -> int:
    stated, asked = source.context_size, settings.context_size
    if stated and asked and stated != asked:
        raise BadInput(f"--context-size is {asked}: the blocks of {path} have {stated} rows")
    size = asked or stated or 1
    if source.rows % size:
        raise BadInput(
            f"--context-size is {size}: the {source.rows:,} rows of {path} are not a whole "
            "number of such blocks"
        )
    if source.rows // size > INT32.max:
        raise BadInput(f"{path} has more than {INT32.max:,} blocks: give a --context-size")
    return size


def _described(files: dict[str, Path]) -> list[dict[str, Any]]:
    """Name, size and digest of each file; the digest reads all bytes."""
    described = []
    total = sum(file.stat().st_size for file in files.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="digest", disable=None) as bar:
        for name, file in files.items():
            size = file.stat().st_size
            # A name may contain bytes that are not text, which JSON cannot represent.
            readable = os.fsencode(name).decode("utf-8", "backslashreplace")
            described.append({"name": readable, "bytes": size, "sha256": sha256(file)})
            bar.update(size)
    return described


def _values(path: Path, source: Source, first: int, last: int) -> dict[str, Floats]:
    with _readable(path, first, last):
        values = source.read(first, last)
    for name, x in values.items():
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            row = int(finite.argmin())
            raise BadInput(
                f"{path}: row {first + row} of {name} has {x[row][~np.isfinite(x[row])][0]}: "
                "activations must be finite float32"
            )
    return values


def _columns(path: Path, source: Source, size: int, first: int, last: int) -> dict[str, np.ndarray]:
    row = np.arange(first, last)
    made = {"token_id": np.full(last - first, -1), "document": row // size, "position": row % size}
    with _readable(path, first, last):
        found = {name: read(first, last) for name, read in source.columns.items()}
    for name, column in found.items():
        if column.dtype.kind not in "iu":
            raise BadInput(f"{path}: {name} of rows {first}:{last} is {column.dtype}, not integers")
        if column.min() < -1 or column.max() > INT32.max:
            raise BadInput(
                f"{path}: {name} of rows {first}:{last} goes from {column.min()} to "
                f"{column.max()}: a store holds 0 to {INT32.max}, and -1 for unknown"
            )
    return made | found


@contextmanager
def _readable(path: Path, first: int, last: int) -> Iterator[None]:
    """Raise RkstoreError if the library that reads the rows cannot."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = one_line(error, 200)
        raise RkstoreError(f"rows {first}:{last} of {path} cannot be read: {reason}") from None
