"""What latents write toward: tokens whose logits they raise and lower."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# For each latent some tokens and values: `(d_sae, most)` each, the strongest first.
Ranked = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Logits:
    """The effect of each latent on the logits, in standard deviations, on two scales."""

    raised: Ranked
    """Against all latents, token by token."""
    lowered: Ranked
    raised_raw: Ranked
    """Against all tokens: the same rare tokens lead for most latents."""
    lowered_raw: Ranked
    following: NDArray[np.float64]
    """Mean of the first scale at the token that really follows, weighted by activation."""

    def of(self, latent: int) -> dict[str, Any]:
        """What the page shows of one latent."""

        def rows(ranked: Ranked) -> list[list[int]]:
            tokens, values = ranked
            pairs = zip(tokens[latent].tolist(), values[latent].tolist(), strict=True)
            return [[token, round(10 * value)] for token, value in pairs]

        return {
            "logits": {
                "token": [rows(self.raised), rows(self.lowered)],
                "raw": [rows(self.raised_raw), rows(self.lowered_raw)],
            },
            "next": round(float(self.following[latent]), 3),
        }
