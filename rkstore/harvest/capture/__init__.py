"""Where activations come from: programs that hook into a model, one file each."""

from rkstore.harvest.capture.base import Capture
from rkstore.harvest.capture.interp_engine import InterpEngine
from rkstore.harvest.capture.transformer_lens import TransformerLens
from rkstore.harvest.capture.transformers import Transformers

CAPTURES: dict[str, type[Capture]] = {
    kind.name: kind for kind in (TransformerLens, Transformers, InterpEngine)
}

__all__ = ["CAPTURES", "Capture", "TransformerLens"]
