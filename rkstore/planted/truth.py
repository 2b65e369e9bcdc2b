"""The truth of a planted store: as a file beside its rows, and again from its manifest alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from rkstore.errors import BadInput
from rkstore.planted.features import Planted
from rkstore.planted.settings import PlantSettings
from rkstore.settings import identity_of
from rkstore.store.store import Store

# What the file adds to the name of the store's directory, beside which it lies.
TRUTH = ".truth.safetensors"

# Options that decide how rows are stored, and not what they are; the manifest has them itself.
STORED = ("rows", "context_size", "codec", "format", "compression", "shard_rows", "easy")


def settings_record(planted: Planted) -> dict[str, Any]:
    """What determines the features and rows, as JSON."""
    stated = identity_of(planted.settings)
    listed = {name: list(v) if isinstance(v, tuple) else v for name, v in stated.items()}
    return {name: value for name, value in listed.items() if name not in STORED}


def truth_arrays(planted: Planted) -> dict[str, np.ndarray]:
    """The truth as arrays, by name.

    ``probability (F,)``, as drawn; ``parent (F,)``, -1 for none; ``magnitude_mean`` and
    ``magnitude_std (F,)``; ``loadings (F, rank)``; and for each site ``directions.SITE (F, d_in)``,
    unit or zero, ``bias.SITE (d_in,)`` and ``has.SITE (F,)``: whether a feature is part of it.
    """
    mean, deviation = planted.magnitudes
    arrays: dict[str, np.ndarray] = {
        "probability": planted.forest.probability,
        "parent": planted.forest.parent.astype(np.int32),
        "magnitude_mean": mean,
        "magnitude_std": deviation,
        "loadings": planted.loadings.astype(np.float32),
    }
    for site in planted.sites:
        arrays[f"directions.{site.name}"] = planted.directions[site.name]
        arrays[f"bias.{site.name}"] = planted.biases[site.name]
        arrays[f"has.{site.name}"] = site.has.astype(np.uint8)
    return arrays


def truth_file(planted: Planted) -> bytes:
    """The arrays as safetensors; the metadata has the settings as JSON under ``planted``."""
    # One key of metadata: the order of several is not defined.
    settings = json.dumps(settings_record(planted), sort_keys=True, allow_nan=False)
    return save(truth_arrays(planted), {"planted": settings})


def truth_path(out: Path) -> Path:
    """Where the truth of the store in a directory lies: beside it, for a store has only its own."""
    return out.absolute().with_name(out.absolute().name + TRUTH)


def truth_digest(planted: Planted) -> str:
    """SHA-256 over the arrays of the truth."""
    digest = hashlib.sha256()
    for name, array in sorted(truth_arrays(planted).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def planted_in(store: Store) -> Planted:
    """The features that a store was planted with, drawn again from what its manifest says.

    So a copy of the store needs no other file. Codes of any rows are ``planted.codes(a, b)``.

    Raises:
        BadInput: the store was not planted but harvested or imported, or this version draws other
            features.
    """
    source = store.manifest.source
    stated = source.get("planted")
    if not isinstance(stated, dict) or not isinstance(stated.get("settings"), dict):
        raise BadInput(
            f"{store.where} was not planted, so nobody knows its features: make a store whose "
            "features are known with 'rkstore plant'"
        )
    if "imported_from" in source:
        raise BadInput(
            f"{store.where} was imported, so its rows may be others than were planted: use the "
            "store that was exported, or a copy made with 'rkstore pull'"
        )
    planted = Planted(PlantSettings(**stated["settings"]))
    if truth_digest(planted) != stated.get("truth_sha256"):
        raise BadInput(
            f"{store.where} was planted with other versions ({source.get('libraries')}), which "
            "draw other features: install those"
        )
    return planted
