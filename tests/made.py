"""Dictionaries of every wiring and select, with random weights, for what is written of them."""

import torch

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.selects import select_named
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.store.sites import Site

D, LATENTS, LAYERS, K = 6, 10, 3, 3
OPTIONS = {"topk": {"k": K}, "batchtopk": {"k": K}, "abstopk": {"k": K}}
READS, WRITES = "hook_resid_mid", "hook_mlp_out"


def made(wiring="sae", select="relu", *, norm="none", skip=False, unit=False, first=0, seed=0):
    """A dictionary after its training.

    Args:
        unit: whether decoder rows have norm 1.
        first: the layer of its first site.
    """
    generator = torch.Generator().manual_seed(seed)
    options = {"skip": True} if skip else {"exclusive": (0.2, 0.3)} if wiring == "dfc" else {}
    wires = WIRINGS[wiring](**options)
    count = LAYERS if wires.of_several and wiring != "dfc" else 2 if wiring == "dfc" else 1
    layers = range(first, first + count)
    reads = [Site(f"blocks.{layer}.{READS}", D) for layer in layers]
    writes = [Site(f"blocks.{layer}.{WRITES}", D) for layer in layers] if wires.paired else reads
    over = wires.over(reads, writes, LATENTS)
    if norm != "none":
        over = type(over)(over.banks, over.centred, over.together, over.skip, norm)
    dictionary = Dictionary(over, select_named(select, OPTIONS.get(select, {})))
    with torch.no_grad():
        for name, parameter in dictionary.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
            if "threshold" in name:
                parameter.abs_()
        for name, buffer in dictionary.named_buffers():
            if name.endswith("threshold"):
                buffer.fill_(0.4 + torch.rand((), generator=generator))
        if unit:
            dictionary.normalise_decoder()
    return dictionary.eval()


def rows(dictionary, n=20, seed=1):
    """Rows of what it reads, by site."""
    generator = torch.Generator().manual_seed(seed)
    sites = dictionary.wiring.reads
    return {s.hook_name: torch.randn(n, s.width, generator=generator) + 0.5 for s in sites}


def stacked(by_site, sites):
    """Rows ``(sites, n, width)``, or ``(n, width)`` of one."""
    parts = [by_site[site.hook_name] for site in sites]
    return torch.stack(parts) if len(parts) > 1 else parts[0]
