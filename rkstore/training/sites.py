"""Which sites a training is of: the one asked for, the one probed last, or one a layer."""

from rkstore.errors import BadInput, few
from rkstore.rkcnn.mine import last_probed
from rkstore.settings import replace
from rkstore.store.open import open_store
from rkstore.store.sites import block_of, is_named, parse_layers
from rkstore.store.store import Store
from rkstore.training.settings import TrainSettings, directions_given


def at_probed_site(settings: TrainSettings) -> tuple[TrainSettings, str | None]:
    """Settings that say nothing of a site, at the one probed last, and a sentence that says so.

    Others, and those of a store of one site, stay as they are, without a sentence.

    Raises:
        BadInput: there are several sites and none was probed.
    """
    said = (settings.layer, settings.hook, settings.layers, directions_given(settings))
    if any(value is not None for value in said):
        return settings, None
    store = open_store(settings.store)
    try:
        store.site()
    except BadInput as error:
        found = last_probed(store)
        if found is None:
            raise BadInput(
                f"{error.sentence}, probe one first, or train one a layer with --layers all"
            ) from None
        hook_name, path = found
        sentence = f"{hook_name}, the site of {store.where} that was probed last ({path})"
        return replace(settings, hook=hook_name), sentence
    return settings, None


def one_a_layer(settings: TrainSettings) -> list[TrainSettings]:
    """Settings for each layer that ``--layers`` asks for, in order; without it, these alone.

    A name becomes a directory of runs, each named after its site.

    Raises:
        BadInput: the store has no such layer, or several sites at one; or something is
            asked for besides that only one site can have.
    """
    if settings.layers is None:
        return [settings]
    for flag, value in (("--layer", settings.layer), ("--directions", directions_given(settings))):
        if value is not None:
            raise BadInput(f"--layers trains one dictionary a layer: leave out {flag}")
    store = open_store(settings.store)
    sites = [store.site(n, settings.hook) for n in layers_of(store, settings.layers, settings.hook)]
    return [
        replace(
            settings,
            layers=None,
            hook=site,
            name=None if settings.name is None else f"{settings.name}/{site}",
        )
        for site in sites
    ]


def layers_of(store: Store, layers: str, hook: str | None = None) -> list[int]:
    """The layers that ``all`` or a list names, of those at which a store has the hook.

    Raises:
        BadInput: the store has the hook in no layer, or not in each that is asked for.
    """
    blocks = [block_of(name) for name in store.hook_names if hook is None or is_named(name, hook)]
    there = sorted({layer for layer, _ in blocks if layer is not None})
    if not there:
        asked_for = f"--layers {layers}" if hook is None else f"--hook {hook}"
        raise BadInput(
            f"{asked_for} is not in the store at {store.where}, which has {few(store.hook_names)}"
        )
    if layers == "all":
        return there
    asked = parse_layers(layers, there[-1] + 1)
    for layer in asked:
        if layer not in there:
            store.site(layer, hook)
    return asked
