"""Compared results as a table: for a terminal, Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from rkstore.evaluation.compare import Compared, Comparison
from rkstore.evaluation.report import tables
from rkstore.evaluation.report.tables import number_or_large as number
from rkstore.store.jsontext import to_json

HEAD = ("dictionary", "metric", "seeds", "mean", "sd", "95 %", "difference", "95 % of it", "p")


def as_terminal(found: Comparison) -> str:
    """Columns that line up."""
    return _with_notes(found, tables.columns)


def as_markdown(found: Comparison) -> str:
    """A Markdown table."""
    return _with_notes(found, tables.table)


def as_csv(found: Comparison) -> str:
    """A line for each arm and number, unrounded; empty where there is none."""
    rows = [row.as_row() for row in found.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_json(found: Comparison) -> str:
    """The evaluation, the test, and the same rows."""
    rows = [row.as_row() for row in found.rows]
    return to_json({"of": found.of, "test": found.test, "rows": rows}, indent=1)


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "terminal": as_terminal,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}


def _with_notes(
    found: Comparison, table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]
) -> str:
    rows = [_cells(row) for row in found.rows]
    shown = [i for i, _ in enumerate(HEAD) if i < 4 or any(row[i] != "-" for row in rows)]
    head = [HEAD[i] for i in shown]
    text = [table(head, [[row[i] for i in shown] for row in rows]), "", _of(found.of)]
    if any(row.low is not None for row in found.rows):
        text.append("Intervals of one seed have documents as clusters.")
    pairs = sorted({row.difference.pairs for row in found.rows if row.difference})
    if pairs:
        text += [
            f"Differences are from the first dictionary, paired by seed, {_words(pairs)} pairs; "
            "intervals by bootstrap over them.",
            f"p: {found.test}.",
        ]
    return "\n".join(text)


def _cells(row: Compared) -> list[str]:
    d = row.difference
    return [
        row.arm,
        row.metric,
        str(row.seeds),
        number(row.mean, ".4g"),
        number(row.sd, ".2g"),
        _interval(row.low, row.high, ".4g"),
        number(d.mean if d else None, "+.3g"),
        _interval(d.low, d.high, "+.3g") if d else "-",
        number(row.p, ".3g"),
    ]


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "-" if low is None else f"{number(low, form)} to {number(high, form)}"


def _words(counts: Sequence[int]) -> str:
    return " or ".join(map(str, counts))


def _of(key: dict[str, Any]) -> str:
    return f"On {key['rows']['count']:,} held-out rows of the store {key['store_fingerprint']}."
