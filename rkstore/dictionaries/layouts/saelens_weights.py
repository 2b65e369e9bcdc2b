"""SAELens' tensors → weights of a :class:`Dictionary`.

Options of a ``cfg.json`` that are the same for all rows are folded into the weights once, in
float64. Without such options the weights stay unchanged, bit for bit.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from rkstore.dictionaries.folding import at_unit_decoders, centred, of_scaled, of_whitened
from rkstore.dictionaries.layouts.saelens_config import (
    AVERAGE,
    SCALER,
    WHITENED,
    WHITENING,
    Config,
)
from rkstore.dictionaries.layouts.tensors import (
    Shapes,
    check_finite,
    open_safetensors,
    read_object,
    taken,
)
from rkstore.dictionaries.selects import SELECTS
from rkstore.errors import BadInput

FACTORS = ("finetuning_scaling_factor", "scaling_factor")

# The tensors of one number for each latent, by select.
OF_LATENTS = {"jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "b_mag", "r_mag")}


def shapes_of(config: Config) -> tuple[Shapes, Shapes]:
    """The tensors that a configuration asks for, and those that there may be, too."""
    latents = (config.d_sae,)
    due = {
        "W_enc": (config.d_in, config.d_sae),
        "W_dec": (config.d_sae, config.d_out),
        "b_dec": (config.d_out,),
        **dict.fromkeys(OF_LATENTS.get(config.architecture.select, ("b_enc",)), latents),
    }
    if config.architecture.skip:
        due["W_skip"] = (config.d_out, config.d_in)
    return due, dict.fromkeys(FACTORS, latents)


def fold(tensors: dict[str, Tensor], config: Config, directory: Path) -> dict[str, Tensor]:
    """The weights, float32, with which ``x̂`` is as the configuration says.

    Args:
        tensors: as they were saved, under SAELens' names.
        directory: their directory, which may have the factor of normalised activations.

    Raises:
        BadInput: a factor is missing or unexpected, or a weight is not a finite number.
    """
    dtype = getattr(torch, config.dtype) if config.dtype else None
    w = {name: t.to(dtype or t.dtype) for name, t in tensors.items()}
    w = SELECTS[config.architecture.select].from_saelens(w)
    factor = _finetuning_factor(w, config)
    plain = config.norm not in (AVERAGE, WHITENED) and not config.by_decoder_norms
    uncentred = not config.centred and not config.architecture.transcoder
    if not plain or uncentred or factor is not None:
        w = {name: tensor.double() for name, tensor in w.items()}
        if config.norm == AVERAGE:
            w = of_scaled(w, _scale(directory))
        if config.by_decoder_norms:
            w = at_unit_decoders(w)
        if factor is not None:
            w["W_dec"] = w["W_dec"] * factor.double().unsqueeze(1)
        if uncentred:
            w = centred(w)
        if config.norm == WHITENED:
            w = of_whitened(w, *_whitening(directory, config))
    w = {name: tensor.float() for name, tensor in w.items()}
    check_finite(w)
    return w


def _finetuning_factor(w: dict[str, Tensor], config: Config) -> Tensor | None:
    """Remove the factor of each latent's code, if it is not 1."""
    found = [w.pop(name) for name in FACTORS if name in w]
    factors = [factor for factor in found if not torch.all(factor == 1)]
    if len(factors) > 1 or bool(factors) > config.finetuned:
        raise BadInput(f"it has a {FACTORS[1]}, and finetuning_scaling_factor is false")
    return factors[0] if factors else None


def _scale(directory: Path) -> float:
    """The factor by which activations were multiplied before the dictionary saw them."""
    path = directory / SCALER
    if not path.is_file():
        raise BadInput(
            f"normalize_activations is '{AVERAGE}', and the factor is not there ({SCALER}): fold "
            "it into the weights with SAELens' fold_activation_norm_scaling_factor"
        )
    scale = read_object(path)["scaling_factor"]
    if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise BadInput(f"scaling_factor in {SCALER} is {scale!r}, not a positive number")
    return float(scale)


def _whitening(directory: Path, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the activations, the matrix by which they were whitened, and its inverse."""
    if config.architecture.transcoder:
        raise BadInput(
            f"normalize_activations is '{WHITENED}', which has no meaning for what a transcoder "
            "writes: fold it into the weights with SAELens' fold_activation_whitening"
        )
    path, scaler = directory / WHITENING, directory / SCALER
    off = scaler.is_file() and read_object(scaler).get("has_whitening", True) is not True
    if off or not path.is_file():
        raise BadInput(
            f"normalize_activations is '{WHITENED}', and the matrix is not there ({WHITENING}): "
            "fold it into the weights with SAELens' fold_activation_whitening"
        )
    square = config.d_in, config.d_in
    due = {"mean": (config.d_in,), "matrix": square, "inverse_matrix": square}
    found = taken(open_safetensors(path), due)
    mean, matrix, inverse = (found[name].double() for name in due)
    return mean, matrix, inverse
