"""What SAELens keeps in ``metadata``: the sites, and since 6.46 the training.

A Matryoshka dictionary is saved as a JumpReLU one; its widths are in the metadata alone.
"""

from typing import Any

from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT
from rkstore.dictionaries.wirings.base import Bank
from rkstore.store.sites import head_of

# How many latents are on at a token, and how many never are.
COUNTS = ("l0", "num_dead_features")

# SAELens' names of rkstore's selects, where they differ.
RENAMED = {"relu": "standard"}

# Its names of a training's options, and ours, by select. Those that are in the configuration
# itself, such as the k of topk, are left out, as there.
DETAILS = {
    "relu": {"l1_coefficient": "l1"},
    "gated": {"l1_coefficient": "l1"},
    "jumprelu": {"l0_coefficient": "l0"},
    "batchtopk": {"k": "k"},
}


def of_sites(bank: Bank, *, transcodes: bool) -> dict[str, Any]:
    """What a bank reads and writes, under the keys of the metadata."""
    found: dict[str, Any] = {}
    ends = {"": bank.reads[0].hook_name}
    if transcodes:
        ends["_out"] = bank.writes[0].hook_name
    for end, site in ends.items():
        if site not in (UNNAMED, UNNAMED_OUT):
            found[f"hook_name{end}"], found[f"hook_head_index{end}"] = head_of(site)
    return found


def record_of_training(metadata: dict[str, Any], latents: int) -> dict[str, Any]:
    """``training_architecture`` and its details, of a dictionary that rkstore trained.

    Args:
        latents: of the bank.
    """
    run = metadata.get("rkstore")
    if not isinstance(run, dict) or not isinstance(run.get("dictionary"), str):
        return {}
    select = run["dictionary"]
    name = RENAMED.get(select, select)
    details = {theirs: run[ours] for theirs, ours in DETAILS.get(select, {}).items() if ours in run}
    shares = run.get("prefixes", ())
    fixed = run.get("prefix_order", "latents") == "latents" and not run.get("prefix_draws")
    if len(shares) > 1 and fixed:
        name = f"matryoshka_{name}"
        details["matryoshka_widths"] = [round(share * latents) for share in shares if share > 0]
    return {"training_architecture": name, "training_architecture_details": details}


def of_bank(metadata: dict[str, Any], first: int, latents: int) -> dict[str, Any]:
    """The metadata of a dictionary for one of its several banks, whose first latent is ``first``.

    Latents that began as mined directions are counted from there; what was counted in the whole
    dictionary is left out.
    """
    own = {key: value for key, value in metadata.items() if key not in COUNTS}
    run = metadata.get("rkstore")
    if not isinstance(run, dict) or "mined" not in run:
        return own
    spans = [(max(a - first, 0), min(b - first, latents)) for a, b in run["mined"]]
    return own | {"rkstore": run | {"mined": [span for span in spans if span[0] < span[1]]}}
