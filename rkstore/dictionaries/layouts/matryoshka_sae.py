"""matryoshka_sae and the transcoders that grew out of it: ``sae.pt`` and ``config.json``.

The transcoders' own repository saves the same as ``checkpoints/final.pt``. A batch's code is that
of BatchTopK, afterwards one with a threshold. ``input_unit_norm`` is a layer norm of each row,
which is undone on the output: that of a transcoder, too, by mean and deviation of its input.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.dictionaries.layouts.archives import open_pt
from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT, Layout
from rkstore.dictionaries.layouts.hooks import stated_site
from rkstore.dictionaries.layouts.keys import check_known, choice, required, size
from rkstore.dictionaries.layouts.tensors import read_object, taken
from rkstore.dictionaries.rownorm import OF_INPUT
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.dictionaries.layouts.filled import Ruled

WEIGHTS, CONFIG = ("sae.pt", "checkpoints/final.pt"), "config.json"
LOG_THRESHOLD = "jumprelu.log_threshold"

# Values of sae_type, by the tensors besides the four that each has; and those whose code uses
# b_enc, which the others have all the same, at zero.
KINDS = {
    "vanilla": "",
    "topk": "",
    "batchtopk": "threshold",
    "batch-topk": "threshold",
    "global-matryoshka-topk": "threshold",
    "jumprelu": LOG_THRESHOLD,
}
WITH_B_ENC = ("vanilla", "jumprelu")
TRANSCODERS = ("topk", "matryoshka-transcoder", "global-matryoshka-topk")

OBEYED: tuple[str, ...] = (
    "act_size",
    "dict_size",
    "dtype",
    "group_sizes",
    "hook_point",
    "input_unit_norm",
)
OBEYED += ("prefix_sizes", "sae_type", "source_act_size", "source_hook_point")
OBEYED += ("target_act_size", "target_hook_point", "top_k")
METADATA = ("model_name", "dataset_path", "seq_len")
TRAINING_KEYS = """
    aux_penalty bandwidth batch_size beta1 beta2 checkpoint_freq completed_at device
    experiment_description l1_coeff layer lr max_grad_norm max_samples_per_feature min_lr
    model_batch_size model_dtype n_batches_to_dead name num_batches_in_buffer num_tokens
    perf_log_freq results_root sample_activation_threshold sample_collection_freq
    sample_context_size samples_per_feature_to_save save_activation_samples scheduler_type seed
    site source_layer source_site store_tokens_for_samples target_layer target_site
    top_features_to_save top_k_aux top_k_matryoshka wandb_project warmup_steps
"""
WITHOUT_EFFECT = frozenset(TRAINING_KEYS.split())


# A list as text.
WIDTHS = re.compile(r"\[[0-9, ]+\]")


class MatryoshkaSAE(Layout):
    """Autoencoders of matryoshka_sae, and Matryoshka transcoders."""

    name = "matryoshka-sae"
    files = (CONFIG, WEIGHTS[0])

    def found(self, directory: Path) -> bool:
        files = any((directory / name).is_file() for name in WEIGHTS)
        return files and (directory / CONFIG).is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        config = read_object(directory / CONFIG)
        check_known(config, (*OBEYED, *METADATA, *WITHOUT_EFFECT))
        file = next(name for name in WEIGHTS if (directory / name).is_file())
        opened, plain = open_pt(directory / file)
        if plain:
            raise BadInput(f"{min(plain)} in {opened.name} is no tensor")
        # Only a transcoder has the second, or widths of prefixes, which include one another.
        transcodes = "prefix_sizes" in config or "target_hook_point" in config
        # A transcoder's default is not to.
        stated_norm = choice if transcodes else required
        normalised = stated_norm(config, "input_unit_norm", (False, True))
        stated = {"context_size": config.get("seq_len")}
        stated |= {key: config.get(key) for key in ("model_name", "dataset_path")}
        metadata = {key: value for key, value in stated.items() if value is not None}
        if transcodes:
            norm = OF_INPUT if normalised else "none"
            return _transcoder(config, opened, (hook_name, hook_name_out), norm, metadata)
        if hook_name_out is not None:
            raise BadInput("it writes what it reads: give one hook")
        norm = "layer_norm" if normalised else "none"
        return _autoencoder(config, opened, hook_name, norm, metadata)


Read = tuple["Dictionary", dict[str, Any]]


def _autoencoder(
    config: dict[str, Any], opened: Any, given: str | None, norm: str, metadata: dict[str, Any]
) -> Read:
    from rkstore.dictionaries.layouts.filled import autoencoder

    kind = required(config, "sae_type", tuple(KINDS))
    d, latents = size(config, "act_size"), size(config, "dict_size")
    if kind == "global-matryoshka-topk":
        metadata |= _widths(config, "group_sizes", latents)
    due: dict[str, tuple[int, ...]] = _shapes(d, latents, d)
    if more := KINDS[kind]:
        due[more] = (latents,) if more == LOG_THRESHOLD else ()
    w = taken(opened, due)
    if kind not in WITH_B_ENC and w["b_enc"].any():
        raise BadInput(f"sae_type is {kind}, whose code does not use b_enc, and it is not zero")
    site = Site(stated_site(config.get("hook_point"), given, UNNAMED), d)
    metadata |= {} if site.hook_name == UNNAMED else {"hook_name": site.hook_name}
    subtracts = kind != "jumprelu"
    made = autoencoder(w, _rule(kind, config, w), site, subtracts=subtracts, row_norm=norm)
    return made, metadata


def _transcoder(
    config: dict[str, Any],
    opened: Any,
    given: tuple[str | None, str | None],
    norm: str,
    metadata: dict[str, Any],
) -> Read:
    from rkstore.dictionaries.layouts.filled import transcoder

    choice(config, "sae_type", TRANSCODERS)
    latents = size(config, "dict_size")
    metadata |= _widths(config, "prefix_sizes", latents)
    usual = {key: config.get("act_size") for key in ("source_act_size", "target_act_size")}
    d_in, d_out = (size(usual | config, key) for key in usual)
    w = taken(opened, _shapes(d_in, latents, d_out) | {"threshold": ()})
    reads = Site(stated_site(config.get("source_hook_point"), given[0], UNNAMED), d_in)
    writes = Site(stated_site(config.get("target_hook_point"), given[1], UNNAMED_OUT), d_out)
    metadata |= {"hook_name": reads.hook_name, "hook_name_out": writes.hook_name}
    return transcoder(w, _rule("batchtopk", config, w), reads, writes, norm), metadata


def _shapes(d_in: int, latents: int, d_out: int) -> dict[str, tuple[int, ...]]:
    matrices = {"W_enc": (d_in, latents), "W_dec": (latents, d_out)}
    return {**matrices, "b_enc": (latents,), "b_dec": (d_out,)}


def _rule(kind: str, config: dict[str, Any], w: dict[str, Tensor]) -> Ruled:
    from rkstore.dictionaries.layouts.filled import batchtopk, jumprelu, relu, topk

    if kind == "vanilla":
        return relu()
    if kind == "jumprelu":
        return jumprelu(w[LOG_THRESHOLD].exp())
    k = size(config, "top_k")
    return topk(k) if kind == "topk" else batchtopk(k, w["threshold"])


def _widths(config: dict[str, Any], key: str, latents: int) -> dict[str, Any]:
    """The widths of the prefixes, under SAELens' name; as text in older files."""
    stated = config.get(key)
    if isinstance(stated, str) and WIDTHS.fullmatch(stated):
        stated = json.loads(stated)
    if not isinstance(stated, list) or not all(
        type(width) is int and width > 0 for width in stated
    ):
        raise BadInput(f"{key} is {stated!r}, which are no widths")
    ends = stated
    if key == "group_sizes":
        ends = [sum(stated[: i + 1]) for i in range(len(stated))]
    if sorted(ends) != ends or ends[-1:] != [latents]:
        raise BadInput(f"{key} is {stated!r}, which does not end with its {latents} latents")
    details = {"matryoshka_widths": ends}
    name = "matryoshka_batchtopk"
    return {"training_architecture": name, "training_architecture_details": details}
