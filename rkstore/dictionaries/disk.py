"""A dictionary on disk, in SAELens' own layout: ``cfg.json`` and ``sae_weights.safetensors``.

``sae_lens.SAE.load_from_disk(path)`` loads the directory as it is.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rkstore.dictionaries.config import read_config
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.folding import fold
from rkstore.dictionaries.selects import select_named
from rkstore.errors import BadInput
from rkstore.store.files import named

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# The file that makes a directory a checkpoint.
TRAINING = "training.json"

# Where checkpoints are written unless another place is asked for.
CHECKPOINTS = "checkpoints"

# From this version on SAELens keeps what is not needed to run a dictionary in "metadata".
SAE_LENS_VERSION = "6.0.0"


def save_dictionary(dictionary: Dictionary, path: Path, metadata: dict[str, Any]) -> None:
    """Write a dictionary to an existing directory.

    Args:
        metadata: model and hook it belongs to, under SAELens' names, and whatever else
            is worth keeping.
    """
    (pool,) = dictionary.pools
    select, kept = pool.rule.at_inference(pool, dictionary.d_sae)
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
        "metadata": {"sae_lens_version": SAE_LENS_VERSION} | metadata,
    }
    tensors = dict(dictionary.named_parameters()) | kept
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, path / WEIGHTS)
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    (path / CONFIG).write_text(text, "utf-8")


def load_dictionary(path: str | Path) -> tuple[Dictionary, dict[str, Any]]:
    """Read a dictionary that rkstore or SAELens wrote, and the metadata it was written with.

    What a file asks for is in the weights then: ``encode`` gives the code that SAELens gives,
    ``forward`` the reconstruction, and the weights themselves may differ from those on disk.

    Raises:
        BadInput: there is none in that directory, or it is of a kind that rkstore does
            not know, or its tensors do not fit its configuration or are not finite.
    """
    path = named(path)
    if not (path / CONFIG).is_file() or not (path / WEIGHTS).is_file():
        raise BadInput(f"{path} holds no dictionary ({CONFIG} and {WEIGHTS}): give a checkpoint")
    try:
        config = read_config(json.loads((path / CONFIG).read_text("utf-8")))
        tensors = fold(load_file(path / WEIGHTS), config, path)
        select = select_named(config.select, config.options)
        dictionary = Dictionary.of_site(config.d_in, config.d_sae, select, config.row_norm)
        buffers = dict(dictionary.pools[0].named_buffers())
        # On disk what the select keeps lies beside the weights: SAELens has one flat list.
        dictionary.load_state_dict(
            {f"select.{k}" if k in buffers else k: tensor for k, tensor in tensors.items()}
        )
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"cannot read the dictionary in {path}: {reason}") from None
    return dictionary.eval(), config.metadata
