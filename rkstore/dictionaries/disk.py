"""A dictionary on disk: ``cfg.json`` and ``sae_weights.safetensors``.

An autoencoder of one site has SAELens' own layout: ``sae_lens.SAE.load_from_disk(path)`` loads
the directory unchanged. Any other has the ``architecture`` rkstore, with its wiring as JSON: also
an autoencoder that ranks by decoder norms, unless these can be taken into its thresholds.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rkstore.dictionaries.config import read_config
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.folding import fold
from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.selects import select_named
from rkstore.dictionaries.wirings import Wiring
from rkstore.errors import BadInput
from rkstore.store.files import named
from rkstore.store.sites import of_head

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# The file that makes a directory a checkpoint.
TRAINING = "training.json"

# The default directory of checkpoints.
CHECKPOINTS = "checkpoints"

# Since this version SAELens keeps everything not needed to run a dictionary in "metadata".
SAE_LENS_VERSION = "6.0.0"

# The architecture of a dictionary whose wiring only rkstore writes.
WIRED = "rkstore"

# The site of an autoencoder whose file names none.
UNNAMED = "x"

Read = tuple[Dictionary, dict[str, Tensor], dict[str, Any]]


def save_dictionary(dictionary: Dictionary, path: Path, metadata: dict[str, Any]) -> None:
    """Write a dictionary to an existing directory.

    Args:
        metadata: model and hook it belongs to, under SAELens' names, and whatever else
            is worth keeping.
    """
    as_sae = _is_sae(dictionary)
    config, tensors = _as_saelens(dictionary) if as_sae else _as_wired(dictionary)
    config["metadata"] = {"sae_lens_version": SAE_LENS_VERSION} | metadata
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, path / WEIGHTS)
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    (path / CONFIG).write_text(text, "utf-8")


def _is_sae(dictionary: Dictionary) -> bool:
    """Whether SAELens supports it: one bank, which writes the one site that it reads."""
    wiring = dictionary.wiring
    if len(wiring.banks) > 1 or len(wiring.sites) > 1 or not wiring.centred or wiring.skip:
        return False
    (pool,) = dictionary.pools
    select, _ = pool.rule.at_inference(pool, dictionary.d_sae)
    return select.architecture is not None and (wiring.norm == "none" or select.by_latent)


def _as_saelens(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors under SAELens' names."""
    (pool,) = dictionary.pools
    select, kept = pool.rule.at_inference(pool, dictionary.d_sae)
    if dictionary.wiring.norm != "none":
        # z c > θ is z > θ/c.
        plain = Selection(select, dictionary.d_sae)
        plain.load_state_dict(kept)
        plain.rescale(dictionary.weights()[0].clamp_min(1e-12))
        kept = plain.state_dict()
    config = {
        "architecture": select.architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": dictionary.row_norm,
        "reshape_activations": "none",
        **select.config(),
    }
    weights = {"b_dec": dictionary.b_dec} | dictionary.banks[0][1]._asdict()
    return config, select.to_saelens(weights | kept)


def _as_wired(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of banks without a layout of another program."""
    rule = dictionary.pools[0].rule
    config = {
        "architecture": WIRED,
        "d_sae": dictionary.d_sae,
        "wiring": dictionary.wiring.as_dict(),
        "select": {"name": rule.name}
        | {key: value for key, value in rule if key not in rule.of_training},
        "normalize_activations": dictionary.row_norm,
    }
    return config, dictionary.state_dict()


def load_dictionary(path: str | Path) -> tuple[Dictionary, dict[str, Any]]:
    """Read a dictionary that rkstore or SAELens wrote, and its metadata.

    Options of the file are folded into the weights: ``encode`` gives the code that SAELens gives,
    ``forward`` the reconstruction, but the weights may differ from those on disk.

    Raises:
        BadInput: there is none in that directory, or its kind is unknown, or its tensors do not
        fit its configuration or are not finite.
    """
    path = named(path)
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise BadInput(f"{path} holds no dictionary ({CONFIG} and {WEIGHTS}): give a checkpoint")
    try:
        document = json.loads((path / CONFIG).read_text("utf-8"))
        wired = isinstance(document, dict) and document.get("architecture") == WIRED
        read = _read_wired if wired else _read_saelens
        dictionary, tensors, metadata = read(document, path)
        dictionary.load_state_dict(tensors)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"cannot read the dictionary in {path}: {reason}") from None
    return dictionary.eval(), metadata


def _read_saelens(document: Any, path: Path) -> Read:
    config = read_config(document)
    tensors = fold(load_file(path / WEIGHTS), config, path)
    select = select_named(config.select, config.options)
    hook_name = _site(config.metadata)
    sizes = config.d_in, config.d_sae
    dictionary = Dictionary.of_site(*sizes, select, config.row_norm, hook_name)
    kept = dictionary.pools[0].state_dict()
    # On disk the select's state is next to the weights: SAELens has one flat list.
    named = {f"select.{k}" if k in kept else k: tensor for k, tensor in tensors.items()}
    return dictionary, named, config.metadata


def _site(metadata: dict[str, Any]) -> str:
    """The site of the rows: that of one head of a hook, if SAELens' ``hook_head_index`` says so."""
    hook_name = str(metadata.get("hook_name") or UNNAMED)
    head = metadata.get("hook_head_index")
    if head is None:
        return hook_name
    if type(head) is not int or head < 0 or hook_name == UNNAMED:
        raise BadInput(f"hook_head_index is {head!r} of {hook_name}, which is no head of a hook")
    return of_head(hook_name, head)


def _read_wired(document: Any, path: Path) -> Read:
    wiring, tensors = Wiring.from_dict(document["wiring"]), load_file(path / WEIGHTS)
    kept = ("select", "units")  # what is no weight
    weights = [tensor.numel() for name, tensor in tensors.items() if not name.startswith(kept)]
    if sum(weights) != wiring.parameters:  # before memory is allocated
        raise BadInput("its tensors do not fit its wiring")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BadInput(f"{name} holds values that are not finite: its training diverged")
    options = dict(document["select"])
    select = select_named(options.pop("name"), options)
    dictionary = Dictionary(wiring, select, document["normalize_activations"])
    if wiring.norm != "none" and tensors["units"].dim() == 2:  # one a latent: affine.py
        dictionary.register_buffer("units", dictionary.units_of_latents().clone())
    return dictionary, tensors, dict(document["metadata"])
