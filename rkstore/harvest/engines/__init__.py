"""What computes the shards of a harvest: this process, or workers on one machine or many.

All give the same files. A shard is a task of its own, made apart from being recorded; the process
that holds the store records them in order.
"""

from collections.abc import Mapping

from rkstore.harvest.engines.base import Engine
from rkstore.harvest.engines.local import Local
from rkstore.harvest.engines.ray import Ray

ENGINES: Mapping[str, type[Engine]] = {kind.name: kind for kind in (Local, Ray)}
