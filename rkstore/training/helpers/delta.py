"""Delta loss: a crosscoder is also to reconstruct the difference between its two sites.

Delta-Crosscoder (2026, arXiv 2603.04426), for two models that differ little: what both share
dominates each reconstruction, and cancels in the difference. The loss has another term,
``delta · ‖(ŷ_B - ŷ_A) - (y_B - y_A)‖²``, mean over tokens. The paper's contrast between unpaired
rows is not in it.

Rows are as the training scales them, each site by itself: with ``--norm none`` the difference is
that of the stored rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rkstore.errors import BadInput, few
from rkstore.settings import option
from rkstore.training.helpers.base import Helper

if TYPE_CHECKING:
    from torch import Tensor

    from rkstore.dictionaries.wirings import Wiring
    from rkstore.training.objective import Pass


class Delta(Helper):
    """The term above, of the second site that is written minus the first."""

    name = "delta"
    delta: float = option(
        0.0,
        "Weight of the loss on the difference between the two sites of a crosscoder or dfc, which "
        "brings out what two models differ in; 0 is off.",
        least=0.0,
        newer=True,
    )

    @property
    def asked_for(self) -> bool:
        return self.delta > 0

    def check(self, wiring: Wiring) -> None:
        widths = [site.width for site in wiring.writes]
        if self.asked_for and (len(widths) != 2 or widths[0] != widths[1]):
            sites = few([f"{site.hook_name} ({site.width})" for site in wiring.writes])
            raise BadInput(
                f"--delta needs a dictionary that writes two sites of one width, not {sites}: "
                "leave it out, or choose two with --layers and --hook"
            )

    def loss(self, now: Pass) -> Tensor | None:
        first, second = (site.hook_name for site in now.dictionary.wiring.writes)
        errors = [now.decoded[name] - now.rows[name] for name in (first, second)]
        return self.delta * (errors[1] - errors[0]).square().sum(dim=-1).mean()
