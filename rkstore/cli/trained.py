"""What many trainings came to, as a table on a terminal."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from rkstore.training.seeds import Final

NUMBERS: dict[str, tuple[str, Callable[[Final], float | None]]] = {
    "fvu": (".4f", lambda final: final.fvu),
    "l0": (".1f", lambda final: final.l0),
    "dead": (".0f", lambda final: final.dead),
}
"""What is shown of a training: how it is written, and where it is."""


def describe_finals(finals: Sequence[Final]) -> str:
    """A line for each training, by layer and kind; after several seeds their mean and the standard
    deviation over them."""
    groups: dict[tuple[str, str], list[Final]] = {}
    differing = [key for key in _keys(finals) if len({_said(one, key) for one in finals}) > 1]
    for final in finals:
        others = [f"{key}={_said(final, key)}" for key in differing if key != "dictionary"]
        words = " ".join([_said(final, "dictionary"), *others])
        groups.setdefault((final.hook_name, words), []).append(final)
    lines = [["site", "kind", "seed", *NUMBERS]]
    for (site, kind), of_seeds in groups.items():
        for final in sorted(of_seeds, key=lambda one: one.seed):
            cells = [_written([number(final)], form) for form, number in NUMBERS.values()]
            lines.append([site, kind, str(final.seed), *cells])
        if len(of_seeds) > 1:
            spread = [
                _written([number(final) for final in of_seeds], form)
                for form, number in NUMBERS.values()
            ]
            lines.append([site, kind, "mean ± sd", *spread])
    return "\n".join(_aligned(lines))


def _keys(finals: Sequence[Final]) -> dict[str, None]:
    """Every option that one of them has, once."""
    return {key: None for final in finals for key in final.options}


def _said(final: Final, key: str) -> str:
    return str(final.options.get(key))


def _written(values: Sequence[float | None], form: str) -> str:
    """A number, or the mean of several and their deviation; a dash if one is lacking."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return "–"
    if len(there) == 1:
        return format(there[0], form)
    finer = form if form != ".0f" else ".1f"
    return f"{format(mean(there), finer)} ± {format(stdev(there), finer)}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, names to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
