"""How dictionary_learning's fork normalises rows: by buffers among the tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rkstore.dictionaries.affine import Affine, folded
from rkstore.dictionaries.dictionary import Dictionary
from rkstore.errors import BadInput


def is_normalised(w: dict[str, Tensor]) -> bool:
    """Whether rows are normalised: not where mean and deviation are NaN.

    Raises:
        BadInput: some of them are.
    """
    if "target_rms" not in w:
        return False
    unset = [w[key].isnan() for key in ("activation_mean", "activation_std")]
    if all(found.all() for found in unset):
        return False
    if any(found.any() for found in unset):
        raise BadInput("some of activation_mean and activation_std are not a number")
    return True


def for_rows(dictionary: Dictionary, w: dict[str, Tensor], sites: Sequence[str]) -> Dictionary:
    """The dictionary for raw rows, of one that takes ``(x - mean) · s`` at each site, and whose
    output is divided by ``s + 1e-8``.

    Args:
        w: ``activation_mean`` and ``activation_global_scale``, which is ``s``, float64.
        sites: their names in the order of these tensors.

    Raises:
        BadInput: a scale is not positive.
    """
    means = w["activation_mean"].reshape(len(sites), -1)
    scales = w["activation_global_scale"].expand(len(sites))
    for name, found in (("activation_mean", means), ("activation_global_scale", scales)):
        if not found.isfinite().all():
            raise BadInput(f"{name} holds values that are not finite, and rows are normalised")
    if not (scales > 0).all():
        raise BadInput("activation_global_scale is not positive, and rows are normalised")
    if dictionary.wiring.centred:
        # b_dec is divided by s + 1e-8, and what the encoder subtracts is multiplied by s.
        (_, weights), *_ = dictionary.banks
        left = (scales[0] / (scales[0] + 1e-8) - 1).float()
        weights.b_enc.data += (dictionary.b_dec.data * left) @ weights.W_enc.data
    maps = {
        site: Affine(mean, scale, 1 / (scale + 1e-8))
        for site, mean, scale in zip(sites, means, scales, strict=True)
    }
    made = folded(dictionary, maps)
    if dictionary.wiring.norm != "none":
        # Decoder norms count as they were trained.
        by_site = dict(zip(sites, scales + 1e-8, strict=True))
        trained = torch.stack([by_site[site.hook_name] for site in dictionary.wiring.writes])
        made.get_buffer("units").copy_(trained)
    return made
