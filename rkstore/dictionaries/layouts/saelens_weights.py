"""SAELens' tensors → weights of a :class:`Dictionary`.

Options of a ``cfg.json`` that are the same for all rows are folded into the weights once, in
float64. Without such options the weights stay unchanged, bit for bit.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from rkstore.dictionaries.folding import at_unit_decoders, centred, of_scaled
from rkstore.dictionaries.layouts.saelens_config import AVERAGE, SCALER, Config
from rkstore.dictionaries.layouts.tensors import Shapes, check_finite
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
        "W_dec": (config.d_sae, config.d_in),
        "b_dec": (config.d_in,),
        **dict.fromkeys(OF_LATENTS.get(config.select, ("b_enc",)), latents),
    }
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
    w = SELECTS[config.select].from_saelens(w)
    factor = _finetuning_factor(w, config)
    scale = _scale(directory) if config.norm == AVERAGE else 1.0
    if scale != 1 or config.by_decoder_norms or factor is not None or not config.centred:
        w = of_scaled({name: tensor.double() for name, tensor in w.items()}, scale)
        if config.by_decoder_norms:
            w = at_unit_decoders(w)
        if factor is not None:
            w["W_dec"] = w["W_dec"] * factor.double().unsqueeze(1)
        if not config.centred:
            w = centred(w)
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
    scale = json.loads(path.read_text("utf-8"))["scaling_factor"]
    if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise BadInput(f"scaling_factor in {SCALER} is {scale!r}, not a positive number")
    return float(scale)
