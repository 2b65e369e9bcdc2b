"""The sites of a training: the one requested, the one probed last, or one per layer."""

from rkstore.dictionaries.wirings import WIRINGS
from rkstore.errors import BadInput, few
from rkstore.rkcnn.mine import last_probed
from rkstore.settings import replace
from rkstore.store.open import open_readable
from rkstore.store.readable import Readable
from rkstore.store.sites import Hooks, block_of
from rkstore.training.settings import TrainSettings, directions_given


def at_probed_site(settings: TrainSettings) -> tuple[TrainSettings, str | None]:
    """Settings without a site, completed with the one probed last, and a sentence that says so.

    Others, and those for a store with one site, are returned unchanged, without a sentence.

    Raises:
        BadInput: there are several sites and none was probed.
    """
    if WIRINGS[settings.wiring].of_several:
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
    store = open_readable(settings.store, settings.paired_with)
    sites = [store.site(n, settings.hook) for n in layers_of(store, layers, settings.hook)]
    return [
        replace(
            settings,
            layer=None,
            layers=None,
            hook=site,
            name=None if settings.name is None else f"{settings.name}/{site}",
        )
        for site in sites
    ]


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
