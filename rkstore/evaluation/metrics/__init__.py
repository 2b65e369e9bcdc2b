"""What is measured of a dictionary: one file a subject, one line here each.

``base.py`` says what a metric is and what it sees of a batch. Every dictionary has its
reconstruction (``reconstruction.py``) and, if it is nested, its prefixes (``prefixes.py``).
"""

from rkstore.evaluation.metrics.base import Metric
from rkstore.evaluation.metrics.decoders import Decoders
from rkstore.evaluation.metrics.documents import Intervals
from rkstore.evaluation.metrics.partition import Partition
from rkstore.evaluation.metrics.published import Published
from rkstore.evaluation.metrics.scaling import Scaling
from rkstore.evaluation.metrics.sources import Sources
from rkstore.evaluation.metrics.sparsity import Sparsity
from rkstore.evaluation.metrics.truth import Truth

METRICS: tuple[type[Metric], ...] = (
    Sparsity,
    Intervals,
    Published,
    Decoders,
    Scaling,
    Sources,
    Partition,
    Truth,
)
