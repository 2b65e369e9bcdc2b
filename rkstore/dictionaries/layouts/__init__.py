"""Layouts: the files of a dictionary, as one program has them. One file each.

To add one, write its file and add it to ``LAYOUTS``.
"""

from pathlib import Path

from rkstore.dictionaries.layouts.base import Layout
from rkstore.dictionaries.layouts.circuit_tracer import CircuitTracer
from rkstore.dictionaries.layouts.crosscoders import Crosscoders
from rkstore.dictionaries.layouts.crosslayer_transcoder import CrosslayerTranscoder
from rkstore.dictionaries.layouts.dictionary_learning import DictionaryLearning
from rkstore.dictionaries.layouts.gemma_scope import GemmaScope
from rkstore.dictionaries.layouts.gemma_scope_2 import GemmaScope2
from rkstore.dictionaries.layouts.matryoshka_sae import MatryoshkaSAE
from rkstore.dictionaries.layouts.own import Own
from rkstore.dictionaries.layouts.rkcnn_sae import RkCNNBaseline, RkCNNSAE
from rkstore.dictionaries.layouts.saelens import SAELens
from rkstore.dictionaries.layouts.sparsify import Sparsify

MEMBERS: tuple[type[Layout], ...] = (Own, SAELens, DictionaryLearning, Crosscoders, Sparsify)
MEMBERS += (CircuitTracer, GemmaScope, GemmaScope2, RkCNNSAE, RkCNNBaseline, MatryoshkaSAE)
MEMBERS += (CrosslayerTranscoder,)

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in MEMBERS}
"""What ``convert --to`` and the readers know, by name."""


def layouts_of(directory: Path) -> list[Layout]:
    """The layouts that a directory has."""
    return [layout for kind in LAYOUTS.values() if (layout := kind()).found(directory)]


__all__ = ["LAYOUTS", "Layout", "layouts_of"]
