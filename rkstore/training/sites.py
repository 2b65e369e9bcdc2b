"""The sites of a training: the one requested, the one probed last, several, or pairs of them."""

from collections.abc import Sequence
from typing import Any

from rkstore.dictionaries.wirings import WIRINGS
from rkstore.dictionaries.wirings.transcoder import Transcoder
from rkstore.errors import BadInput, few
from rkstore.rkcnn.mine import Probed, last_probed
from rkstore.settings import replace
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.sites import Hooks, Lacking, Site, block_of, written
from rkstore.training.settings import TrainSettings, directions_given

Sites = tuple[Site, ...]

# What is read, and what is written for it, by name.
Named = tuple[str, str]


def sites_of(settings: TrainSettings, store: Readable, found: Probed | None) -> tuple[Sites, Sites]:
    """The sites that a dictionary reads, and for each the one that it reconstructs.

    Raises:
        BadInput: the store lacks one, or several fit where one is needed; or a given probe is of
            another site.
    """
    wires = WIRINGS[settings.wiring]
    if wires.paired:
        pairs = pairs_of(settings, store)
        if not wires.of_several and len(pairs) > 1:
            raise BadInput(f"{_several(settings, pairs)}: say which with --layer and --hook")
    else:
        pairs = [(name, name) for name in _chosen(settings, store, found)]
    names = [reads for reads, _ in pairs]
    if found is not None and names != [found.hook_name]:
        raise BadInput(
            f"the probe in {directions_given(settings)} is of {found.hook_name}, "
            f"not of {', '.join(names)}: give one of the same site"
        )
    reads, writes = (
        tuple(Site(name, store.manifest.width(name)) for name in side)
        for side in zip(*pairs, strict=True)
    )
    return reads, writes


def _chosen(settings: TrainSettings, store: Readable, found: Probed | None) -> list[str]:
    """The sites of a dictionary that writes what it reads."""
    if WIRINGS[settings.wiring].of_several:
        return _stored(store, settings.layers or settings.layer, settings.hook)
    if found is not None and settings.layer is None and not settings.hook:
        return [found.hook_name]
    return [store.site(settings.layer, settings.hook)]


def pairs_of(settings: TrainSettings, store: Readable) -> list[Named]:
    """The pairs of sites that are requested, by layer: those recorded, or those of ``--hook-out``.

    Raises:
        BadInput: the store lacks one, with the command that stores it; or there are several in a
            layer.
    """
    options, layers = settings.options(Transcoder), settings.layers or settings.layer
    if options.hook_out:
        if options.pair is not None:
            raise BadInput("--hook-out names the sites of a pair: leave out --pair")
        pairs = _named(store, layers, settings.hook or (), options.hook_out)
    else:
        pairs = _recorded(settings, store, layers, options.pair)
    if len({_layer(reads) for reads, _ in pairs}) < len(pairs):
        raise BadInput(f"{_several(settings, pairs)}, some of one layer: say which with --hook")
    return pairs


def _named(
    store: Readable, layers: str | None, hooks: Sequence[str], outs: Sequence[str]
) -> list[Named]:
    """Pairs of hooks in the same order, each in all of the layers."""
    if len(hooks) != len(outs):
        raise BadInput(
            f"--hook is given {len(hooks)} times and --hook-out {len(outs)} times: give one of "
            "each for each pair"
        )
    pairs: list[Named] = []
    for hook, out in zip(hooks, outs, strict=True):
        reads, writes = (sorted(_stored(store, layers, one), key=_layer) for one in (hook, out))
        found = [[_layer(name) for name in side] for side in (reads, writes)]
        # One of each may be of two layers, if that is what is asked.
        if found[0] != found[1] and not len(reads) == len(writes) == 1:
            there = [written(side) or "none" for side in found]
            raise BadInput(
                f"--hook {hook} is in layers {there[0]} and --hook-out {out} in {there[1]}: say "
                "with --layers which to use"
            )
        pairs += zip(reads, writes, strict=True)
    return sorted(pairs, key=lambda pair: _layer(pair[0]))


def _recorded(
    settings: TrainSettings, store: Readable, layers: str | None, kind: str | None
) -> list[Named]:
    """The pairs that the store records in these layers, of those that read one of the hooks."""
    chosen = _stored(store, layers, settings.hook, kind or "mlp")
    found = [pair for pair in store.pairs if pair.reads in chosen and kind in (None, pair.name)]
    kinds = list(dict.fromkeys(pair.name for pair in found))
    if len(kinds) > 1:
        raise BadInput(f"{store.where} has the pairs {few(kinds)}: say which with --pair")
    asked = set() if layers in (None, "all") else {_layer(name) for name in chosen}
    lacking = written(asked - {pair.layer for pair in found})
    if lacking or not found:
        where = f" in layers {lacking}" if lacking else ""
        of = " of these hooks" if settings.hook else ""
        name = kind or next(iter(kinds), "mlp")
        raise BadInput(
            f"--wiring {settings.wiring} learns what a part of the model writes from what it "
            f"reads, and {store.where} has no pair {name}{of}{where}: store it with "
            f"'{_harvest(store, lacking or layers, pair=name)}', or name the two sites with --hook "
            "and --hook-out"
        )
    found.sort(key=lambda pair: pair.layer)
    return [(pair.reads, pair.writes) for pair in found]


def _stored(
    store: Readable, layers: str | None, hooks: Hooks, pair: str | None = None
) -> list[str]:
    """:meth:`Store.sites`; a sentence about one that is missing ends with how to store it."""
    try:
        return store.sites(layers, hooks)
    except Lacking as error:
        hooks = [hooks] if isinstance(hooks, str) else hooks or ()
        command = _harvest(store, layers, hooks, None if hooks else pair)
        raise BadInput(f"{error.sentence}; to store it: '{command}'") from None


def _harvest(
    store: Readable, layers: str | None, hooks: Sequence[str] = (), pair: str | None = None
) -> str:
    """The command that stores more sites of a store's model."""
    model = store.manifest.source.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    words = ["rkstore harvest"]
    # Of two stores, each has a model of its own.
    words += [f"--model {name}"] if name and "paired" not in store.manifest.source else []
    words += [f"--layers {layers}"] if layers is not None else []
    words += [f"--hook {block_of(hook)[1]}" for hook in hooks]
    return " ".join([*words, *([f"--pair {pair}"] if pair else [])])


def _several(settings: TrainSettings, pairs: Sequence[Named]) -> str:
    names = few([f"{reads} and {writes}" for reads, writes in pairs], 4)
    return f"--wiring {settings.wiring} has {len(pairs)} pairs to choose from ({names})"


def _layer(hook_name: str) -> int:
    """The layer of a site, to sort by; one outside the blocks is last of all."""
    layer = block_of(hook_name)[0]
    return 2**31 if layer is None else layer


def at_probed_site(settings: TrainSettings) -> tuple[TrainSettings, str | None]:
    """Settings without a site, completed with the one probed last, and a sentence that says so.

    Others, and those for a store with one site, are returned unchanged, without a sentence.

    Raises:
        BadInput: there are several sites and none was probed.
    """
    wires = WIRINGS[settings.wiring]
    if wires.of_several or wires.paired:
        return settings, None
    said = (settings.layer, settings.hook, settings.layers, directions_given(settings))
    if any(value is not None for value in said):
        return settings, None
    store = open_readable(settings.store, settings.paired_with)
    try:
        store.site()
    except BadInput as error:
        found = last_probed(store)
        if found is None:
            raise BadInput(
                f"{error.sentence}, probe one first, or train one per layer with --layers all"
            ) from None
        hook_name, path = found
        sentence = f"{hook_name}, the site of {store.where} that was probed last ({path})"
        return replace(settings, hook=hook_name), sentence
    return settings, None


def listed(settings: TrainSettings) -> str | None:
    """The layers to train one dictionary each on; None for one dictionary."""
    if WIRINGS[settings.wiring].of_several:
        return None
    one = settings.layer is None or settings.layer.isdecimal()
    return settings.layers if one else settings.layer


def one_a_layer(settings: TrainSettings) -> list[TrainSettings]:
    """Settings for each listed layer, in order; without a list, only these.

    A dictionary of several sites takes all layers at once. A name becomes a directory of runs,
    each named after its site.

    Raises:
        BadInput: the store has no such layer, or several sites at one; or an option that fits only
        one site is given.
    """
    layers = listed(settings)
    if layers is None:
        return [settings]
    if None not in (settings.layer, settings.layers):
        raise BadInput("--layers trains one dictionary per layer: leave out --layer")
    if directions_given(settings) is not None:
        raise BadInput("--layers trains one dictionary per layer: leave out --directions")
    if settings.from_ is not None:
        raise BadInput("--layers trains one dictionary per layer: leave out --from")
    store = open_readable(settings.store, settings.paired_with)
    found: list[dict[str, Any]]
    if WIRINGS[settings.wiring].paired:
        pairs = pairs_of(settings, store)
        found = [{"hook": reads, "hook_out": writes, "pair": None} for reads, writes in pairs]
    else:
        found = [{"hook": name} for name in _one_each(store, layers, settings.hook)]
    return [
        replace(
            settings,
            layer=None,
            layers=None,
            name=None if settings.name is None else f"{settings.name}/{site['hook']}",
            **site,
        )
        for site in found
    ]


def _one_each(store: Readable, layers: str, hook: Hooks) -> list[str]:
    """The one site of each layer that a store has the hook in, layer after layer."""
    names, found = store.sites(layers, hook), []
    for layer in layers_of(store, layers, hook):
        here = [name for name in names if block_of(name)[0] == layer]
        # The layer of an alias may be another than that of its site.
        found.append(here[0] if len(here) == 1 else store.site(layer, hook))
    return found


def layers_of(store: Readable, layers: str, hook: Hooks = None) -> list[int]:
    """The layers that ``all`` or a list names, of those at which a store has the hook.

    Raises:
        BadInput: the store has the hook in no layer, or not in every requested layer.
    """
    names = store.sites(layers, hook)
    there = sorted({layer for name in names if (layer := block_of(name)[0]) is not None})
    if not there:
        raise BadInput(f"--layers {layers} chooses {few(names)}, which is not in a layer")
    return there
