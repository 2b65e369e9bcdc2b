"""Which runs the hand-written gradient supports."""

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selects.abstopk import AbsTopK
from rkstore.dictionaries.selects.batchtopk import BatchTopK
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.selects.topk import TopK
from rkstore.training.helpers.auxk import AuxK
from rkstore.training.helpers.base import Helper
from rkstore.training.objective import Objective


def covers(dictionary: Dictionary, objective: Objective) -> bool:
    """Whether :func:`gradients` equals the gradient of the objective."""
    first, *others = dictionary.wiring.banks
    return (
        not others
        and (not dictionary.wiring.centred or first.reads == first.writes)
        and dictionary.row_norm == "none"
        and not dictionary.wiring.skip
        and dictionary.wiring.norm == "none"
        and objective.prefixes.whole
        and type(dictionary.pools[0].rule) in (ReLU, TopK, BatchTopK, AbsTopK)
        and all(_is_known(helper, dictionary.pools[0].rule.signed) for helper in objective.helpers)
    )


def _is_known(helper: Helper, signed: bool) -> bool:
    """Whether a helper adds nothing to the loss, or a term whose gradient is written here.

    That of AuxK is written for codes above zero.
    """
    return (type(helper) is AuxK and not signed) or type(helper).loss is Helper.loss
