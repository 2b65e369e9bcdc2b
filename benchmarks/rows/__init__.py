"""The rows of the benchmark, by what they measure, in the order of the table.

To add one, write a function with the decorator ``compared`` in the file of its kind.
"""

import importlib

from harness.row import ROWS, Row

KINDS = (
    "harvests",
    "storing",
    "batches",
    "probes",
    "steps",
    "evaluating",
    "samples",
    "device",
    "training",
)
for kind in KINDS:
    importlib.import_module(f"rows.{kind}")

NAMES = tuple(ROWS)


def row_named(name: str) -> Row:
    """The row of that name."""
    return ROWS[name]
