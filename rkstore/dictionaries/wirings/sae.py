"""sae: an autoencoder, one bank that writes what it reads (Bricken et al. 2023)."""

from collections.abc import Sequence

from rkstore.dictionaries.wirings.base import Bank, Wires, Wiring
from rkstore.store.sites import Site


class SAE(Wires):
    """``f = select((x - b_dec) W_enc + b_enc)``, ``x̂ = f W_dec + b_dec``, over one site."""

    name = "sae"

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        return Wiring((Bank(latents, tuple(reads), tuple(writes)),), centred=True)
