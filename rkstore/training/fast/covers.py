"""Which runs the hand-written gradient supports."""

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selects.abstopk import AbsTopK
from rkstore.dictionaries.selects.batchtopk import BatchTopK
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.base import Helper
from rkstore.training.helpers.delta import Delta
from rkstore.training.objective import Objective

# The derivative of these is 1 where a latent is on, and they have no losses.
FEW = (TopK, BatchTopK, AbsTopK)


def covers(dictionary: Dictionary, objective: Objective) -> bool:
    """Whether :func:`gradients` equals the gradient of the objective.

    That is every wiring and every prefix of the selects that keep few latents. A ReLU, whose list
    of latents may be long and whose penalty a code norm would weigh by the decoder, is covered
    without a code norm and without prefixes by activation.
    """
    rule, prefixes = type(dictionary.pools[0].rule), objective.prefixes
    plain = dictionary.wiring.norm == "none" and (prefixes.order == "latents" or prefixes.whole)
    return (
        dictionary.row_norm == "none"
        and (rule in FEW or (rule is ReLU and plain))
        and all(_is_known(helper) for helper in objective.helpers)
    )


def _is_known(helper: Helper) -> bool:
    """Whether a helper adds nothing to the loss, or a term whose gradient is written here."""
    return type(helper) in (AuxK, Delta) or type(helper).loss is Helper.loss
