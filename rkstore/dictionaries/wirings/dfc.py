"""dfc: a dedicated-feature crosscoder, some of whose latents belong to one of two models alone.

arXiv 2602.11729. There a mask keeps the forbidden weights at zero, and both models have one width;
here the weights do not exist.
"""

from collections.abc import Sequence

from rkstore.dictionaries.wirings.base import Bank, Wires, Wiring, check_sites
from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.store.sites import Site


class DedicatedFeatures(Wires):
    """Three banks: latents of the first site, then of the second, then shared ones.

    The shared ones are a :class:`~rkstore.dictionaries.wirings.crosscoder.Crosscoder`, the others
    read and write their own site only. One select ranks all of them. The sites may have any widths.
    """

    name = "dfc"
    of_several = True
    exclusive: tuple[float, ...] = option(
        (0.05, 0.05),
        "Shares of the latents of a dfc that belong to the first site alone and to the second.",
        least=0.0,
        newer=True,
    )

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:  # noqa: ARG002
        check_sites(self.name, "two sites", reads, least=2, most=2)
        given = ",".join(f"{share:g}" for share in self.exclusive)
        if len(self.exclusive) != 2:
            raise BadInput(f"--exclusive is {given or 'empty'}: give two shares, such as 0.05,0.05")
        own = [round(share * latents) for share in self.exclusive]
        parts = [*own, latents - sum(own)]
        if min(parts) < 1:
            raise BadInput(
                f"--exclusive {given} divides {latents} latents into {parts[0]} and {parts[1]} of "
                f"one site and {max(parts[2], 0)} of both: leave at least one of each"
            )
        sites = [(reads[0],), (reads[1],), tuple(reads)]
        return Wiring(tuple(Bank(n, s, s) for n, s in zip(parts, sites, strict=True)))
