"""Sites: a hook and the width of its activations, and how sites are chosen by name."""

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rkstore.errors import BadInput, few

BLOCK = re.compile(r"(?:[^.]+\.)+?([0-9]+)\.(.+)")
# Only behind a hook of TransformerLens: an imported array may be called acts.h5.
HEAD = re.compile(r"([^,]*\bhook_[a-z_]+)\.h(0|[1-9][0-9]*)")
LAYERS = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")

STORE_HELP = "Store, a directory or a URL; optional if stores/ has exactly one."
PAIRED_HELP = (
    "Second store, of another model on the same tokens; the sites of the two are then base:… and "
    "chat:…."
)
LAYERS_HELP = "Blocks of the sites: 'all', or a list such as 0-3,8."
HOOK_HELP = "Hook of the sites: the part after the block, a full name, or a glob; may be repeated."

# One hook or several, each the part of a name after its block, a full name or a glob.
Hooks = str | Sequence[str] | None


class Lacking(BadInput):
    """A site that a store or a model does not have."""


@dataclass(frozen=True)
class Site:
    """A hook point and the width of its activations."""

    hook_name: str
    width: int


@dataclass(frozen=True)
class Pair:
    """Two sites of one block: what a part of the model reads there, and what it writes."""

    name: str
    """Which part: ``mlp`` and others of :data:`rkstore.harvest.pairs.PAIRS`."""
    layer: int
    reads: str
    writes: str
    """Hook names of the two sites."""


def block_of(hook_name: str) -> tuple[int | None, str]:
    """Block number of a hook, and the part of its name after the block.

    The first number in a name is its block's, whatever the model calls its list of blocks:
    ``blocks.8.mlp.hook_post`` and ``H_blocks.8.mlp.hook_post`` are both block 8's
    ``mlp.hook_post``. Outside the blocks (``ln_final.hook_scale``): None and the whole name.
    """
    found = BLOCK.fullmatch(hook_name)
    return (int(found[1]), found[2]) if found else (None, hook_name)


def of_head(hook_name: str, head: int) -> str:
    """The site of one head of a hook: ``blocks.3.attn.hook_z.h5``."""
    return f"{hook_name}.h{head}"


def head_of(site: str) -> tuple[str, int | None]:
    """The hook and the number of the head, if the name is that of one head; else the name, None."""
    found = HEAD.fullmatch(site)
    return (found[1], int(found[2])) if found else (site, None)


def briefly(hook_names: Sequence[str]) -> str:
    """Sites in few words: the same hook of several layers as ``blocks.0-3,8.mlp.hook_post``."""
    if len(hook_names) == 1:
        return hook_names[0]
    layers: dict[str, list[int]] = {}
    for name in hook_names:
        layer, rest = block_of(name)
        begin = "" if layer is None else name.removesuffix(f"{layer}.{rest}")
        layers.setdefault(f"{begin}{{}}{rest}", []).extend([] if layer is None else [layer])
    return ",".join(
        form.replace("{}", f"{written(found)}." if found else "", 1)
        for form, found in layers.items()
    )


def is_named(hook_name: str, asked: str) -> bool:
    """Whether ``asked`` is the full name of a hook, the part after its block, or a glob of one."""
    return any(fnmatch.fnmatchcase(name, asked) for name in (hook_name, block_of(hook_name)[1]))


@dataclass(frozen=True)
class Among:
    """The sites of a store or of a model, to choose from by layers and hooks."""

    names: Sequence[str]
    where: str
    """The name of the store or the model in errors."""
    has: Callable[[str], str]
    """The alternatives to a hook (or to a layer, if that is ""), to end a sentence."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of the sites. A hook that is asked for may name one; what is chosen is the
    site."""

    def chosen(self, layers: str | int | None = None, hooks: Hooks = None) -> list[str]:
        """The sites that any of the hooks names in the layers, in the order of ``names``.

        A part of a name, or a glob, must match a site in each listed layer; a full name stands for
        itself. Each layer must have a site.

        Args:
            layers: a list such as ``0-3,8``, or one; ``all`` or None for any, also outside blocks.
            hooks: parts after the block (``mlp.hook_post``), full names or globs; None for any.

        Raises:
            Lacking: a layer or a hook matches nothing; lists the alternatives.
            BadInput: the layers are no list of layers.
        """
        asked = _several(hooks)
        listed: Sequence[int | None] = self.layers(layers) or [None]
        named = self._sites_by_name if asked else self.names
        found: set[str] = set()
        for hook in asked or ["*"]:
            own = block_of(hook)[0] if hook in named else None
            for layer in [own] if own in listed else listed:
                fitting = {name for name in named if _fits(name, layer, hook)}
                if not fitting:
                    raise Lacking(self._lacking(layer, [hook]))
                found |= fitting
        for layer in listed:  # full names may all be in other layers
            if not any(_fits(name, layer) for name in found):
                raise Lacking(self._lacking(layer, asked))
        sites = {self.aliases.get(name, name) for name in found}
        return [name for name in self.names if name in sites]

    def site(self, hook_name: str) -> str | None:
        """The site of that full name or alias, if there is one."""
        return self._sites_by_name.get(hook_name)

    @property
    def _sites_by_name(self) -> dict[str, str]:
        return {**self.aliases, **{name: name for name in self.names}}

    def one(self, layers: str | int | None = None, hooks: Hooks = None) -> str:
        """The only site that :meth:`chosen` finds.

        Raises:
            BadInput: as in :meth:`chosen`, or several sites fit; names them.
        """
        fitting = self.chosen(layers, hooks)
        if len(fitting) == 1:
            return fitting[0]
        asked = _asked(layers, _several(hooks))
        raise BadInput(
            f"{asked or 'no --layer'} leaves {len(fitting)} sites to choose from "
            f"({few(fitting)}): say which with --layer and --hook"
        )

    def layers(self, asked: str | int | None) -> list[int] | None:
        """The layers that a list such as ``0-3,8`` names, each once, in order; None for ``all``.

        Raises:
            Lacking: a layer does not exist.
            BadInput: the text is not such a list.
        """
        if asked in (None, "all"):
            return None
        there = {layer for name in self._sites_by_name if (layer := block_of(name)[0]) is not None}
        chosen: set[int] = set()
        for part in str(asked).split(","):
            found = LAYERS.fullmatch(part.strip())
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if last < first:
                raise BadInput(f"--layers is '{asked}': give 'all' or a list such as 0-3,8")
            for layer in range(first, last + 1):
                if layer not in there:
                    raise Lacking(self._lacking(layer, [], there))
                chosen.add(layer)
        return sorted(chosen)

    def _lacking(
        self, layer: int | None, hooks: Sequence[str], there: Collection[int] | None = None
    ) -> str:
        lacking = f"{_asked(layer, hooks)} is not in {self.where}, "
        if there is None:
            return lacking + f"which {self.has(hooks[0] if hooks else '')}"
        return lacking + f"whose layers are {written(there) or 'none'}: it {self.has('')}"


def written(layers: Collection[int]) -> str:
    """Layers in the form of the option: ``0-3,8``."""
    spans: list[list[int]] = []
    for layer in sorted(layers):
        if spans and spans[-1][-1] == layer - 1:
            spans[-1][1:] = [layer]
        else:
            spans.append([layer])
    return ",".join("-".join(map(str, span)) for span in spans)


def _several(hooks: Hooks) -> Sequence[str]:
    return [hooks] if isinstance(hooks, str) else hooks or []


def _fits(name: str, layer: int | None, hook: str = "*") -> bool:
    return layer in (None, block_of(name)[0]) and is_named(name, hook)


def _asked(layers: str | int | None, hooks: Sequence[str]) -> str:
    """The request, as written on a command line."""
    flag = "--layer" if str(layers).isdecimal() else "--layers"
    words = [] if layers is None else [f"{flag} {layers}"]
    return " and ".join([*words, *(f"--hook {hook}" for hook in hooks)])
