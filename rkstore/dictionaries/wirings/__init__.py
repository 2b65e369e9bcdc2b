"""Wirings: which latents read and write which sites. One file each.

To add one, write its file and add it to ``WIRINGS``.
"""

from rkstore.dictionaries.wirings.base import Bank, Wires, Wiring
from rkstore.dictionaries.wirings.clt import CLT
from rkstore.dictionaries.wirings.crosscoder import Crosscoder
from rkstore.dictionaries.wirings.dfc import DedicatedFeatures
from rkstore.dictionaries.wirings.per_layer import PerLayer
from rkstore.dictionaries.wirings.sae import SAE
from rkstore.dictionaries.wirings.transcoder import Transcoder

WIRINGS: dict[str, type[Wires]] = {
    wires.name: wires for wires in (SAE, Transcoder, PerLayer, CLT, Crosscoder, DedicatedFeatures)
}
"""What ``--wiring`` offers, by name."""

__all__ = ["WIRINGS", "Bank", "Wires", "Wiring"]
