"""crosscoder: one bank over several layers of a model, or over the same layer of two models.

Lindsey et al. (2024), "Sparse Crosscoders for Cross-Layer Features and Model Diffing".
"""

from collections.abc import Sequence

from rkstore.dictionaries.wirings.base import Bank, Wires, Wiring, check_sites
from rkstore.store.sites import Site


class Crosscoder(Wires):
    """``f = select(Σ_s x_s W_enc_s + b_enc)``, ``x̂_s = f W_dec_s + b_dec_s``.

    As in the paper, encoders read ``x_s`` itself, not ``x_s - b_dec_s``. There activations count
    by ``Σ_s ‖W_dec_s‖``: choose ``--code-norm crosscoder``.
    """

    name = "crosscoder"
    of_several = True

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        check_sites(self.name, "several sites", reads, least=2)
        return Wiring((Bank(latents, tuple(reads), tuple(writes)),))
