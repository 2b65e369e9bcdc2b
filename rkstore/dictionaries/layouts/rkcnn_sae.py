"""RkCNN_SAE: the ``state_dict`` of an autoencoder, ``rkcnn_sae.pt`` or ``baseline_sae.pt``.

``f = ReLU(W_enc x + b_enc)``, ``x̂ = W_dec f + b_dec``: the code that its experiments have, none of
which sets another. Tied weights have no decoder, and without biases there are none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rkstore.dictionaries.layouts.archives import open_pt
from rkstore.dictionaries.layouts.base import UNNAMED, Layout, site_of
from rkstore.dictionaries.layouts.tensors import taken
from rkstore.errors import BadInput
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary


class RkCNNSAE(Layout):
    """The autoencoder whose decoder began with mined directions."""

    name = "rkcnn-sae"
    weights: ClassVar[str] = "rkcnn_sae.pt"
    files = (weights,)

    def found(self, directory: Path) -> bool:
        return (directory / self.weights).is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        from rkstore.dictionaries.layouts.filled import autoencoder, relu

        if hook_name_out is not None:
            raise BadInput("it writes what it reads: give one hook")
        opened, plain = open_pt(directory / self.weights)
        shape = opened.shapes.get("encoder.weight", ())
        if plain or len(shape) != 2:
            raise BadInput(f"{opened.name} has no matrix encoder.weight: save the state_dict")
        latents, d = shape
        due: dict[str, tuple[int, ...]] = {"encoder.weight": shape, "encoder.bias": (latents,)}
        due |= {"decoder.weight": (d, latents), "decoder.bias": (d,)}
        tied = "decoder.weight" not in opened.shapes
        biased = "encoder.bias" in opened.shapes
        absent = ("decoder.",) * tied + ("encoder.bias", "decoder.bias") * (not biased)
        w = taken(opened, {key: x for key, x in due.items() if not key.startswith(absent)})
        W_enc = w["encoder.weight"].T
        ours = {
            "W_enc": W_enc,
            "b_enc": w.get("encoder.bias", W_enc.new_zeros(latents)),
            "W_dec": W_enc.T if tied else w["decoder.weight"].T,
            "b_dec": w.get("decoder.bias", W_enc.new_zeros(d)),
        }
        site = Site(site_of(None, hook_name), d)
        metadata = {} if site.hook_name == UNNAMED else {"hook_name": site.hook_name}
        return autoencoder(ours, relu(), site, subtracts=False), metadata


class RkCNNBaseline(RkCNNSAE):
    """The autoencoder that it is compared with, in the same directory."""

    name = "rkcnn-sae-baseline"
    weights = "baseline_sae.pt"
    files = (weights,)
