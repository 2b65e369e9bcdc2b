"""Directions that the RkCNN probe finds in the training rows, for the inits that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rkstore.errors import BadInput
from rkstore.rkcnn.scores import SCORES
from rkstore.settings import option
from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    from torch import Tensor


class Mined(Init):
    """An init whose first latents are directions that the RkCNN probe finds.

    The score orders the directions even where it selects nothing.
    """

    mining: ClassVar[tuple[str, ...]] = ("rkcnn_m", "rkcnn_score")
    """The options that have no effect if directions are given."""
    rkcnn_fraction: float = option(
        0.5, "Fraction of the latents that the rkcnn inits take from the probe.", least=0.0
    )
    rkcnn_m: int | None = option(
        None, "Dimensions in a subset; the square root of d_in by default.", least=1
    )
    rkcnn_score: str = option(
        "kurtosis",
        "How the rkcnn inits score a subset: any score that needs no labels.",
        choices=tuple(name for name, score in SCORES.items() if not score.needs_labels),
    )

    def mined_latents(self, start: Start) -> int:
        """How many latents ``--rkcnn-fraction`` gives to mined directions.

        Raises:
            BadInput: none, or more than there are.
        """
        latents = start.bank.latents
        mined = round(latents * self.rkcnn_fraction)
        if not 1 <= mined <= latents:
            raise BadInput(
                f"--rkcnn-fraction {self.rkcnn_fraction} of {latents} latents is {mined}: "
                "it must leave from 1 to all of them"
            )
        return mined

    def mine(self, start: Start, *, drawn: int, kept: int) -> Tensor:
        """The principal directions of the best ``kept`` of ``drawn`` subsets, ``(kept, d_in)``.

        Each has norm 1, is zero outside its subset, and points where its projection is skewed to.

        Raises:
            BadInput: there are fewer subsets, or fewer with a score; or the bank reads several
            sites.
        """
        from rkstore.rkcnn.mine import MINED_ROWS, mine_directions
        from rkstore.rkcnn.source import ArrayRows

        sites = start.bank.reads
        if len(sites) > 1:
            raise BadInput(f"--init {self.name} mines one site, not {len(sites)} side by side")
        source = start.reading.source(sites[0].hook_name, MINED_ROWS)
        try:
            return mine_directions(
                source.array if isinstance(source, ArrayRows) else source,
                n_directions=kept,
                subset_size=self.rkcnn_m,
                n_subsets=drawn,
                score_method=self.rkcnn_score,
                seed=start.seed,
            )
        except BadInput as error:
            raise BadInput(
                f"--init {self.name} mines r={kept} directions (latents × --rkcnn-fraction): "
                f"{error.sentence}"
            ) from None


class Directed(Mined):
    """A mined init that may use the directions of a probe instead."""

    directions: str | None = option(
        None,
        "Result of a probe of this site, whose directions --init rkcnn and rkcnn-decoder use, the "
        "best first, instead of mining their own: as many latents as it has directions, at most "
        "--rkcnn-fraction of them.",
        path=True,
    )

    def directions_of(self, start: Start, *, drawn: int, wanted: int) -> Tensor:
        """The directions ``(n, d_in)`` for the first latents: those of ``--directions``, or mined.

        As many as wanted or available; no more are mined than subsets are drawn.
        """
        if start.directions is not None:
            return start.directions[:wanted]
        return self.mine(start, drawn=drawn, kept=min(wanted, drawn))
