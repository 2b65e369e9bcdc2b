"""Rows of a store as a table: pandas, Arrow."""

import importlib
from collections.abc import Sequence
from typing import Any

from rkstore.errors import BadInput
from rkstore.store.manifest import COLUMNS
from rkstore.store.readable import Readable
from rkstore.store.rows import Asked, column_of, rows_asked


def to_pandas(store: Readable, site: str | Sequence[str] | None, rows: Asked) -> Any:
    """A data frame of some rows, its index their numbers, named ``row``.

    Columns ``token_id``, ``document`` and ``position``; ``token``, the words, if the store has a
    tokenizer; and for each site one column, named by its hook, with an array ``(d_in,)`` float32
    in each row.

    Raises:
        BadInput: pandas is not installed; the store has no such row or site.
    """
    pandas = _library("pandas")
    numbers, found = _columns(store, site, rows)
    for name in found.keys() - COLUMNS.keys() - {"token"}:
        found[name] = list(found[name])
    return pandas.DataFrame(found, index=pandas.Index(numbers, name="row"))


def to_arrow(store: Readable, site: str | Sequence[str] | None, rows: Asked) -> Any:
    """An Arrow table of some rows.

    Columns ``row``, then those of :func:`to_pandas`, a site as a list of fixed size of float32.

    Raises:
        BadInput: pyarrow is not installed; the store has no such row or site.
    """
    arrow = _library("pyarrow")
    numbers, found = _columns(store, site, rows)
    for name in found.keys() - COLUMNS.keys() - {"token"}:
        values = arrow.array(found[name].reshape(-1))
        width = store.manifest.width(name)
        found[name] = arrow.FixedSizeListArray.from_arrays(values, width)
    return arrow.table({"row": numbers} | found)


def _columns(store: Readable, site: str | Sequence[str] | None, asked: Asked) -> tuple[Any, Any]:
    """The numbers of the rows, and what each column has of them."""
    names = [] if site is None else [site] if isinstance(site, str) else list(site)
    for name in names:
        store.check_site(name)
    rows = rows_asked(store, asked)
    found: dict[str, Any] = {name: column_of(store, name, rows) for name in COLUMNS}
    if store.has_words:
        ids = found["token_id"].tolist()
        known = {id: store.words.word(id) for id in set(ids)}
        found["token"] = [known[id] for id in ids]
    return rows, found | {name: column_of(store, name, rows) for name in names}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(f"this needs {name}: pip install {name}") from None
