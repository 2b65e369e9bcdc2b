"""What a column of rows holds: texts, token ids or chats, and which column is read."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text.documents import Row
from rkstore.harvest.text.plain import BYTE_ORDER_MARK

# Where a row is padded, next to its ids.
MASK = "attention_mask"

# Usual names of a column of token ids.
IDS = ("input_ids", "tokens")

# Options named in an error.
SHOWN = 3


@dataclass(frozen=True)
class Kind:
    """What a column may hold."""

    what: str
    """In a sentence."""
    option: str
    """How such a column is asked for."""
    read: Callable[[Any], Any]
    """A value as it is used; None if it is of another kind."""


def _text(value: Any) -> str | None:
    return value.removeprefix(BYTE_ORDER_MARK) if isinstance(value, str) else None


def whole_numbers(value: Any) -> np.ndarray | None:
    """A list of whole numbers as an array; None if it is anything else."""
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        ids = np.asarray(value)
    except (ValueError, OverflowError):  # lists of unequal length
        return None
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        return None
    return ids if ids.size else ids.astype(np.int64)


def _chat(value: Any) -> list[dict[str, Any]] | None:
    fits = isinstance(value, list) and all(
        isinstance(message, dict)
        and all(isinstance(message.get(key), str) for key in ("role", "content"))
        for message in value
    )
    return value if fits else None


TEXTS = Kind("texts", "--text-column {}", _text)
TOKEN_IDS = Kind("token ids", "--tokenized-by NAME --ids-column {}", whole_numbers)
CHATS = Kind("chats, which are lists of role and content", "--chat-column {}", _chat)


def read_column(
    name: str,
    rows: Iterator[tuple[int, dict[str, Any]]],
    settings: HarvestSettings,
    ids: dict[int, str | int],
) -> tuple[str, Iterator[Row]]:
    """The column that the settings ask for, and its value in each row that has one.

    Args:
        name: of the dataset, for errors.
        ids: filled with the own ids of the documents, as they are read.

    Raises:
        BadInput: there are no rows, or they have no such column of that kind; says which there
            are. Other rows are checked when they are read.
    """
    first = next(rows, None)
    if first is None:
        raise BadInput(f"the dataset {name} has no rows there")
    kind, column = _asked(name, first[1], settings)
    rows = itertools.chain([first], rows)
    if settings.id_column is not None:
        if settings.id_column not in first[1]:
            raise _no_column(name, first[1], (settings.id_column,))
        rows = _identified(name, rows, settings.id_column, ids)
    return column, _values(name, rows, column, kind)


def _asked(name: str, row: Mapping[str, Any], settings: HarvestSettings) -> tuple[Kind, str]:
    """The kind and the column that the settings ask for, looked up in the first row."""
    names: tuple[str, ...]
    if settings.chat_column is not None:
        kind, names = CHATS, (settings.chat_column,)
    elif settings.tokenized_by is None:
        kind, names = TEXTS, (settings.text_column,)
    else:
        kind, names = TOKEN_IDS, IDS if settings.ids_column is None else (settings.ids_column,)
    there = [column for column in names if column in row]
    # An empty first row says nothing of its kind.
    fits = [column for column in there if row[column] is None or kind.read(row[column]) is not None]
    if len(fits) > 1:
        raise BadInput(
            f"the dataset {name} has {' and '.join(fits)}: choose with --ids-column {fits[0]}"
        )
    if fits:
        return kind, fits[0]
    if there:
        raise _another_kind(name, row, there[0], kind)
    missing = _no_column(name, row, names)
    raise BadInput(f"{missing.sentence}: {_way(row)}")


def _no_column(name: str, row: Mapping[str, Any], names: Sequence[str]) -> BadInput:
    asked = " or ".join(f"'{column}'" for column in names)
    return BadInput(f"the dataset {name} has no {asked} column (it has {', '.join(map(str, row))})")


def _identified(
    name: str,
    rows: Iterator[tuple[int, dict[str, Any]]],
    column: str,
    ids: dict[int, str | int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in rows:
        id = row[column]
        if type(id) not in (str, int):
            raise BadInput(
                f"the '{column}' column of row {number} of {name} holds {type(id).__name__}: an id "
                "is a text or a whole number"
            )
        ids[number] = id
        yield number, row


def _way(row: Mapping[str, Any]) -> str:
    """The options that would read the columns of a row."""
    ways = [
        kind.option.format(column)
        for kind in (TEXTS, TOKEN_IDS, CHATS)
        for column, value in row.items()
        if column != MASK and kind.read(value) is not None and len(value)
    ]
    if not ways:
        return "none of them holds texts, token ids or chats"
    return f"give {' or '.join(ways[:SHOWN])}"


def _another_kind(name: str, row: Mapping[str, Any], column: str, kind: Kind) -> BadInput:
    holds = type(row[column]).__name__
    return BadInput(f"the '{column}' column of {name} holds {holds}, not {kind.what}: {_way(row)}")


def _values(
    name: str, rows: Iterator[tuple[int, dict[str, Any]]], column: str, kind: Kind
) -> Iterator[Row]:
    for number, row in rows:
        if row[column] is None:  # an empty row
            continue
        value = kind.read(row[column])
        if value is None:
            raise _another_kind(f"row {number} of {name}", row, column, kind)
        if kind is TOKEN_IDS and row.get(MASK) is not None:
            value = value[_kept(f"row {number} of {name}", row[MASK], len(value))]
        yield number, value


def _kept(where: str, mask: Any, tokens: int) -> np.ndarray:
    """Which tokens of a row are not padding."""
    marks = whole_numbers(mask)
    if marks is None or len(marks) != tokens or not np.isin(marks, (0, 1)).all():
        raise BadInput(f"the {MASK} of {where} is not a 0 or 1 for each of its {tokens} tokens")
    kept = np.flatnonzero(marks)
    if len(kept) and kept[-1] - kept[0] != len(kept) - 1:
        raise BadInput(
            f"the {MASK} of {where} leaves out tokens between others, which is not padding: "
            "remove the column, or those tokens"
        )
    return marks.astype(bool)
