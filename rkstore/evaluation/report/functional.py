"""What a model predicts with dictionaries in it, as a Markdown table."""

from collections.abc import Sequence

from rkstore.evaluation.functional import FunctionalEvaluation
from rkstore.evaluation.predictions import CLEAN, MEAN, SPLICED, ZERO, SpliceEvaluation
from rkstore.evaluation.ratios import Estimate
from rkstore.evaluation.report import tables
from rkstore.store.sites import briefly

HEAD = ("dictionary", "in place of", "ΔCE", "KL", "agreement")
ABLATED = ("ΔCE of zeros", "of the mean", "recovered", "from the mean", "agreement of the mean")


def table(results: Sequence[FunctionalEvaluation]) -> str:
    """Each splice of each dictionary, with its ablations and intervals beside."""
    rows = [_row(result.name, splice) for result in results for splice in result.splices]
    splices = [splice for result in results for splice in result.splices]
    lines = [tables.table([*HEAD, *ABLATED], rows), ""]
    clean = {(splice.model, splice.rows): splice.passes[CLEAN] for splice in splices}
    for (model, count), prediction in clean.items():
        ce = _number(prediction.cross_entropy)
        lines.append(f"{model} by itself: {ce} nats for each next token, on {count:,} rows.")
    lines.append(
        "ΔCE and KL in nats. Rows that training leaves out stay the model's own in every pass."
    )
    if any(not splice.feedback and len(splice.sites) > 1 for splice in splices):
        lines.append("Without feedback: the dictionary read the clean run (*).")
    return "\n".join(lines)


def _row(name: str, splice: SpliceEvaluation) -> list[str]:
    spliced, zero, mean = (splice.passes[each] for each in (SPLICED, ZERO, MEAN))
    several = len(splice.sites) > 1
    return [
        name,
        briefly(splice.sites) + ("*" if several and not splice.feedback else ""),
        with_interval(spliced.increase, ".4f"),
        with_interval(spliced.kl, ".4f"),
        with_interval(spliced.agreement, ".1%"),
        _number(zero.increase),
        _number(mean.increase),
        with_interval(splice.recovered_from_zero, ".4f"),
        with_interval(splice.recovered_from_mean, ".4f"),
        _number(mean.agreement, ".1%"),
    ]


def with_interval(found: Estimate | None, form: str) -> str:
    """A number with its interval: ``0.95 (0.93 to 0.97)``."""
    if found is None or found.low is None or found.high is None:
        return _number(found, form)
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _number(found: Estimate | None, form: str = ".4f") -> str:
    return tables.number(None if found is None else found.value, form)
