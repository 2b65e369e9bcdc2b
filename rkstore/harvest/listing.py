"""What can be harvested of a model: its tensors, and for each all the names that it has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rkstore.errors import BadInput
from rkstore.harvest.load import check_revision, load_model
from rkstore.harvest.model import Model
from rkstore.harvest.pairs import PAIRS, pairs_of
from rkstore.harvest.settings import USUAL_HOOK, HooksSettings
from rkstore.harvest.words import module_words, rank, words_for
from rkstore.store.sites import block_of, briefly, written


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model: every hook of it gives the same numbers."""

    hook_name: str
    """The most usual of its names: the first in :data:`rkstore.harvest.words.WORDS`."""
    width: int
    heads: int | None
    """Of how many heads a row consists, if it does."""
    others: tuple[str, ...]
    """Its other names, in the order of computation."""


@dataclass(frozen=True)
class Line:
    """The tensors of the same name in several blocks."""

    tensors: tuple[Tensor, ...]
    words: str

    @property
    def hook_name(self) -> str:
        """As ``blocks.{0-11}.mlp.hook_post``."""
        return spanned([tensor.hook_name for tensor in self.tensors])

    @property
    def others(self) -> list[str]:
        """The other names: parts where they are of the same blocks, else full names."""
        own = {block_of(tensor.hook_name)[0] for tensor in self.tensors}
        names: dict[str, list[str]] = {}
        for tensor in self.tensors:
            for name in tensor.others:
                names.setdefault(block_of(name)[1], []).append(name)
        return [
            part if {block_of(name)[0] for name in found} == own else spanned(found)
            for part, found in names.items()
        ]


@dataclass(frozen=True)
class Listing:
    """What can be harvested of a model."""

    model: Model
    lines: tuple[Line, ...]
    """The tensors asked for."""

    @property
    def usual(self) -> str | None:
        """What harvest stores by default; None if the model lacks it."""
        names = [name for name in self.model.widths if block_of(name)[1] == USUAL_HOOK]
        return spanned(names) if names else None

    @property
    def pairs(self) -> dict[str, tuple[str, str] | None]:
        """What each pair reads and writes in the blocks that have it; None if no block has."""
        found: dict[str, tuple[str, str] | None] = {}
        for name in PAIRS:
            try:
                there = pairs_of(self.model, [name], "all")
            except BadInput:
                found[name] = None
                continue
            reads, writes = ([getattr(p, side) for p in there] for side in ("reads", "writes"))
            found[name] = spanned(reads), spanned(writes)
        return found


def listing(name: str, settings: HooksSettings) -> Listing:
    """Load a model, and measure what can be harvested of it.

    Raises:
        BadInput, RkstoreError: the model cannot be loaded, or has no such layer or hook.
    """
    check_revision(name, settings.revision)
    model = load_model(
        name,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        tokenizer=settings.tokenizer,
        capture=settings.capture,
    )
    chosen = {site.hook_name for site in model.sites(settings.hook or "*", settings.layers)}
    tensors = (one for one in _tensors(model) if chosen & {one.hook_name, *one.others})
    return Listing(model, tuple(_lines(model, tensors)))


def _tensors(model: Model) -> list[Tensor]:
    """The tensors of a model, in the order of computation."""
    groups: dict[str, list[str]] = {}
    for name, first in model.measured.same.items():
        groups.setdefault(first, []).append(name)
    found = []
    for names in groups.values():
        usual = min(names, key=lambda name: rank(block_of(name)[1]))
        others = tuple(name for name in names if name != usual)
        heads = model.measured.heads.get(usual)
        found.append(Tensor(usual, model.widths[usual], heads, others))
    return found


def _lines(model: Model, tensors: Iterable[Tensor]) -> list[Line]:
    """The tensors in lines: those of one name and size in all blocks are one line."""
    groups: dict[tuple[object, ...], list[Tensor]] = {}
    for one in tensors:
        layer, part = block_of(one.hook_name)
        groups.setdefault((layer is None, part, one.width, one.heads), []).append(one)
    return [Line(tuple(group), _words(model, group)) for group in groups.values()]


def spanned(names: Sequence[str]) -> str:
    """Names of one hook in several blocks as ``blocks.{0-3,8}.mlp.hook_post``."""
    if len(names) == 1:
        return names[0]
    _, part = block_of(names[0])
    begin = briefly(names).removesuffix(f".{part}")
    root, _, layers = begin.rpartition(".")
    return f"{root}.{{{layers}}}.{part}"


def _words(model: Model, group: Sequence[Tensor]) -> str:
    first = group[0]
    layer, part = block_of(first.hook_name)
    words = words_for(part)
    if words is None:
        words = module_words(model.capture, first.hook_name)
        if len(group) > 1:
            layers = written({n for one in group if (n := block_of(one.hook_name)[0]) is not None})
            words = words.replace(f".{layer}.", f".{{{layers}}}.", 1)
    if first.heads is None:
        return words
    many = "heads" if first.heads > 1 else "head"
    return f"{words}, {first.heads} {many} of {first.width // first.heads}"
