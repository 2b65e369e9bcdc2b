"""Sites: a hook and the width of its activations, and how sites are chosen by name."""

import fnmatch
import re
from dataclasses import dataclass

from rkstore.errors import BadInput

BLOCK = re.compile(r"(?:[^.]+\.)+?([0-9]+)\.(.+)")


@dataclass(frozen=True)
class Site:
    """A hook point and the width of its activations."""

    hook_name: str
    width: int


def block_of(hook_name: str) -> tuple[int | None, str]:
    """Number of the block that a hook lies in, and the part of its name after the block.

    The first number in a name is its block's, whatever the model calls its list of blocks:
    ``blocks.8.mlp.hook_post`` and ``H_blocks.8.mlp.hook_post`` are both block 8's
    ``mlp.hook_post``. Outside the blocks (``ln_final.hook_scale``): None and the whole name.
    """
    found = BLOCK.fullmatch(hook_name)
    return (int(found[1]), found[2]) if found else (None, hook_name)


def is_named(hook_name: str, asked: str) -> bool:
    """Whether ``asked`` is the full name of a hook, the part after its block, or a glob of one."""
    return any(fnmatch.fnmatchcase(name, asked) for name in (hook_name, block_of(hook_name)[1]))


def parse_layers(text: str, layers: int) -> list[int]:
    """The layers that ``all`` or a list such as ``0-3,8`` names, each once, in order.

    Raises:
        BadInput: the text is not such a list, or the model has no such layer.
    """
    if text == "all":
        return list(range(layers))
    chosen: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise BadInput(f"--layers is '{text}': give 'all' or a list such as 0-3,8")
        if last >= layers:
            raise BadInput(f"--layers is '{text}': the model has layers 0-{layers - 1}")
        chosen |= set(range(first, last + 1))
    return sorted(chosen)
