"""A dictionary of a repository of the Hub: its own files, fetched into the Hub's cache.

The list of the repository says where its dictionaries are. Only the files of dictionaries in one
directory are fetched, so that nothing else of the repository can be read by mistake.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

from rkstore.dictionaries.layouts import LAYOUTS, Layout
from rkstore.errors import BadInput, RkstoreError, few, one_line
from rkstore.settings import member_named
from rkstore.store.files import named
from rkstore.store.places.hub import Repository, repository_of, with_status, without_bars
from rkstore.store.places.retry import patiently, status_of
from rkstore.store.places.url import is_url

# Statuses of a repository that is not there, or that this user may not see.
HIDDEN = (401, 403, 404)

# A repository as the Hub's own functions take it.
NAME = re.compile(r"[\w.-]+/[\w.-]+")

# Files that run code when they are opened.
PICKLES = (".pkl", ".pickle", ".bin", ".joblib")

T = TypeVar("T")


def place_of(
    source: str | Path, sae_id: str | None = None, revision: str | None = None
) -> Repository | Path:
    """The directory or the repository that is meant; a directory that exists comes first.

    Args:
        source: a directory, ``USER/NAME`` or ``hf://USER/NAME[@REVISION][/SAE_ID]``.
        sae_id: the directory of the dictionary in it.
        revision: branch, tag or commit of the repository.

    Raises:
        BadInput: it is neither, or something is said twice.
    """
    if is_url(source):
        place = repository_of(source)
        if place is None:
            raise BadInput(f"'{source}' is no repository: give a directory or hf://USER/NAME")
        if (sae_id and place.under) or (revision and place.revision != "main"):
            what = "sae_id" if sae_id and place.under else "revision"
            raise BadInput(f"{place} says it already: leave out the {what}")
        return place._replace(
            under=(sae_id or place.under).strip("/"), revision=revision or place.revision
        )
    local = named(source)
    if not local.exists() and NAME.fullmatch(str(source)):
        return Repository("model", str(source), revision or "main", (sae_id or "").strip("/"))
    if revision is not None:
        raise BadInput(f"{source} is a directory, which has no revision")
    return local / (sae_id or "")


def local_copy(source: str | Path, layout: str | None = None) -> Path:
    """A directory as it is; that of an ``hf://`` URL is fetched."""
    if not is_url(source):
        return named(source)
    place = place_of(source)
    return fetched(place, layout) if isinstance(place, Repository) else place


def fetched(
    place: Repository,
    layout: str | None = None,
    *,
    token: str | None = None,
    cache: str | Path | None = None,
) -> Path:
    """The directory in the Hub's cache with the files of a dictionary.

    With ``HF_HUB_OFFLINE`` it is what was fetched before.

    Args:
        layout: one of ``LAYOUTS``; None for all that are there.
        token: for a private repository; that of ``hf auth login`` or ``$HF_TOKEN`` if None.
        cache: directory of the Hub's cache; the usual one if None.

    Raises:
        BadInput: the repository cannot be seen, or has no dictionary there, or has several.
        RkstoreError: the connection failed, or someone else changed the repository meanwhile.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    what: dict[str, Any] = {"repo_type": place.kind, "revision": place.revision, "token": token}

    def get(files: Sequence[str], offline: bool) -> Path:
        found = snapshot_download(
            place.name, allow_patterns=files, cache_dir=cache, local_files_only=offline, **what
        )
        return Path(found)

    if constants.HF_HUB_OFFLINE:
        root = _asked(place, lambda: get(_patterns(place, layout), True))
        there = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        _files(place, there, layout)
        return root / place.under
    info = _asked(place, lambda: HfApi().repo_info(place.name, **what))
    files = _files(place, [one.rfilename for one in info.siblings or ()], layout)
    # Elsewhere than on a terminal the Hub's bars are lines without end.
    with nullcontext() if sys.stderr.isatty() else without_bars():
        root = _asked(place, lambda: get([escape(file) for file in files], False))
    if root.name != info.sha:
        raise RkstoreError(f"{place} was changed while it was read: run the same command again")
    return root / place.under


def _kinds(layout: str | None) -> list[Layout]:
    names = LAYOUTS if layout is None else [layout]
    return [member_named("layout", LAYOUTS, name, {}) for name in names]


def _patterns(place: Repository, layout: str | None) -> list[str]:
    """The names of all files that may belong to a dictionary in that directory."""
    forms = sorted({form for kind in _kinds(layout) for form in kind.forms()})
    return [_under(place, form, escape) for form in forms]


def _files(place: Repository, names: Iterable[str], layout: str | None) -> list[str]:
    """The files of the dictionary in that directory.

    Raises:
        BadInput: there is none; says where there are some.
    """
    inside: dict[str, list[str]] = defaultdict(list)
    for name in names:
        under, _, file = name.rpartition("/")
        inside[under].append(file)
    kinds = _kinds(layout)
    there = {}
    for under, files in inside.items():
        if own := sorted({name for kind in kinds for name in kind.files_of(files)}):
            there[under] = own
    if place.under in there:
        return [_under(place, file) for file in there[place.under]]
    begin = _under(place, "")
    if below := [under for under in sorted(there) if under.startswith(begin)]:
        raise BadInput(
            f"{place} has its dictionaries in directories: name one of them as sae_id, or at the "
            f"end of the URL: {few(below)}"
        )
    where = f"{place} has no dictionary" + (f" in the layout {layout}" if layout else "")
    if pickles := [file for file in inside[place.under] if file.endswith(PICKLES)]:
        raise BadInput(
            f"{where}, and {pickles[0]} is a pickle, which could run code: rkstore does not open it"
        )
    also = f", which has {', '.join(sorted(there)) or 'none'} elsewhere" if place.under else ""
    raise BadInput(f"{where} that rkstore reads{also}")


def _under(place: Repository, file: str, written: Callable[[str], str] = lambda name: name) -> str:
    return f"{written(place.under)}/{file}" if place.under else file


def _asked(place: Repository, work: Callable[[], T]) -> T:
    """Do what asks the Hub, with one sentence if it refuses."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return patiently(lambda: with_status(work))
    except LocalEntryNotFoundError:
        raise RkstoreError(
            f"{place} is not all in the Hub's cache, and the Hub cannot be reached: fetch it where "
            "there is a network"
        ) from None
    except Exception as error:
        if isinstance(error, HFValidationError) or status_of(error) in HIDDEN:
            raise BadInput(
                f"{place} does not exist, or you may not read it; if it is private, log in with "
                f"'hf auth login': {one_line(error)}"
            ) from None
        raise RkstoreError(
            f"cannot read {place}: {one_line(error)}; run the same command again to continue, or "
            "set HF_HUB_OFFLINE=1 to use what was fetched before"
        ) from None
