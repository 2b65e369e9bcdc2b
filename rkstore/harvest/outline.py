"""What a harvest would store, by the configuration of a model alone: no weights, and no text.

The model is made on PyTorch's meta device, where tensors have shapes and no numbers, so a model of
any size fits. What only numbers show is not known there: which hooks give the same, and which of
several outputs is added to the residual stream.
"""

from dataclasses import dataclass
from typing import Any

import torch

from rkstore.errors import BadInput
from rkstore.harvest.capture.examine import examine, probes
from rkstore.harvest.capture.transformers import Transformers
from rkstore.harvest.ignored import check_ignored
from rkstore.harvest.load import check_revision, config_of, known_as, shaped
from rkstore.harvest.model import Model
from rkstore.harvest.pairs import pairs_of
from rkstore.harvest.run import check_widths
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.tokens import whole_blocks
from rkstore.store.codecs import CODECS
from rkstore.store.sites import Site

# Multiply and add, once for each weight: the forward pass of one token.
OPERATIONS = 2


@dataclass(frozen=True)
class Outline:
    """The size of a harvest."""

    name: str
    dtype: str
    parameters: int
    parameter_bytes: int
    weights: int
    """Of the parameters, those that every token is multiplied with: all but its embedding."""
    sites: tuple[Site, ...]
    rows: int
    context_size: int

    @property
    def operations(self) -> int:
        """Floating-point operations of running the model once, without those between tokens.

        An upper bound for a mixture of experts, of which a token sees some.
        """
        return OPERATIONS * self.weights * self.rows

    def bytes_per_row(self, codec: str) -> int:
        """Before lossless compression."""
        return sum(site.width for site in self.sites) * CODECS[codec].dtype.itemsize

    def bytes(self, codec: str) -> int:
        """Of all rows, before lossless compression."""
        return self.rows * self.bytes_per_row(codec)


def outline(settings: HarvestSettings) -> Outline:
    """The size of the harvest of those settings, whose device is meta.

    Raises:
        BadInput: the model has no configuration, or not such sites; a setting would be ignored.
        RkstoreError: the Hub cannot be reached, or has no such model.
    """
    check_ignored(settings)
    check_revision(settings.model, settings.revision)
    config = config_of(settings.model, settings.revision)
    return outline_of(config, known_as(settings.model), settings)


def outline_of(config: Any, name: str, settings: HarvestSettings) -> Outline:
    """The size of a harvest of a model of that configuration.

    Args:
        config: of transformers, or its fields.

    Raises:
        BadInput: it has not such sites.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    blocks = whole_blocks(settings.tokens, settings.context_size)
    # Fake tensors, because transformers asks plain ones on this device for their numbers.
    with FakeTensorMode(allow_non_fake_inputs=True):
        plain = shaped(config, settings.dtype)
        capture = Transformers(plain)
        with torch.inference_mode():
            found = examine(capture, plain(probes(plain)[0], use_cache=False).logits, ())
    model = Model(name, capture, None, found.widths, found.repeated, None)
    if settings.context_size > model.longest_context:
        raise BadInput(
            f"--context-size is {settings.context_size}: {name} sees at most "
            f"{model.longest_context} tokens"
        )
    pairs = pairs_of(model, settings.pair, settings.layers)
    paired = [hook for pair in pairs for hook in (pair.reads, pair.writes)]
    sites = model.sites([*settings.hooks, *paired], settings.layers)
    check_widths(model, sites, settings)
    embedding = plain.get_input_embeddings().weight
    parameters = sum(p.numel() for p in plain.parameters())
    head = plain.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    return Outline(
        name,
        settings.dtype,
        parameters,
        model.parameter_bytes,
        parameters - (0 if tied else embedding.numel()),
        tuple(sites),
        blocks * settings.context_size,
        settings.context_size,
    )
