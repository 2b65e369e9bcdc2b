"""What a hook is, in plain words, by TransformerLens' names; and where a module is, for others.

The words hold on every architecture that has the name. Where architectures differ, as in what
``mlp.hook_out`` is with BLOOM, they say no more than is common to all.
"""

from fnmatch import fnmatchcase

from rkstore.harvest.capture.base import Capture

# By the part of the name after the block, or the whole name outside the blocks. Of the names of
# one tensor, the one that comes first here stands for it.
WORDS = {
    "hook_embed": "token embedding",
    "hook_pos_embed": "position embedding",
    "hook_resid_post": "residual stream after the block",
    "hook_resid_mid": "residual stream between attention and MLP",
    "hook_resid_pre": "residual stream before the block",
    "hook_attn_out": "what attention adds to the residual stream",
    "hook_mlp_out": "what the MLP adds to the residual stream",
    "attn.hook_in": "input of attention",
    "attn.hook_q": "queries",
    "attn.hook_k": "keys",
    "attn.hook_v": "values",
    "attn.hook_rot_q": "queries after rotary embedding",
    "attn.hook_rot_k": "keys after rotary embedding",
    "attn.hook_z": "what attention's output matrix reads",
    "attn.hook_out": "output of attention's module",
    "mlp.hook_in": "input of the MLP",
    "mlp.hook_pre": "inside the MLP, before its activation function",
    "mlp.hook_pre_linear": "inside the MLP, the branch that is not the gate",
    "mlp.hook_post": "inside the MLP, what its output matrix reads",
    "mlp.hook_out": "output of the MLP's module",
    "hook_unembed": "logits",
    "ln_final.hook_out": "what the unembedding reads",
    "*ln*.hook_in": "input of a norm",
    "*ln*.hook_scale": "what a norm divides by",
    "*ln*.hook_normalized": "a norm's output before its weight",
    "*ln*.hook_out": "output of a norm",
}

ENDS = {"hook_in": "input of {}", "hook_out": "output of {}"}


def rank(part: str) -> int:
    """The place of a name in the table; a name without words comes after all that have them."""
    places = (place for place, form in enumerate(WORDS) if fnmatchcase(part, form))
    return next(places, len(WORDS))


def words_for(part: str) -> str | None:
    """The words for the part of a name after its block, if there are any."""
    return next((words for form, words in WORDS.items() if fnmatchcase(part, form)), None)


def module_words(capture: Capture, hook_name: str) -> str:
    """Words for a hook without any: the module of transformers that it is on."""
    path, end = capture.module(hook_name), hook_name.rpartition(".")[2]
    return ENDS.get(end, f"{end} of {{}}").format(f"module {path}" if path else "the model")
