"""Pairs of sites: what an MLP reads and what it writes, by the names of TransformerLens' hooks.

Which hooks these are depends on the architecture. On Gemma 3 ``ln2.hook_normalized`` lacks the
weight of the norm, ``hook_mlp_out`` is what a second norm makes of the MLP's output, and on BLOOM
``mlp.hook_out`` has the residual in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rkstore.errors import BadInput
from rkstore.store.sites import Pair, written

if TYPE_CHECKING:
    from rkstore.harvest.model import Model

# The hooks of a model by name; two names of one hook have the same object.
Hooks = Mapping[str, object]


def _mlp(block: str, hooks: Hooks) -> tuple[str, str]:
    """The exact input of the MLP, and its exact output.

    ``hook_mlp_out`` is what is added to the residual stream. It is taken if it is a hook of the
    MLP, and not, as on Gemma 2 and 3, of the norm behind it or, as on Granite, of a product.
    """
    added = hooks.get(f"{block}.hook_mlp_out")
    own = [hooks.get(f"{block}.mlp.{part}") for part in ("hook_out", "out.hook_out")]
    direct = added is not None and any(hook is added for hook in own)
    return "mlp.hook_in", "hook_mlp_out" if direct else "mlp.hook_out"


def _resid_mid(block: str, hooks: Hooks) -> tuple[str, str]:  # noqa: ARG001
    """The residual stream before the norm, and what is added to it: both norms are in between."""
    return "hook_resid_mid", "hook_mlp_out"


PAIRS: dict[str, Callable[[str, Hooks], tuple[str, str]]] = {"mlp": _mlp, "resid-mid": _resid_mid}

PAIR_HELP = (
    "Pair of sites in each layer, recorded as such: mlp, the exact input and output of the MLP; "
    "resid-mid, the residual stream before its norm and what is added to it. May be repeated."
)


def pairs_of(model: "Model", names: Sequence[str], layers: str) -> tuple[Pair, ...]:
    """The pairs of those names in some layers, name after name, layer after layer.

    With ``all`` layers, those that have the two hooks.

    Raises:
        BadInput: a layer, or the whole model, lacks the hooks of a pair.
    """
    blocks, hooks = model.blocks(layers), model.capture.hooks
    found: list[Pair] = []
    for name in (known for known in PAIRS if known in names):
        lacking: dict[int, str] = {}
        here: list[Pair] = []
        for block, layer in blocks.items():
            parts = PAIRS[name](block, hooks)
            reads, writes = (f"{block}.{part}" for part in parts)
            if {reads, writes} <= model.widths.keys():
                here.append(Pair(name, layer, reads, writes))
            else:
                lacking[layer] = " and ".join(parts)
        if not here or (layers != "all" and lacking):
            raise BadInput(_lacking(model, name, lacking))
        found += here
    return tuple(found)


def renamed(pair: Pair, aliases: Mapping[str, str]) -> Pair:
    """The pair by the names under which its sites are stored."""
    reads, writes = (aliases.get(name, name) for name in (pair.reads, pair.writes))
    return replace(pair, reads=reads, writes=writes)


def _lacking(model: "Model", name: str, lacking: dict[int, str]) -> str:
    where = f"layers {written(lacking)} of {model.name} lack" if lacking else f"{model.name} lacks"
    needed = next(iter(lacking.values()), "blocks")
    return f"--pair {name} needs {needed}, which {where}: name other hooks with --hook"
