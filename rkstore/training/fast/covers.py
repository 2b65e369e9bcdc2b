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

    That is every wiring and every prefix, except, for a select that has no formula here: prefixes
    by activation, a code per site, and a signed code.
    """
    prefixes, rule = objective.prefixes, dictionary.pools[0].rule
    sliced = prefixes.order == "latents" or prefixes.whole
    return (
        dictionary.row_norm == "none"
        and (
            has_formula(dictionary, objective)
            or (sliced and dictionary.wiring.views == 1 and not rule.signed)
        )
        and all(_is_known(helper) for helper in objective.helpers)
    )


def has_formula(dictionary: Dictionary, objective: Objective) -> bool:
    """Whether the select's derivative is written here, or else is left to autograd.

    ReLU's is, unless a code norm weighs its penalty by the decoder, or the penalty is not L1.
    """
    rule, prefixes = dictionary.pools[0].rule, objective.prefixes
    plain = dictionary.wiring.norm == "none" and (prefixes.order == "latents" or prefixes.whole)
    return type(rule) in FEW or (type(rule) is ReLU and rule.p == 1 and plain)


def _is_known(helper: Helper) -> bool:
    """Whether a helper adds nothing to the loss, or a term whose gradient is written here."""
    return type(helper) in (AuxK, Delta) or type(helper).loss is Helper.loss
