"""datapoint: every latent is initialised as the direction of a row of the data; encoder tied."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.training.inits.base import Init, Start

if TYPE_CHECKING:
    import torch


class Blended(Init):
    """An init whose latents are partly rows of the data.

    Such latents are similar and overshoot together, twenty times the variance on the demo model;
    scaled, they explained far more in the end.
    """

    scaled = True
    usual_share: ClassVar[float]
    """The default of ``--datapoint-share``."""
    datapoint_share: float | None = option(
        None,
        "Fraction of a latent that is a row of the data; the rest is a random or mined direction. "
        "By default 0.8 for --init datapoint, 0.5 for the rkcnn inits except rkcnn-decoder, which "
        "uses no rows.",
        least=0.0,
    )

    def blend_rows(self, start: Start, generator: torch.Generator) -> None:
        """Replace every decoder row by ``p · (x - b_dec) + (1 - p) · row``, all of norm 1; tie.

        Each gets a row ``x`` of the data that no other latent has. The previous decoder row
        separates latents whose rows are identical, as BOS rows are.

        Raises:
            BadInput: the share is above 1, or there are fewer rows than latents.
        """
        share = self.usual_share if self.datapoint_share is None else self.datapoint_share
        if share > 1:
            raise BadInput(f"--datapoint-share is {share}: it must be from 0 to 1")
        latents, W_dec = start.bank.latents, start.weights.W_dec
        rows = start.draw(latents, generator) - start.b_dec
        if len(rows) < latents:
            raise BadInput(
                f"--init {self.name} needs a row for each of {latents} latents and there are "
                f"{len(rows)} to train on: lower --expansion or harvest more tokens"
            )
        norms = rows.norm(dim=1, keepdim=True)
        blend = share * rows / norms.clamp_min(1e-12) + (1 - share) * W_dec
        # A row that is b_dec itself has no direction.
        W_dec.copy_(blend.where(norms > 0, W_dec))
        start.normalise()
        start.tie()


class Datapoint(Blended):
    """Anthropic, "Circuits Updates, October 2025", on data-point initialisation."""

    name = "datapoint"
    # What they suggest for autoencoders.
    usual_share = 0.8

    def fill(self, start: Start, generator: torch.Generator) -> None:
        self.blend_rows(start, generator)
