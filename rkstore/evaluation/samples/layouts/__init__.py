"""Layouts of samples: rkstore's own, and those that other programs read. One file each.

To add one, write its file, with the options that it needs, and add it to ``LAYOUTS``.
"""

from rkstore.evaluation.samples.layouts.base import Found, Layout, Subject
from rkstore.evaluation.samples.layouts.circuit_tracer import CircuitTracer
from rkstore.evaluation.samples.layouts.dashboard import Dashboard
from rkstore.evaluation.samples.layouts.delphi import Delphi
from rkstore.evaluation.samples.layouts.neuronpedia import Neuronpedia
from rkstore.evaluation.samples.layouts.parquet import Parquet

LAYOUTS: dict[str, type[Layout]] = {
    kind.name: kind for kind in (Parquet, Neuronpedia, Dashboard, Delphi, CircuitTracer)
}
"""What ``samples --to`` writes, by name."""

__all__ = ["LAYOUTS", "Found", "Layout", "Subject"]
