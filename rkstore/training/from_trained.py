"""The start of a run at a trained dictionary, ``--from``.

Its weights and the state of its select are taken over, in the units of this run. The optimiser, the
schedules and the count of idle tokens begin anew: it is another run, which a finished one can be
followed by, but not one that goes on as if the first had been longer, as the schedules of that one
have ended.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.disk import layout_of
from rkstore.dictionaries.hub.fetch import local_copy
from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT
from rkstore.errors import BadInput
from rkstore.store.files import sha256

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary
    from rkstore.store.sites import Site
    from rkstore.training.reading import Reading

# Files of weights.
ENDS = (".safetensors", ".pt", ".npz")

# How far from 1 the norms of decoder rows may be: those of files in half precision are off so far.
TOLERANCE = 0.01


@torch.no_grad()
def begin_at(
    path: str | Path, dictionary: Dictionary, reading: Reading, *, unit_decoder: bool
) -> str:
    """Fill a dictionary with a trained one, and give the SHA-256 of its file of weights.

    Args:
        path: a directory or an ``hf://`` URL with a dictionary in any layout, for rows as they
            are stored. If its files name no site, it is of those of this run.
        reading: of this run, which may normalise them.
        unit_decoder: whether its decoder rows are to have norm 1.

    Raises:
        BadInput: there is none, or it has other sites, latents, wiring or select, or decoder rows
            of other norms.
    """
    root = local_copy(path)
    found, _ = load_dictionary(root)
    found.wiring = found.wiring.renamed(_names(dictionary, reading))
    _check_same(path, found, dictionary)
    found = reading.in_training_units(found)
    for name, parameter in found.named_parameters():
        if not name.startswith("select"):
            dictionary.get_parameter(name).copy_(parameter)
    as_ranked = dictionary.wiring.norm == found.wiring.norm
    if as_ranked and found.wiring.norm != "none":
        dictionary.register_buffer("units", found.site_units.clone())
    for kept, on_disk in zip(dictionary.pools, found.pools, strict=True):
        if not as_ranked:  # it was taken into the thresholds
            on_disk.rescale(1 / dictionary.weights()[0].clamp_min(1e-12))
        state = kept.rule.in_training(on_disk)
        if state is None:
            raise _other(path, "--dictionary", on_disk.rule.name, kept.rule.name)
        kept.load_state_dict(state)
    if unit_decoder:
        _check_norms(path, dictionary)
        dictionary.normalise_decoder()
    return _digest(root)


def _names(own: Dictionary, reading: Reading) -> dict[str, str]:
    """The sites of this run, by the names that they may have in files."""
    names = dict(reading.store.aliases)
    for unnamed, sites in ((UNNAMED, own.wiring.reads), (UNNAMED_OUT, own.wiring.writes)):
        if len(sites) == 1:
            names[unnamed] = sites[0].hook_name
    return names


def _digest(root: Path) -> str:
    """SHA-256 of the file of weights; of several, of what is written of them in a list."""
    files = layout_of(root).files_of(path.name for path in root.iterdir())
    found = [sha256(root / name) for name in files if name.endswith(ENDS)]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def _check_same(path: str | Path, found: Dictionary, own: Dictionary) -> None:
    """Raise BadInput unless one dictionary can be filled with the other's weights."""
    if found.row_norm != "none":
        raise BadInput(
            f"--from {path} normalises its rows ({found.row_norm}), as no training here does: "
            "start from another"
        )
    for what, theirs, ours in (
        ("the sites it reads", _told(found.wiring.reads), _told(own.wiring.reads)),
        ("the sites it writes", _told(found.wiring.writes), _told(own.wiring.writes)),
        ("--d-sae", str(found.d_sae), str(own.d_sae)),
    ):
        if theirs != ours:
            raise _other(path, what, theirs, ours)
    by_latent = own.pools[0].rule.by_latent and found.wiring.norm == "none"
    wirings = {own.wiring, replace(own.wiring, norm="none")} if by_latent else {own.wiring}
    if found.wiring not in wirings:
        raise BadInput(
            f"--from {path} is wired in another way than this run: give the --wiring, --code-norm "
            "and other options that it was trained with"
        )


def _check_norms(path: str | Path, dictionary: Dictionary) -> None:
    """Raise BadInput unless decoder rows have norm 1, as making it so would change the code."""
    norms = torch.cat([weights.W_dec.norm(dim=1) for _, weights in dictionary.banks])
    least, most = norms.min().item(), norms.max().item()
    if least < 1 - TOLERANCE or most > 1 + TOLERANCE:
        raise BadInput(
            f"--from {path} has decoder rows of norm {least:.3g} to {most:.3g}, in the units of "
            "this run: give --no-unit-decoder, and, where the code is penalised, a --code-norm"
        )


def _other(path: str | Path, what: str, theirs: str, ours: str) -> BadInput:
    return BadInput(
        f"--from {path} has another start than this run can have: {what} is {theirs}, here {ours}"
        "; make it the same"
    )


def _told(sites: tuple[Site, ...]) -> str:
    return ", ".join(f"{site.hook_name} ({site.width} wide)" for site in sites)
