"""datapoint: every latent is initialised as the direction of a row of the data.

Where a latent writes what it reads, encoder and decoder are tied: in a crosscoder both are the rows
of one token at all sites. In a transcoder, also per layer or across layers, its encoder is the
direction of what the part reads for a token, its decoder that of what is written for the token. The
exclusive latents of a dfc are rows without what the other site predicts of them, its shared ones
only that (``exclusive.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rkstore.errors import BadInput
from rkstore.settings import option
from rkstore.training.inits.base import Init, Start
from rkstore.training.inits.exclusive import alone, common

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
        """Replace every decoder row by ``p · (y - b_dec) + (1 - p) · row``, all of norm 1; tie.

        Each gets a row ``y`` of the data that no other latent has. The previous decoder row
        separates latents whose rows are identical, as BOS rows are. If the bank reads other sites
        than it writes, the encoder becomes the same of what it reads of the same token, with a
        random direction for the previous row.

        Raises:
            BadInput: the share is above 1, or there are fewer rows than latents.
        """
        share = self.usual_share if self.datapoint_share is None else self.datapoint_share
        if share > 1:
            raise BadInput(f"--datapoint-share is {share}: it must be from 0 to 1")
        latents, W_dec = start.bank.latents, start.weights.W_dec
        x, y = self._rows(start, generator)
        if len(y) < latents:
            raise BadInput(
                f"--init {self.name} needs a row for each of {latents} latents and there are "
                f"{len(y)} to train on: lower --expansion or harvest more tokens"
            )
        W_dec.copy_(blended(y - start.b_dec, W_dec, share))
        start.normalise()
        if start.ties:
            start.tie()
        else:
            import torch
            from torch.nn import functional as F

            drawn = F.normalize(torch.randn(x.shape, generator=generator), dim=1)
            blend = blended(x - start.centre, drawn, share)
            start.weights.W_enc.copy_(F.normalize(blend, dim=1).T)

    @staticmethod
    def _rows(start: Start, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A row for each latent, of what it reads and of what it writes."""
        if start.beside:
            x = alone(start, generator)
            return x, x
        x, y = start.draw(start.bank.latents, generator)
        if start.apart:
            x = y = common(start, x)
        return x, y


def blended(rows: Tensor, others: Tensor, share: float) -> Tensor:
    """Unit rows and others ``(n, d)``, mixed; the others where a row has no direction."""
    norms = rows.norm(dim=1, keepdim=True)
    blend = share * rows / norms.clamp_min(1e-12) + (1 - share) * others
    mixed: Tensor = blend.where(norms > 0, others)
    return mixed


class Datapoint(Blended):
    """Anthropic, "Circuits Updates, October 2025", on data-point initialisation."""

    name = "datapoint"
    any_sites = True
    # What they suggest for autoencoders.
    usual_share = 0.8

    def fill(self, start: Start, generator: torch.Generator) -> None:
        self.blend_rows(start, generator)
