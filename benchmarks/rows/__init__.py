"""The rows of the benchmark, by what they measure, in the order of the table.

To add one, write a function with the decorator ``compared`` in the file of its kind.
"""

import importlib

from harness.row import ROWS, Row

for kind in ("harvests", "storing", "batches", "probes", "steps", "samples", "training"):
    importlib.import_module(f"rows.{kind}")

NAMES = tuple(ROWS)


def row_named(name: str) -> Row:
    """The row of that name."""
    return ROWS[name]
