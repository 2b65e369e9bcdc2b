"""Whether two stores can be read as one: of the same tokens, in the same rows or aligned."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.manifest import PARTNER_ROW
from rkstore.store.store import Store

# In front of the colon: no dot or colon, so that a block's number is still found.
NAME = re.compile(r"[A-Za-z0-9_-]+")

# Rows whose tokens are compared at once: 8 MB of two columns.
COMPARED_ROWS = 2**20

Integers = NDArray[np.signedinteger[Any]]


def check_names(names: Sequence[str]) -> None:
    """Raise BadInput unless these are two names for the stores of a pair."""
    if isinstance(names, str) or len(names) != 2:
        raise BadInput(f"a pair of stores needs two names, not {names!r}: give one for each")
    for name in names:
        if not NAME.fullmatch(name):
            raise BadInput(
                f"'{name}' cannot name a store of a pair: use letters, digits, _ and - only"
            )
    if names[0] == names[1]:
        raise BadInput(f"both stores of the pair are named {names[0]}: give two different names")


def check_aligned(first: Store, second: Store) -> None:
    """Raise BadInput unless the rows of the second are aligned to those of the first."""
    if PARTNER_ROW in first.manifest.columns:
        raise BadInput(
            f"{first.where} is aligned to another store: give that one first, and this one second"
        )
    partner = an_object(second.manifest.source.get("paired_with"))
    if partner.get("fingerprint") != first.manifest.fingerprint:
        raise BadInput(
            f"{second.where} is aligned to {partner.get('name')} ({partner.get('fingerprint')}), "
            f"not to {first.where} ({first.manifest.fingerprint}): give that one first"
        )


def check_same_rows(first: Store, second: Store) -> None:
    """Raise BadInput unless both have the same rows, in the same blocks."""
    for what, one, other in (
        ("rows", first.rows, second.rows),
        (
            "readable rows",
            f"{first.first_row}:{first.stop_row}",
            f"{second.first_row}:{second.stop_row}",
        ),
        ("tokens in a block", first.manifest.context_size, second.manifest.context_size),
    ):
        if one != other:
            raise BadInput(
                f"{first.where} and {second.where} cannot be paired, {what} are {one} and {other}: "
                f"{_again(first)}"
            )


def check_same_tokens(first: Store, second: Store) -> None:
    """Raise BadInput unless both stores have the same token in every row.

    By the digests of the harvests, if both recorded one; otherwise the columns are read.
    """
    digests = [_digest(store) for store in (first, second)]
    if all(digests):
        if digests[0] != digests[1]:
            raise BadInput(
                f"{first.where} and {second.where} are not of the same tokens: {_again(first)}"
            )
        return
    known = False
    for start, tokens in _compared(first, second):
        differ = np.flatnonzero(tokens[0] != tokens[1])
        if len(differ):
            raise BadInput(
                f"{first.where} and {second.where} are not of the same tokens, from row "
                f"{start + int(differ[0])} on: {_again(first)}"
            )
        known = known or bool((tokens[0] >= 0).any())
    if not known:
        raise BadInput(
            f"the tokens of {first.where} are not known, so it cannot be paired: import both "
            "stores with their token ids"
        )


def _compared(first: Store, second: Store) -> Iterator[tuple[int, list[Integers]]]:
    """The tokens of both stores, some rows at a time."""
    for start in range(first.first_row, first.stop_row, COMPARED_ROWS):
        stop = min(start + COMPARED_ROWS, first.stop_row)
        yield start, [store.column("token_id", start, stop) for store in (first, second)]


def _digest(store: Store) -> str | None:
    """The digest of a harvest's tokens; the files of an import may not be what it says."""
    source = store.manifest.source
    found = an_object(source.get("tokens")).get("sha256")
    return found if isinstance(found, str) and "imported_from" not in source else None


def _again(first: Store) -> str:
    return f"run the second model with 'rkstore harvest --paired-with {first.where}'"


def an_object(value: Any) -> dict[str, Any]:
    """A value of a manifest if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
