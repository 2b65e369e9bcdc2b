"""Weights of another program → weights of a :class:`Dictionary`.

Options of a ``cfg.json`` that are the same for all rows are folded into the weights once, in
float64. Without such options the weights stay unchanged, bit for bit.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from rkstore.dictionaries.config import AVERAGE, Config
from rkstore.dictionaries.selects import SELECTS
from rkstore.errors import BadInput

SCALER = "activation_scaler.json"
FACTORS = ("finetuning_scaling_factor", "scaling_factor")


def fold(tensors: dict[str, Tensor], config: Config, directory: Path) -> dict[str, Tensor]:
    """The weights, float32, with which ``x̂`` is as the configuration says.

    Args:
        tensors: as they were saved, under SAELens' names.
        directory: their directory, which may have the factor of normalised activations.

    Raises:
        BadInput: a factor is missing or unexpected, or a weight is not a finite number.
    """
    w = {name: t.to(config.dtype or t.dtype) for name, t in tensors.items()}
    w = SELECTS[config.select].from_saelens(w)
    factor = _finetuning_factor(w, config)
    scale = _scale(directory) if config.norm == AVERAGE else 1.0
    if scale != 1 or config.by_decoder_norms or factor is not None or not config.centred:
        w = {name: tensor.double() for name, tensor in w.items()}
        w["W_enc"] = w["W_enc"] * scale
        w["W_dec"], w["b_dec"] = w["W_dec"] / scale, w["b_dec"] / scale
        if config.by_decoder_norms:
            # An all-zero row adds nothing to x̂, whatever its latent does.
            norms = w["W_dec"].norm(dim=1).clamp_min(1e-30)
            w["W_enc"], w["b_enc"] = w["W_enc"] * norms, w["b_enc"] * norms
            w["W_dec"] = w["W_dec"] / norms.unsqueeze(1)
        if factor is not None:
            w["W_dec"] = w["W_dec"] * factor.double().unsqueeze(1)
        if not config.centred:
            # (x - b_dec) W_enc + b_enc' is x W_enc + b_enc.
            w["b_enc"] = w["b_enc"] + w["b_dec"] @ w["W_enc"]
    w = {name: tensor.float() for name, tensor in w.items()}
    for name, tensor in w.items():
        if not tensor.isfinite().all():
            raise BadInput(f"{name} holds values that are not finite: its training diverged")
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
