"""Whether a store is possible: reading a ``manifest.json`` that anyone may have written."""

import json
import math
from typing import Any

from rkstore.errors import BadInput, DamagedStore
from rkstore.store.attached import attached_in, check_attached
from rkstore.store.codecs import CODECS
from rkstore.store.files import JOURNAL, LARGEST_MANIFEST, MANIFEST, PART, PIECE
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import MORE_COLUMNS, NEEDED, SCHEMA, SITE_NAME, Manifest
from rkstore.store.sites import Pair, Site

# The most memory that a stranger's store may ask for at once, in bytes.
LARGEST_CHUNK = 2**30


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """The manifest in a ``manifest.json``.

    Args:
        raw: the bytes of the file.
        where: directory or URL of the store, for errors.

    Raises:
        BadInput: it needs a newer rkstore.
        DamagedStore: the manifest is not one that rkstore wrote.
    """
    path = f"{where}/{MANIFEST}"
    if len(raw) > LARGEST_MANIFEST:
        raise DamagedStore(f"{path} is larger than {LARGEST_MANIFEST >> 20} MiB: not a manifest")
    try:
        document = json.loads(raw)
        schema = document["rkstore_schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedStore(f"{path} is not a manifest that rkstore wrote") from None
    if isinstance(schema, int) and schema > (latest := max(NEEDED.values())):
        raise BadInput(
            f"{where} has schema {schema} and this rkstore reads up to {latest}: "
            "upgrade with 'pip install --upgrade rkstore'"
        )
    try:
        manifest = _manifest(document)
        check_manifest(manifest)
        written = manifest.to_bytes()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedStore(f"{path} is not a valid manifest: {error}") from None
    if written != raw:
        raise DamagedStore(
            f"{path} was changed after it was written: its contents have fingerprint "
            f"{manifest.fingerprint}, it states {document.get('fingerprint')}"
        )
    return manifest


def _manifest(document: dict[str, Any]) -> Manifest:
    sites = tuple(Site(site["hook_name"], site["d_in"]) for site in document["sites"])
    keys = ("rows", "context_size", "shard_rows", "chunk_rows", "codec", "format", "source")
    stated = {"compression": document["compression"]} if "compression" in document else {}
    stated["schema"] = document["rkstore_schema"]
    stated["more_columns"] = tuple(document.get("more_columns", ()))
    stated["aliases"] = dict(document.get("aliases", {}))
    stated["files"] = attached_in(document.get("files", {}))
    pairs = tuple(Pair(**pair) for pair in document.get("pairs", []))
    return Manifest(sites=sites, pairs=pairs, **{key: document[key] for key in keys}, **stated)


def check_manifest(manifest: Manifest) -> None:
    """Raise ValueError if the manifest is impossible."""
    sizes = {
        "rows": manifest.rows,
        "context_size": manifest.context_size,
        "shard_rows": manifest.shard_rows,
        "chunk_rows": manifest.chunk_rows,
    } | {site.hook_name: site.width for site in manifest.sites}
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size < 2**48:
            raise ValueError(f"{name} is {size!r}, not a positive number")
    if type(manifest.schema) is not int or manifest.schema < 1:
        raise ValueError(f"unknown schema {manifest.schema!r}")
    more = manifest.more_columns
    if len(set(more)) != len(more) or not set(more) <= MORE_COLUMNS.keys():
        raise ValueError(f"unknown columns {', '.join(map(str, more))}")
    # Schema 1 has nothing of what is needed by others either.
    if max(manifest.schema, SCHEMA) != manifest.needed_schema:
        has = " and ".join(key for key in NEEDED if getattr(manifest, key)) or "nothing newer"
        raise ValueError(f"schema {manifest.schema} does not go with {has}")
    if manifest.shard_rows % manifest.chunk_rows:
        raise ValueError("shard_rows is not a multiple of chunk_rows")
    if manifest.codec not in CODECS:
        raise ValueError(f"unknown codec {manifest.codec!r}")
    if manifest.format not in FORMATS:
        raise ValueError(f"unknown format {manifest.format!r}")
    if manifest.compression not in FORMATS[manifest.format].compressions:
        raise ValueError(f"unknown compression {manifest.compression!r} of {manifest.format}")
    if not isinstance(manifest.source, dict):
        raise ValueError("source is not an object")
    for site in manifest.sites:
        if not 0 <= manifest.fvu_before(site.hook_name) < math.inf:
            raise ValueError(f"the error of {site.hook_name} is not a number from 0")
    specs = manifest.all_specs()
    for spec in specs:
        # As float32: that is what a chunk becomes when it is decoded.
        if spec.chunk_rows * math.prod(spec.tail) * 4 > LARGEST_CHUNK:
            raise ValueError(
                f"a chunk of {spec.chunk_rows} rows of {spec.name}, {spec.width} wide, is too large"
            )
    names = [spec.name for spec in specs]
    if not manifest.sites or len(set(names)) != len(names):
        raise ValueError("sites are missing or named twice")
    for name in names:
        if not SITE_NAME.fullmatch(name) or name in (MANIFEST, JOURNAL, PART, PIECE, "zarr.json"):
            raise ValueError(f"{name!r} cannot be the name of a site")
    check_attached(manifest.files, names)
    _check_pairs(manifest)
    for alias, name in manifest.aliases.items():
        if not SITE_NAME.fullmatch(alias) or alias in names or name not in manifest.hook_names:
            raise ValueError(f"{alias!r} cannot be another name of {name!r}")


def _check_pairs(manifest: Manifest) -> None:
    """Raise ValueError if a pair has a site that the store lacks, or is there twice."""
    for pair in manifest.pairs:
        if type(pair.name) is not str or type(pair.layer) is not int:
            raise ValueError(f"a pair is named {pair.name!r}, of layer {pair.layer!r}")
        for hook_name in (pair.reads, pair.writes):
            if hook_name not in manifest.hook_names:
                raise ValueError(f"pair {pair.name} has {hook_name!r}, which is no site")
        if manifest.pairs.count(pair) > 1:
            raise ValueError(f"pair {pair.name} of layer {pair.layer} is there twice")
