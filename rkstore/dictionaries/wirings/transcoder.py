"""transcoder: one bank that reads what a part of the model reads and writes what that part writes.

Dunefsky et al. (2024, arXiv 2406.11944); with a skip, Paulo et al. (2025, arXiv 2501.18823).
"""

from collections.abc import Sequence
from typing import ClassVar

from rkstore.dictionaries.wirings.base import Bank, Paired, Wiring, check_sites
from rkstore.settings import option
from rkstore.store.sites import Site

SKIP_HELP = (
    "Also a linear map from the input of a transcoder to its output, which leaves only what is "
    "not linear to the latents."
)


class Transcoder(Paired):
    """``f = select(x W_enc + b_enc)``, ``ŷ = f W_dec + b_dec``, with a skip ``+ x W_skipᵀ``."""

    name: ClassVar[str] = "transcoder"
    skip: bool = option(False, SKIP_HELP, newer=True)

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        check_sites(self.name, "one layer", reads, least=1, most=1)
        return Wiring((Bank(latents, tuple(reads), tuple(writes)),), skip=self.skip)
