"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.base import UNNAMED, Layout, site_of
from rkstore.dictionaries.layouts.saelens_config import SCALER, Config, read_config
from rkstore.dictionaries.layouts.tensors import open_safetensors, read_object, taken
from rkstore.errors import BadInput
from rkstore.store.sites import of_head

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# Since this version SAELens keeps everything not needed to run a dictionary in "metadata".
SAE_LENS_VERSION = "6.0.0"

# The architecture of a dictionary whose wiring only rkstore writes, under the same file names.
WIRED = "rkstore"


class SAELens(Layout):
    """``sae_lens.SAE.load_from_disk`` loads what is written; what it saves is read."""

    name = "saelens"
    files = (CONFIG, WEIGHTS)
    beside = (SCALER,)

    def found(self, directory: Path) -> bool:
        files = directory / CONFIG, directory / WEIGHTS
        return all(file.is_file() for file in files) and not is_wired(directory / CONFIG)

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from rkstore.dictionaries.dictionary import Dictionary
        from rkstore.dictionaries.layouts.saelens_weights import fold, shapes_of
        from rkstore.dictionaries.selects import select_named

        config = read_config(read_object(directory / CONFIG))
        opened = open_safetensors(directory / WEIGHTS)
        tensors = fold(taken(opened, *shapes_of(config)), config, directory)
        select = select_named(config.select, config.options)
        if hook_name_out:
            raise BadInput("it is no transcoder: leave --hook-name-out out")
        sizes = config.d_in, config.d_sae
        site = _site(config, hook_name)
        dictionary = Dictionary.of_site(*sizes, select, config.row_norm, site)
        kept = dictionary.pools[0].state_dict()
        # On disk the select's state is next to the weights: SAELens has one flat list.
        named = {f"select.{k}" if k in kept else k: tensor for k, tensor in tensors.items()}
        dictionary.load_state_dict(named)
        return dictionary, config.metadata

    def refuses(self, dictionary: Dictionary) -> str | None:
        wiring = dictionary.wiring
        if len(wiring.banks) > 1 or len(wiring.sites) > 1 or not wiring.centred or wiring.skip:
            return "it has other wirings than an autoencoder's"
        (pool,) = dictionary.pools
        select, _ = pool.rule.at_inference(pool, dictionary.d_sae)
        if select.architecture is None or (wiring.norm != "none" and not select.by_latent):
            return f"{select.name} ranks by decoder norms"
        return None

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:
        write_files(directory, *_autoencoder(dictionary), metadata)


def is_wired(config: Path) -> bool:
    """Whether a ``cfg.json`` has a wiring, which only rkstore writes."""
    try:
        return read_object(config).get("architecture") == WIRED
    except (OSError, ValueError):
        return False


def write_files(
    directory: Path, config: dict[str, Any], tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Write the two files, of this layout or of rkstore's own."""
    from safetensors.torch import save_file

    config["metadata"] = {"sae_lens_version": SAE_LENS_VERSION} | metadata
    save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, directory / WEIGHTS)
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    (directory / CONFIG).write_text(text, "utf-8")


def _autoencoder(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of an autoencoder under SAELens' names."""
    from rkstore.dictionaries.selection import Selection

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


def _site(config: Config, given: str | None) -> str:
    """The site of the rows: that of one head of a hook, if SAELens' ``hook_head_index`` says so."""
    hook_name = site_of(config.metadata.get("hook_name"), given)
    head = config.metadata.get("hook_head_index")
    if head is None:
        return hook_name
    if type(head) is not int or head < 0 or hook_name == UNNAMED:
        raise BadInput(f"hook_head_index is {head!r} of {hook_name}, which is no head of a hook")
    return of_head(hook_name, head)
