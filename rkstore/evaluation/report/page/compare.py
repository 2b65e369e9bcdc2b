"""The runs of a report against each other: what each scored, and how far that can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkstore.evaluation.measure import Evaluation, Measure
from rkstore.evaluation.metrics.documents import LEAST_DOCUMENTS, Intervals, interval
from rkstore.evaluation.report.runs import Training, labels, settings_that_differ, training_of
from rkstore.store.sites import block_of

# The most points of a curve: more than its pixels.
POINTS = 300


@dataclass(frozen=True)
class Run:
    """A dictionary as it was measured on the held-out rows."""

    result: Evaluation
    measure: Measure
    training: Training | None
    """What was recorded of it."""


def runs_of(paths: Sequence[Path], found: Sequence[tuple[Evaluation, Measure]]) -> list[Run]:
    """The runs of some checkpoints, in their order."""
    pairs = zip(paths, found, strict=True)
    return [Run(result, measure, training_of(path)) for path, (result, measure) in pairs]


def table(runs: Sequence[Run], paths: Sequence[Path], shown: int) -> dict[str, Any]:
    """What the overview says of the runs, for JSON; a random dictionary stands below them.

    Args:
        shown: the run whose latents the report shows.
    """
    told, values = settings_that_differ([run.training for run in runs])
    named = labels([run.result for run in runs], paths)
    rows = [
        _row(run, runs[shown], label, own)
        for run, label, own in zip(runs, named, values, strict=True)
    ]
    chance = runs[shown].result.chance
    if chance is not None:
        rows.append(_numbers(chance, "a random dictionary") | _nothing(len(told)))
    return {"runs": rows, "told": told, "shown": shown, "runs_note": _note(runs, told)}


def _row(run: Run, shown: Run, label: str, told: list[str]) -> dict[str, Any]:
    difference, reach = _difference(run, shown)
    found = run.result.metrics.get("intervals")
    return _numbers(run.result, label) | {
        "name": run.result.name,
        "told": told,
        "control": False,
        "fvu_interval": None if found is None or found.fvu is None else list(found.fvu),
        "difference": difference,
        "difference_interval": reach,
        "curve": _curve(run.training),
        "notes": list(run.result.notes),
    }


def _numbers(result: Evaluation, label: str) -> dict[str, Any]:
    """What is known of any dictionary."""
    return {
        "name": label,
        "label": label,
        "d_sae": result.d_sae,
        "layer": block_of(result.hook_name)[0] if "," not in result.hook_name else None,
        "fvu": result.fvu,
        "dead": result.dead,
        "l0": result.l0,
        "dense": result.dense,
        "density": list(result.density[1:]),
        "sites": [[name, site.fvu] for name, site in result.sites.items()],
        "prefixes": [[prefix.share, prefix.fvu] for prefix in result.of_prefix],
        "norms": list(result.relative_norms),
    }


def _nothing(settings: int) -> dict[str, Any]:
    """What a dictionary that was not trained does not have."""
    return {
        "told": ["–"] * settings,
        "control": True,
        "fvu_interval": None,
        "difference": None,
        "difference_interval": None,
        "curve": [],
        "notes": [],
    }


def _difference(run: Run, shown: Run) -> tuple[float | None, list[float] | None]:
    """FVU of a run minus that of the one shown, and its interval over the same documents.

    None if they do not write the same sites.
    """
    a, b = run.measure, shown.measure
    if run is shown or list(a.by_site) != list(b.by_site):
        return None, None
    difference = run.result.fvu - shown.result.fvu
    both = [next((m for m in one.metrics if isinstance(m, Intervals)), None) for one in (a, b)]
    if None in both or a.rows != b.rows:
        return difference, None
    errors, variations = both[0].errors(a.statistics)  # type: ignore[union-attr]
    others, _ = both[1].errors(b.statistics)  # type: ignore[union-attr]
    if len(errors) < LEAST_DOCUMENTS or len(errors) != len(others):
        return difference, None
    return difference, list(interval(errors - others, variations))


def _curve(training: Training | None) -> list[list[float | None]]:
    """Step, FVU and dead latents of a training; None where one is not recorded."""
    if training is None:
        return []
    every = -(-len(training.history) // POINTS) or 1
    kept = [*training.history[::every], *training.history[-1:]]
    points = [[h.get("step"), h.get("fvu"), h.get("dead")] for h in kept]
    return [point for point in points if None not in (point[0], point[2])]


def _note(runs: Sequence[Run], told: Sequence[str]) -> str:
    """What the columns of the table mean, and what all runs have in common."""
    found = runs[0].result.metrics.get("intervals")
    documents = 0 if found is None else found.documents
    same = []
    if len(runs) > 1:
        if len({run.result.d_sae for run in runs}) == 1:
            same.append(f"{runs[0].result.d_sae:,} latents")
        for key, name in (("k", "k = {}"), ("steps", "{} steps")):
            values = {str((run.training.identity if run.training else {}).get(key)) for run in runs}
            if len(values) == 1 and values != {"None"} and key not in told:
                same.append(name.format(values.pop()))
    if found is not None and found.fvu is not None:
        sure = (
            f"Filled dot and line: 95 % interval over {documents:,} held-out documents; "
            "differences are paired, document by document."
        )
    else:
        sure = (
            f"Hollow dot: no interval, because the held-out rows are of {documents:,} "
            f"{'document' if documents == 1 else 'documents'} and an interval needs "
            f"{LEAST_DOCUMENTS}."
        )
    start = f"All with {', '.join(same)}. " if same else ""
    return (
        f"{start}{sure} Dead: fires on none of the held-out tokens; it is of one run and has no "
        "interval. Dense: fires on more than a tenth of them."
    )
