"""The banks of a dictionary as dictionaries of their own, for layouts of one layer each."""

from dataclasses import replace

import torch

from rkstore.dictionaries.dictionary import Dictionary


@torch.no_grad()
def apart(dictionary: Dictionary) -> list[Dictionary]:
    """Each bank by itself: banks with their own selects, none of which writes another's site."""
    wiring = dictionary.wiring
    if len(wiring.banks) == 1:
        return [dictionary]
    found = []
    units = torch.split(dictionary.units_of_latents(), [b.latents for b in wiring.banks], dim=1)
    for i, (bank, weights) in enumerate(dictionary.banks):
        pool = dictionary.pools[i]
        part = Dictionary(
            replace(wiring, banks=(bank,), together=True), pool.rule, dictionary.row_norm
        )
        for name, tensor in weights._asdict().items():
            part.get_parameter(name).copy_(tensor)
        if wiring.skip:
            part.skip(0).copy_(dictionary.skip(i))
        if wiring.norm != "none":
            places = [wiring.writes.index(site) for site in bank.writes]
            part.register_buffer("units", units[i][places].clone())
        part.b_dec.copy_(dictionary.bias(bank.writes))
        part.pools[0].load_state_dict(pool.state_dict())
        found.append(part.eval())
    return found
