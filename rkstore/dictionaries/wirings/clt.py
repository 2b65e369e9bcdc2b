"""clt: a cross-layer transcoder, whose latents write their own layer and all later ones.

Ameisen et al. (2025), "Circuit Tracing: Revealing Computational Graphs in Language Models".
"""

from collections.abc import Sequence

from rkstore.dictionaries.wirings.base import Bank, Paired, Wiring
from rkstore.settings import option
from rkstore.store.sites import Site


class CLT(Paired):
    """``f_s = select(x_s W_enc_s + b_enc_s)``, ``ŷ_t = Σ_{s ≤ t} f_s W_dec_{s,t} + b_dec_t``.

    A bank per layer *s*; its decoder has columns for the layers from *s* on and no others. The
    select ranks the latents of all layers together, because a feature that spans layers should be
    paid for once: ``--k`` counts in the whole dictionary. With relu it makes no difference.
    """

    name = "clt"
    of_several = True
    select_per_layer: bool = option(
        False,
        "Let the latents of a clt compete only within their layer: --k then counts in each layer.",
        newer=True,
    )

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        """``latents`` are those of each layer."""
        banks = (Bank(latents, (x,), tuple(writes[s:])) for s, x in enumerate(reads))
        return Wiring(tuple(banks), together=not self.select_per_layer)
