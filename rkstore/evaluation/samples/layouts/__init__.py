"""Layouts of samples: rkstore's own, and those that other programs read. One file each.

To add one, write its file, with the options that it needs, and add it to ``LAYOUTS``.
"""

from rkstore.evaluation.samples.layouts.base import Found, Layout, Subject
from rkstore.evaluation.samples.layouts.parquet import Parquet

LAYOUTS: dict[str, type[Layout]] = {kind.name: kind for kind in (Parquet,)}
"""What ``samples --to`` writes, by name."""

__all__ = ["LAYOUTS", "Found", "Layout", "Subject"]
