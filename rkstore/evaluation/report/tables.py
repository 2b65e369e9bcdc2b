"""Numbers in words and in Markdown tables."""

import math
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; all but the first are right-aligned."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
        return "| " + " | ".join([first, *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), f"|{'|'.join(rule)}|", *map(line, rows)])


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def number_or_large(value: float | None, form: str) -> str:
    """A number, or a dash where there is none; large ones in three digits."""
    large = value is not None and abs(value) >= 10_000
    return number(value, ".3g" if large else form)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: columns that line up, all but the first right-aligned."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        rest = zip(cells[1:], widths[1:], strict=True)
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in rest)]).rstrip()

    return "\n".join(map(line, [head, *rows]))


def with_sd(mean: float | None, sd: float | None, form: str) -> str:
    """Mean ± standard deviation, as far as they are known."""
    return number(mean, form) + ("" if sd is None else f" ± {sd:{form.lstrip('+')}}")


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: ``a, b and c``."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
