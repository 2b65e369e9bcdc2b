"""Weights of another program → those of a :class:`Dictionary` that takes raw rows.

Each step takes and gives float64 tensors under our names: ``W_enc (d_in, latents)``, ``b_enc
(latents,)``, ``W_dec (latents, d_out)``, ``b_dec (d_out,)``. A threshold is of pre-activations, so
it stays, unless a step says otherwise.
"""

from torch import Tensor

Weights = dict[str, Tensor]


def of_scaled(w: Weights, scale: float) -> Weights:
    """For ``x``, of weights that take ``scale · x`` and give ``scale · x̂``."""
    return w | {
        "W_enc": w["W_enc"] * scale,
        "W_dec": w["W_dec"] / scale,
        "b_dec": w["b_dec"] / scale,
    }


def at_unit_decoders(w: Weights) -> Weights:
    """With decoder rows of norm 1, of a dictionary that ranks ``pre · ‖W_dec‖``.

    An all-zero row adds nothing to ``x̂``, whatever its latent does.
    """
    norms = w["W_dec"].norm(dim=1).clamp_min(1e-30)
    return w | {
        "W_enc": w["W_enc"] * norms,
        "b_enc": w["b_enc"] * norms,
        "W_dec": w["W_dec"] / norms.unsqueeze(1),
    }


def centred(w: Weights) -> Weights:
    """For an encoder that reads ``x - b_dec``, of one that reads ``x``."""
    return w | {"b_enc": w["b_enc"] + w["b_dec"] @ w["W_enc"]}


def of_whitened(w: Weights, mean: Tensor, matrix: Tensor, inverse: Tensor) -> Weights:
    """For ``x``, of weights that take and give ``z = (x - mean) matrix``.

    Their encoder reads ``z - b_dec``.

    Args:
        mean: ``(d_in,)``.
        matrix: ``(d_in, d_in)``, with its ``inverse``.
    """
    return w | {
        "W_enc": matrix @ w["W_enc"],
        "W_dec": w["W_dec"] @ inverse,
        "b_dec": w["b_dec"] @ inverse + mean,
    }
