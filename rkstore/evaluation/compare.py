"""Recorded results of many dictionaries, compared: arms, paired by seed, against the first.

An arm is all dictionaries whose runs differ in nothing but their seed. What is compared are numbers
of one evaluation: the same rows of the same store with the same options.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rkstore.errors import BadInput, few
from rkstore.evaluation.checkpoints import names, run_of
from rkstore.evaluation.paired import Paired, compare, described, holm
from rkstore.evaluation.results import Entry, entries
from rkstore.store.jsontext import canonical

# What a run may differ in within an arm: its seeds, and what follows from them.
OF_SEED = ("seed", "data_seed", "scale", "mined", "directions_sha256", "from_sha256")

# What of a key must be equal for numbers to be comparable.
COMPARABLE = ("kind", "store_fingerprint", "rows", "options", "versions")

# With fewer pairs there is neither an interval nor a test.
LEAST_PAIRS = 2

TEST = "two-sided sign-flip test of the paired differences, adjusted by Holm's method"


@dataclass(frozen=True)
class Compared:
    """One number of one arm, and how it differs from that of the first arm."""

    arm: str
    metric: str
    seeds: int
    mean: float | None
    sd: float | None
    """Standard deviation between seeds; None of one."""
    low: float | None = None
    """Of one seed: the ends of the interval by documents, if the record has it."""
    high: float | None = None
    difference: Paired | None = None
    """Arm minus first arm, over the seeds that both have; None with fewer than two."""
    p: float | None = None
    """Of the difference, adjusted for the number of comparisons."""

    def as_row(self) -> dict[str, Any]:
        """One flat row, for CSV and JSON."""
        row = asdict(self)
        del row["difference"], row["p"]
        d = self.difference
        more = (d.mean, d.low, d.high, d.pairs) if d else (None, None, None, 0)
        ends = ("difference", "difference_low", "difference_high", "pairs")
        return row | dict(zip(ends, more, strict=True)) | {"p": self.p}


@dataclass(frozen=True)
class Comparison:
    """The numbers of every arm, metric by metric, and the evaluation that they are of."""

    of: dict[str, Any]
    rows: tuple[Compared, ...]
    test: str = TEST


@dataclass(frozen=True)
class _Run:
    """One dictionary: its settings, and what is recorded of it."""

    label: str
    settings: dict[str, Any]
    seed: int
    found: list[Entry]

    @property
    def arm(self) -> str:
        """What its arm has in common."""
        return canonical({k: v for k, v in self.settings.items() if k not in OF_SEED})


def compared(
    checkpoints: Sequence[str | Path],
    metrics: Sequence[str],
    fingerprint: str | None = None,
    rows: int | None = None,
    kind: str = "reconstruction",
) -> Comparison:
    """Compare recorded results.

    Args:
        metrics: their names in the record, such as ``fvu`` or ``sparsity.l1``.
        fingerprint: of the store that they are of, if the records have several.
        rows: how many rows they are of, if the records have several.

    Raises:
        BadInput: a checkpoint is no run of rkstore, is given twice or has no record; no evaluation
            is in all records, or several are; two are of one arm and seed; a name is not known.
    """
    if not checkpoints:
        raise BadInput("there is nothing to compare: give checkpoints that were evaluated")
    runs = [_run(*each, kind) for each in zip(checkpoints, names(checkpoints), strict=True)]
    of = _common(runs, fingerprint, rows)
    results = [next(e.result for e in run.found if _comparable(e) == of) for run in runs]
    arms = _arms(runs)
    labels = _labels([members[0] for members in arms.values()])
    found: list[Compared] = []
    for metric in metrics:
        values = {
            arm: {run.seed: _value(results[runs.index(run)], metric, run) for run in members}
            for arm, members in arms.items()
        }
        first = next(iter(values.values()))
        for label, members, by_seed in zip(labels, arms.values(), values.values(), strict=True):
            ends = _ends(results[runs.index(members[0])], metric) if len(members) == 1 else None
            found.append(_compare(label, metric, by_seed, first, ends))
    return Comparison(json.loads(of), tuple(_adjusted(found)))


def _run(checkpoint: str | Path, label: str, kind: str) -> _Run:
    path = Path(checkpoint)
    settings = run_of(path)
    found = [entry for entry in entries(path) if entry.kind == kind]
    if not found:
        raise BadInput(f"{checkpoint} has no record of results: run 'rkstore evaluate' on it first")
    return _Run(label, settings, int(settings.get("seed", 0)), found)


def _comparable(entry: Entry) -> str:
    return canonical({name: getattr(entry, name) for name in COMPARABLE})


def _common(runs: Sequence[_Run], fingerprint: str | None, rows: int | None) -> str:
    """The one evaluation that all records have."""
    shared = set.intersection(*({_comparable(entry) for entry in run.found} for run in runs))
    if not shared:
        raise BadInput(
            f"no evaluation is in the records of all of {few([run.label for run in runs])}: "
            "evaluate them together, on the same rows of one store"
        )
    fits = [
        of
        for of in sorted(shared)
        for key in [json.loads(of)]
        if fingerprint in (None, key["store_fingerprint"]) and rows in (None, key["rows"]["count"])
    ]
    if len(fits) != 1:
        said = few([_in_words(json.loads(of)) for of in (fits or sorted(shared))])
        which = "several evaluations fit" if fits else "none of the evaluations fits"
        raise BadInput(f"{which} ({said}): choose one with --store and --rows")
    return fits[0]


def _in_words(key: dict[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in key["options"].items() if value)
    return f"{key['rows']['count']} rows of {key['store_fingerprint']} with {options or 'defaults'}"


def _arms(runs: Sequence[_Run]) -> dict[str, list[_Run]]:
    """The runs of each arm, in the order in which they were given."""
    arms: dict[str, list[_Run]] = {}
    for run in runs:
        members = arms.setdefault(run.arm, [])
        same = [other.label for other in members if other.seed == run.seed]
        if same:
            raise BadInput(
                f"{same[0]} and {run.label} are the same run with seed {run.seed}: give one of them"
            )
        members.append(run)
    return arms


def _labels(firsts: Sequence[_Run]) -> list[str]:
    """What distinguishes the arms: the settings in which they differ."""
    keys = dict.fromkeys(key for run in firsts for key in run.settings)
    differ = [
        key
        for key in keys
        if key not in OF_SEED and len({str(run.settings.get(key)) for run in firsts}) > 1
    ]
    if not differ:
        return [run.label for run in firsts]
    return [
        ", ".join(f"{key} {run.settings[key]}" for key in differ if key in run.settings)
        or run.label
        for run in firsts
    ]


def _value(result: Any, metric: str, run: _Run) -> float | None:
    """A number of a result; None if it has none for this dictionary.

    Raises:
        BadInput: it is not among the numbers.
    """
    found = result
    if metric.startswith("chance.") and "chance" not in result:
        return None  # it was evaluated with --no-chance
    for part in metric.split("."):
        if not isinstance(found, dict) or part not in found:
            own = {name: value for name, value in result.items() if name != "chance"}
            known = few(sorted(_numbers(own)), 60)
            raise BadInput(f"the record of {run.label} has no number '{metric}': it has {known}")
        found = found[part]
    if isinstance(found, bool) or not isinstance(found, int | float | None):
        raise BadInput(f"'{metric}' in the record of {run.label} is not one number")
    return None if found is None else float(found)


def _numbers(result: Any, before: str = "") -> Iterator[str]:
    """The names of all numbers in a result."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{before}{name}.")
        elif isinstance(value, int | float):
            yield before + name


def _ends(result: Any, metric: str) -> tuple[float, float] | None:
    """The interval by documents of a number, if the record has it."""
    ends = (result.get("intervals") or {}).get(metric)
    return (ends[0], ends[1]) if ends and None not in ends else None


def _compare(
    label: str,
    metric: str,
    by_seed: dict[int, float | None],
    first: dict[int, float | None],
    ends: tuple[float, float] | None,
) -> Compared:
    known = [value for value in by_seed.values() if value is not None]
    usual = described(known)
    pairs = [
        value - against
        for seed, value in by_seed.items()
        if value is not None and (against := first.get(seed)) is not None
    ]
    paired = compare(pairs) if by_seed is not first and len(pairs) >= LEAST_PAIRS else None
    low, high = ends or (None, None)
    p = paired.p if paired else None
    return Compared(label, metric, len(known), usual["mean"], usual["sd"], low, high, paired, p)


def _adjusted(found: Sequence[Compared]) -> Iterator[Compared]:
    """The rows with each p adjusted for all of the comparisons."""
    adjusted = iter(holm([row.p for row in found if row.p is not None]))
    for row in found:
        yield Compared(**(vars(row) | {"p": None if row.p is None else next(adjusted)}))
