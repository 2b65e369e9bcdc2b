"""Sites in the words of other programs, under the names of TransformerLens' hooks.

Only words whose meaning does not depend on the model are translated: what ``layers.3.mlp`` writes
is ``hook_mlp_out`` on Llama, and not on Gemma 2 and 3, where a norm follows it.
"""

import re
from collections.abc import Sequence
from typing import Any

from rkstore.dictionaries.layouts.base import site_of
from rkstore.errors import BadInput

# The output of a whole layer, as a module of transformers; and as dictionary_learning names it.
LAYER = re.compile(r"(?:[A-Za-z_]+\.)*(?:layers|h|blocks)\.(0|[1-9][0-9]*)(?:\.output)?")
RESID_POST = re.compile(r"resid_post_layer_(0|[1-9][0-9]*)")
# Gemma 3 alone has norms of these names.
GEMMA = re.compile(
    r"model\.layers\.(0|[1-9][0-9]*)\.(self_attn\.o_proj\.input"
    r"|(?:pre|post)_feedforward_layernorm\.output)"
)
GEMMA_HOOKS = {
    "self_attn.o_proj.input": "attn.hook_z",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}


def hook_of(words: str) -> str | None:
    """The hook that is meant; None if that is not certain."""
    if "hook_" in words:
        return words
    if found := LAYER.fullmatch(words) or RESID_POST.fullmatch(words):
        return f"blocks.{found[1]}.hook_resid_post"
    if found := GEMMA.fullmatch(words):
        return f"blocks.{found[1]}.{GEMMA_HOOKS[found[2]]}"
    return None


def stated_site(words: Any, given: str | None, unnamed: str) -> str:
    """A site that is stated in other words, or given, or neither.

    Raises:
        BadInput: the words are not certain, and none is given; or the two differ.
    """
    if words is not None and not isinstance(words, str):
        raise BadInput(f"what it is of is {words!r}, not the name of a hook")
    hook = hook_of(words) if words else None
    if words and hook is None and given is None:
        raise BadInput(
            f"it is of {words}, and which hook that is depends on the model: give its name"
        )
    return site_of(hook, given, unnamed)


def of_layers(given: str | None, layers: Sequence[int], unnamed: str) -> list[str]:
    """The sites of several layers, which the files do not state, by the part after the block."""
    return [f"blocks.{layer}.{given}" if given else f"{unnamed}.{layer}" for layer in layers]


def one_each(given: str | None, count: int, unnamed: str) -> list[str]:
    """The names of so many sites, given with commas between them.

    Raises:
        BadInput: other than so many are given.
    """
    if given is None:
        return [f"{unnamed}.{i}" for i in range(count)]
    names = given.split(",")
    if len(set(names)) != count or not all(names):
        raise BadInput(f"it is of {count} sites: give as many hooks, with commas between them")
    return names
