"""A dictionary in any layout, opened for the rows of a store."""

from pathlib import Path
from typing import Any

from rkstore.dictionaries.dictionary import Dictionary
from rkstore.dictionaries.disk import load_dictionary
from rkstore.dictionaries.hub.fetch import local_copy
from rkstore.dictionaries.layouts import layouts_of
from rkstore.dictionaries.layouts.base import UNNAMED, UNNAMED_OUT
from rkstore.dictionaries.settings import DictionarySettings
from rkstore.errors import BadInput, few
from rkstore.store.readable import Readable
from rkstore.store.sites import Site, head_of


def opened(
    path: str | Path, store: Readable, settings: DictionarySettings, *, only_reads: bool = False
) -> tuple[Dictionary, dict[str, Any]]:
    """A dictionary in any layout, for the rows of a store, and its metadata.

    Args:
        only_reads: that the store need not have what the dictionary writes.

    Raises:
        BadInput: there is none, or the store lacks one of its sites.
    """
    dictionary, metadata = _read(path, settings)
    # What a store has under another name is the same numbers.
    dictionary.wiring = dictionary.wiring.renamed(store.aliases)
    for site in dictionary.wiring.reads if only_reads else dictionary.wiring.sites:
        _check_site(path, site, store)
    return dictionary, metadata


def _read(path: str | Path, settings: DictionarySettings) -> tuple[Dictionary, dict[str, Any]]:
    """A dictionary; what its files do not say of its sites is as the options say."""
    here = local_copy(path)
    layout = settings.layout if len(layouts_of(here)) > 1 else None
    said = {"hook_name": settings.hook_name, "hook_name_out": settings.hook_name_out}
    try:
        dictionary, metadata = load_dictionary(here, layout)
        if not any(site.hook_name in (UNNAMED, UNNAMED_OUT) for site in dictionary.wiring.sites):
            return dictionary, metadata
    except BadInput:
        if not any(said.values()):
            raise
    return load_dictionary(here, layout, **said)


def _check_site(path: str | Path, site: Site, store: Readable) -> None:
    """Raise BadInput unless the store has the site of a dictionary, in its width."""
    if site.hook_name not in store.hook_names:
        if site.hook_name in (UNNAMED, UNNAMED_OUT):
            flag = "--hook-name" if site.hook_name == UNNAMED else "--hook-name-out"
            what = "reads" if site.hook_name == UNNAMED else "writes"
            raise BadInput(
                f"{path} does not say which activations it {what}: say it with {flag}, one of "
                f"{few(store.hook_names)}"
            )
        raise BadInput(
            f"'{site.hook_name}' is not in the store at {store.where}, which has "
            f"{few(store.hook_names)}, and {path} needs it: {_remedy(site.hook_name, store)}"
        )
    width = store.manifest.width(site.hook_name)
    if site.width != width:
        raise BadInput(
            f"{path} is for activations {site.width} wide, "
            f"{site.hook_name} in {store.where} is {width} wide"
        )


def _remedy(hook_name: str, store: Readable) -> str:
    """What to do about a site that is not in a store."""
    of_pair, paired = ":" in hook_name, any(":" in name for name in store.hook_names)
    if of_pair and not paired:
        return "it is for two stores, so give the second one with --paired-with"
    if paired and not of_pair:
        return "it is for one store, so leave out --paired-with"
    own, head = head_of(hook_name.rpartition(":")[2])
    apart = "" if head is None else " --heads apart"
    return f"harvest it with --hook {own}{apart}, or pull it if this is a part of a store"
