"""What a model predicts with dictionaries in it, as a Markdown table."""

from collections.abc import Sequence

from rkstore.evaluation.functional import FunctionalEvaluation
from rkstore.evaluation.predictions import (
    CLEAN,
    MEAN,
    RANDOM,
    SPLICED,
    ZERO,
    Estimate,
    SpliceEvaluation,
)
from rkstore.evaluation.report import tables
from rkstore.store.sites import briefly

HEAD = ("dictionary", "in place of", "ΔCE", "KL", "agreement", "recovered", "from the mean")

# Beside them, in this order: what a random dictionary of the same shape does, and no dictionary.
BESIDE = (
    ("random ΔCE", RANDOM, "increase", ".4f"),
    ("random agreement", RANDOM, "agreement", ".1%"),
    ("mean ΔCE", MEAN, "increase", ".4f"),
    ("mean agreement", MEAN, "agreement", ".1%"),
    ("zero ΔCE", ZERO, "increase", ".4f"),
)


def table(results: Sequence[FunctionalEvaluation]) -> str:
    """Each splice of each dictionary, with its ablations and intervals beside."""
    rows = [_row(result.name, splice) for result in results for splice in result.splices]
    splices = [splice for result in results for splice in result.splices]
    lines = [tables.table([*HEAD, *(head for head, *_ in BESIDE)], rows), ""]
    clean = {(splice.model, splice.rows): splice.passes[CLEAN] for splice in splices}
    for (model, count), prediction in clean.items():
        ce = _number(prediction.cross_entropy)
        lines.append(f"{model} by itself: {ce} nats for each next token, on {count:,} rows.")
    lines.append(
        "ΔCE and KL in nats. Rows that training leaves out stay the model's own in every pass."
    )
    if any(not splice.feedback and len(splice.sites) > 1 for splice in splices):
        lines.append("Without feedback: the dictionary read the clean run (*).")
    for result in results:
        if result.steering:
            lines += ["", _steering(result)]
    return "\n".join(lines)


def _steering(result: FunctionalEvaluation) -> str:
    """What the latents of each group do when they are added."""
    models = list(dict.fromkeys(name for group in result.steering for name in group.moved))
    head = [f"added of {result.name}", "latents", *(f"KL in {name}" for name in models)]
    head += [f"carried over from {name}" for name in models]
    rows = [
        [
            group.group,
            str(group.latents),
            *(with_interval(group.moved.get(name), ".4f") for name in models),
            *(with_interval(group.carried.get(name), ".3f") for name in models),
        ]
        for group in result.steering
    ]
    return tables.table(head, rows)


def _row(name: str, splice: SpliceEvaluation) -> list[str]:
    spliced, several = splice.passes[SPLICED], len(splice.sites) > 1
    beside = [
        _number(getattr(splice.passes[each], number), form) if each in splice.passes else "-"
        for _, each, number, form in BESIDE
    ]
    return [
        name,
        briefly(splice.sites) + ("*" if several and not splice.feedback else ""),
        with_interval(spliced.increase, ".4f"),
        with_interval(spliced.kl, ".4f"),
        with_interval(spliced.agreement, ".1%"),
        with_interval(spliced.recovered_from_zero, ".4f"),
        with_interval(spliced.recovered_from_mean, ".4f"),
        *beside,
    ]


def with_interval(found: Estimate | None, form: str) -> str:
    """A number with its interval: ``0.95 (0.93 to 0.97)``."""
    if found is None or found.low is None or found.high is None:
        return _number(found, form)
    form = f"z{form}"  # no minus before 0.0000
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _number(found: Estimate | None, form: str = ".4f") -> str:
    return tables.number(None if found is None else found.value, f"z{form}")
