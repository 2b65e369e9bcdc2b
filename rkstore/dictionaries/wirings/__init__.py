"""Wirings: which latents read and write which sites. One file each.

To add one, write its file and add it to ``WIRINGS``.
"""

from rkstore.dictionaries.wirings.base import Bank, Wires, Wiring
from rkstore.dictionaries.wirings.sae import SAE

WIRINGS: dict[str, type[Wires]] = {wires.name: wires for wires in (SAE,)}

__all__ = ["WIRINGS", "Bank", "Wires", "Wiring"]
