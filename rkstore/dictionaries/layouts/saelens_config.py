"""Reading SAELens' ``cfg.json``: each key that changes a value is obeyed, or refused by name.

SAELens ignores an unknown key, and so would a reader that takes only the four tensors; the numbers
would then be those of another dictionary. Both layouts are read: that of SAELens 6, with
everything not needed to run a dictionary in ``metadata``, and the earlier flat ones.
"""

import re
from dataclasses import dataclass
from typing import Any

from rkstore.dictionaries.layouts.keys import check_known
from rkstore.dictionaries.rownorm import OF_INPUT, ROW_NORMS
from rkstore.dictionaries.selects import SELECTS
from rkstore.errors import BadInput

DTYPES = {
    f"{prefix}{name}": name
    for prefix in ("", "torch.")
    for name in ("float32", "float64", "float16", "bfloat16")
}


@dataclass(frozen=True)
class Architecture:
    """What rkstore has an architecture of SAELens as: its select, and the wiring."""

    select: str
    transcoder: bool = False
    skip: bool = False


ARCHITECTURES = {
    str(s.architecture): Architecture(name) for name, s in SELECTS.items() if s.architecture
} | {
    "transcoder": Architecture("relu", transcoder=True),
    "skip_transcoder": Architecture("relu", transcoder=True, skip=True),
    "jumprelu_transcoder": Architecture("jumprelu", transcoder=True),
    "jumprelu_skip_transcoder": Architecture("jumprelu", transcoder=True, skip=True),
}

# What SAELens has, and rkstore has not.
UNLIKE = {
    "matching_pursuit": "it chooses latents one after another from what is left of a row, which no "
    "encoder does",
    "temporal": "its code depends on earlier rows of the context",
    "batchtopk": "it is of a training: save it with SAELens' save_inference_model",
    "matryoshka_batchtopk": "it is of a training: save it with SAELens' save_inference_model",
}

# Normalisations with parameters in a separate file: the mean norm of the activations was divided
# out, or their covariance.
AVERAGE, WHITENED = "expected_average_only_in", "covariance_whitening"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"

# Keys that change a value, with the supported values. The first is the default.
CHOICES: dict[str, tuple[Any, ...]] = {
    "architecture": ("standard", *(name for name in ARCHITECTURES if name != "standard")),
    "apply_b_dec_to_input": (True, False),
    "normalize_activations": (*(n for n in ROW_NORMS if n != OF_INPUT), AVERAGE, WHITENED),
    # Rows are flat in a store, as hook_z requires.
    "reshape_activations": ("none", "hook_z"),
    "rescale_acts_by_decoder_norm": (False, True),
    "finetuning_scaling_factor": (False, True),
    "activation_fn": ("relu", "topk"),
    "dtype": tuple(DTYPES),
}

# Keys that change a value and contain a number.
NUMBERS = ("d_in", "d_sae", "k", "activation_fn_kwargs")

# What only a transcoder has: a number, and in early files the layer, which the hook says, too.
OF_TRANSCODERS = ("d_out", "hook_layer_out")

# Those with k active latents, which may be ranked by decoder norms; and k if one does not say.
WITH_K = ("topk", "abstopk")
TOPK_IF_UNSAID = 100

# Other names of the same in flat files.
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}

# The activations that a dictionary is for. In a flat file they are among the other keys.
METADATA_KEYS = """
    context_size dataset_path dataset_trust_remote_code exclude_special_tokens hf_hook_name
    hook_head_index hook_layer hook_name l0 model_class_name model_from_pretrained_kwargs
    model_name neuronpedia_id num_dead_features prepend_bos sae_lens_training_version
    sae_lens_version seqpos_slice training_architecture training_architecture_details
"""
METADATA = frozenset(METADATA_KEYS.split())

# What a transcoder writes. An autoencoder with any of these would not write what it reads.
NOT_A_ROW = ("hook_name_out", "hook_head_index_out", "hf_hook_name_out")

# How a dictionary was trained, or where: its output does not depend on these.
TRAINING_KEYS = """
    act_store_device activations_mixing_fraction adam_beta1 adam_beta2 autocast autocast_lm
    aux_loss_coefficient b_dec_init_method cached_activations_path checkpoint_path compile_llm
    compile_sae d_head dead_feature_estimation_method dead_feature_threshold dead_feature_window
    decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm decoder_orthogonal_init
    device disable_concat_sequences eval_batch_size_prompts eval_every_n_wandb_logs
    expansion_factor feature_reinit_scale feature_sampling_method feature_sampling_window
    finetuning_method finetuning_tokens from_pretrained_path hook_eval
    init_encoder_as_decoder_transpose is_dataset_tokenized jumprelu_bandwidth
    jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale
    l0_coefficient l0_lambda l0_warm_up_steps l1_coefficient l1_warm_up_steps llm_compilation_mode
    llm_device log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb
    log_weights_to_wandb logger lp_norm lr lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps
    model_kwargs mse_loss_normalization n_batches_for_norm_estimate n_batches_in_buffer
    n_checkpoints n_eval_batches n_restart_cycles noise_scale normalize_sae_decoder output_path
    pre_act_loss_coefficient prefetch_llm_batches resample_batches resume resume_from_checkpoint
    run_name sae_compilation_mode save_final_checkpoint scale_sparsity_penalty_by_decoder_norm seed
    sequence_separator_token store_batch_size store_batch_size_prompts streaming target_l0
    tokens_per_buffer total_training_tokens train_batch_size train_batch_size_tokens
    training_tokens use_cached_activations use_chat_formatting use_ghost_grads
    use_sparse_activations verbose wandb_entity wandb_id wandb_log_frequency wandb_project
"""
WITHOUT_EFFECT = frozenset(TRAINING_KEYS.split())


@dataclass(frozen=True)
class Config:
    """A parsed ``cfg.json``.

    Args:
        d_out: width of what is written.
        options: of the select.
        dtype: what the weights are rounded to; None to keep them.
        centred: whether the encoder takes ``x - b_dec``.
        norm: how rows are normalised, one of ``CHOICES``.
        by_decoder_norms: whether pre-activations are multiplied by the norms of ``W_dec``'s
            rows, and the code divided by them.
        finetuned: whether the code is multiplied by a factor for each latent.
        metadata: the activations that it is for, and other keys.
    """

    architecture: Architecture
    d_in: int
    d_sae: int
    d_out: int
    options: dict[str, int]
    dtype: str | None
    centred: bool
    norm: str
    by_decoder_norms: bool
    finetuned: bool
    metadata: dict[str, Any]

    @property
    def row_norm(self) -> str:
        """The normalisation of each row; one that is common to all is in the weights."""
        return "none" if self.norm in (AVERAGE, WHITENED) else self.norm


def read_config(document: Any) -> Config:
    """Parse a ``cfg.json``.

    Raises:
        BadInput: a key or a value of one is not known, or two contradict each other.
    """
    if not isinstance(document, dict):
        raise BadInput("its configuration is not an object")
    config: dict[str, Any] = {RENAMED.get(str(key), str(key)): v for key, v in document.items()}
    if len(config) < len(document):
        raise BadInput("its configuration has a key under two names")
    name = _architecture(config)
    architecture, k = ARCHITECTURES[name], _k(config)
    _check_known(config, architecture)
    chosen = {key: _choice(config, key) for key in CHOICES if key != "architecture"}
    if chosen["activation_fn"] == "topk" and name != "topk":
        raise BadInput(f"activation_fn is 'topk', which a {name} dictionary does not have")
    if name not in WITH_K and (k is not None or chosen["rescale_acts_by_decoder_norm"]):
        key, value = ("rescale_acts_by_decoder_norm", True) if k is None else ("k", k)
        raise BadInput(f"{key} is {value}, which a {name} dictionary does not have")
    if architecture.transcoder and config.get("apply_b_dec_to_input"):
        raise BadInput(f"apply_b_dec_to_input is true, which a {name} dictionary does not have")
    return Config(
        architecture,
        d_in=_size(config, "d_in"),
        d_sae=_size(config, "d_sae"),
        d_out=_size(config, "d_out" if architecture.transcoder else "d_in"),
        options={"k": TOPK_IF_UNSAID if k is None else k} if name in WITH_K else {},
        dtype=DTYPES[chosen["dtype"]] if "dtype" in config else None,
        centred=chosen["apply_b_dec_to_input"] and not architecture.transcoder,
        norm=chosen["normalize_activations"],
        by_decoder_norms=chosen["rescale_acts_by_decoder_norm"],
        finetuned=chosen["finetuning_scaling_factor"],
        metadata=_metadata(config, architecture),
    )


def _architecture(config: dict[str, Any]) -> str:
    """Its name, of ``ARCHITECTURES``."""
    found = config.get("architecture")
    if isinstance(found, str) and found in UNLIKE:
        raise BadInput(f"architecture is '{found}', which rkstore cannot hold: {UNLIKE[found]}")
    name: str = _choice(config, "architecture")
    if name == "standard" and config.get("activation_fn") == "topk" and _k(config):
        return "topk"  # its name before it had its own
    return name


def _check_known(config: dict[str, Any], architecture: Architecture) -> None:
    known = {*CHOICES, *NUMBERS, *METADATA, *NOT_A_ROW, *WITHOUT_EFFECT, "metadata"}
    known |= set(OF_TRANSCODERS if architecture.transcoder else ())
    check_known(config, known)


def _choice(config: dict[str, Any], key: str) -> Any:
    """The value of a key, or its default."""
    usual = CHOICES[key][0]
    value = config.get(key, usual)
    if key == "normalize_activations" and (value is None or isinstance(value, bool)):
        value = AVERAGE if value else usual  # as it was first written
    if type(value) is not type(usual) or value not in CHOICES[key]:
        known = ", ".join(str(choice) for choice in CHOICES[key])
        raise BadInput(f"{key} is {value!r}: rkstore reads {known}")
    return value


def _size(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int:
        raise BadInput(f"{key} is {value!r}, not a whole number")
    return value


def _k(config: dict[str, Any]) -> int | None:
    """Active latents of a topk dictionary; in flat files an argument of its activation."""
    inner = config.get("activation_fn_kwargs") or {}
    if not isinstance(inner, dict) or inner.keys() - {"k"}:
        raise BadInput(f"activation_fn_kwargs is {inner!r}: rkstore reads k")
    stated = [value for value in (config.get("k"), inner.get("k")) if value is not None]
    if stated and stated[0] != stated[-1]:
        raise BadInput(f"k is {stated[0]!r}, and {stated[-1]!r} in activation_fn_kwargs")
    return _size({"k": stated[0]}, "k") if stated else None


def _metadata(config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """``metadata``, and the corresponding keys of a flat file."""
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise BadInput("its metadata is not an object")
    flat = {key: config[key] for key in config.keys() & {*METADATA, *NOT_A_ROW}}
    for key in flat.keys() & metadata.keys():
        if flat[key] != metadata[key]:
            raise BadInput(f"{key} is {flat[key]!r}, and {metadata[key]!r} in metadata")
    found: dict[str, Any] = flat | metadata
    for key in () if architecture.transcoder else NOT_A_ROW:
        if found.get(key) is not None:
            raise BadInput(
                f"{key} is {found[key]!r}: rkstore reads dictionaries of whole rows, which "
                f"reconstruct their input"
            )
    if not since_6(found):  # as SAELens has them: it always did
        found = {"sae_lens_version": None, "prepend_bos": True} | found
    return found


def since_6(metadata: dict[str, Any]) -> bool:
    """Whether SAELens takes a file for one of version 6, where the metadata is an object."""
    return bool(re.match(r"([6-9]|\d\d)\.", str(metadata.get("sae_lens_version"))))
