"""Looking things up in a store: rows, words, texts, documents, tables.

:class:`Lookup` is what a store and two stores read as one have in common.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, few
from rkstore.store.finding import SPAN_ROWS, rows_of
from rkstore.store.manifest import COLUMNS
from rkstore.store.readable import Readable
from rkstore.store.rows import Asked, Rows, column_of, each_row, is_one, rows_asked

if TYPE_CHECKING:
    import pandas
    import pyarrow

MARK = ("«", "»")


@dataclass(frozen=True)
class Document:
    """The readable rows of one document: ``first_row`` up to, not including, ``stop_row``."""

    number: int
    """As in the column ``document``: of the file, or of the row of the split."""
    first_row: int
    stop_row: int
    _store: Readable = field(repr=False, compare=False)

    def __len__(self) -> int:
        return self.stop_row - self.first_row

    @property
    def id(self) -> Any:
        """Its own id, of ``harvest --id-column``; None if none was kept."""
        return self._store.document_ids.get(self.number)

    @property
    def text(self) -> str:
        """The text of these rows, without BOS tokens.

        Raises:
            BadInput: the store has no tokenizer, or its rows are not blocks of a text.
        """
        source, [first] = self._store.in_text(self.first_row, self.first_row + 1)
        _, [last] = self._store.in_text(self.stop_row - 1, self.stop_row)
        if source.manifest.context_size == 1 and len(self) > 1:
            raise BadInput(
                f"the rows of {source.where} are not whole blocks of a text: read it with "
                "rkstore.open_paired(), behind the store that it is aligned to"
            )
        ids = source.column("token_id", int(first), int(last) + 1)
        bos = (source.manifest.source.get("tokenizer") or {}).get("bos_token_id")
        return source.words.decode([id for id in ids.tolist() if id != bos])


class Lookup:
    """Rows, words and tables of a :class:`rkstore.store.Readable`.

    ``store[site, rows]`` are activations and ``store[rows]`` is a dict of columns and all sites;
    a store is iterated row by row.
    """

    def __len__(self: Readable) -> int:
        """Readable rows."""
        return self.stop_row - self.first_row

    def __bool__(self) -> bool:
        """A store is something even before its first row."""
        return True

    def __repr__(self: Readable) -> str:
        model = (self.manifest.source.get("model") or {}).get("name", "unknown model")
        here = f"{self.stop_row - self.first_row:,} rows of {few(self.hook_names, 3) or 'no site'}"
        return f"<{type(self).__name__} {self.where}: {here}; {model}>"

    def __iter__(self: Readable) -> Iterator[dict[str, Any]]:
        """Every readable row as ``store[row]`` gives it, read a chunk at a time."""
        return each_row(self)

    @overload
    def __getitem__(self, asked: tuple[str, Asked] | str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, asked: Asked) -> Any: ...
    def __getitem__(self: Readable, asked: Any) -> Any:
        """``store[site, rows]``: activations; ``store[rows]``: a dict of columns and all sites.

        Args:
            asked: rows, or a name and rows; a name alone stands for all readable rows. Rows are a
                number, a slice, row numbers in any order with repeats, or a mask over the
                readable rows; negative numbers count from the end. A name is a full hook name,
                or ``token_id``, ``document`` or ``position``. Rows of a part have the numbers that
                they have in the whole.

        Returns:
            Of a site float32 ``(n, d_in)``, or ``(d_in,)`` for one row; of a column integers. Each
            chunk is decoded once.

        Raises:
            NoSuchRow: a row is not in the store; it is an IndexError, too.
            BadInput: the store has no such name, or these are no rows.
        """
        if isinstance(asked, str):
            asked = asked, slice(None)
        if isinstance(asked, tuple) and len(asked) == 2 and isinstance(asked[0], str):
            found = column_of(self, asked[0], rows_asked(self, asked[1]))
            return found[0] if is_one(asked[1]) else found
        rows = rows_asked(self, asked)
        names = [*COLUMNS, *self.hook_names]
        every = {name: column_of(self, name, rows) for name in names}
        if not is_one(asked):
            return every
        return {n: x[0].item() if n in COLUMNS else x[0] for n, x in every.items()}

    @overload
    def tokens(self, rows: int) -> str: ...
    @overload
    def tokens(self, rows: Asked = slice(None)) -> Any: ...
    def tokens(self: Readable, rows: Asked = slice(None)) -> Any:
        """The word of each row's token, a list; of one row, a string.

        A word has the space that it begins with. A part of a character is what the tokenizer
        makes of it, mostly ``�``; :meth:`text` shows whole characters.

        Raises:
            NoSuchRow: a row is not in the store.
            BadInput: the store has no tokenizer.
        """
        ids = column_of(self, "token_id", rows_asked(self, rows)).tolist()
        known = {id: self.words.word(id) for id in set(ids)}
        found = [known[id] for id in ids]
        return found[0] if is_one(rows) else found

    def text(self: Readable, row: int, window: int = 20, mark: tuple[str, str] = MARK) -> str:
        """The text around a row, its own token marked.

        It is decoded as a whole, so a token that is part of a character has all of it in the mark.

        Args:
            window: the most tokens on either side; they are of the same block and document.
            mark: what stands before the token, and behind it.

        Raises:
            NoSuchRow: the row is not in the store.
            BadInput: the store has no tokenizer, or the window is negative.
        """
        if window < 0:
            raise BadInput(f"the window has {window} tokens: give 0 or more")
        if not is_one(row):
            raise BadInput(f"a text is around one row: give its number, not {type(row).__name__}")
        [known] = rows_asked(self, row).tolist()
        source, rows = self.in_text(known, known + 1)
        at = int(rows[0])
        size = source.manifest.context_size
        block = at // size * size
        first = max(block, source.first_row, at - window)
        stop = min(block + size, source.stop_row, at + window + 1)
        documents = source.column("document", first, stop)
        # The documents of a block are one behind another.
        same = np.flatnonzero(documents == documents[at - first])
        first, stop = first + int(same[0]), first + int(same[-1]) + 1
        ids = source.column("token_id", first, stop).tolist()
        before, own, behind = source.words.around(ids, at - first)
        return f"{before}{mark[0]}{own}{mark[1]}{behind}"

    def documents(self: Readable) -> Iterator[Document]:
        """The documents in the order of their rows; their text is decoded when it is asked for."""
        start, number = self.first_row, None
        for first in range(self.first_row, self.stop_row, SPAN_ROWS):
            column = self.column("document", first, min(first + SPAN_ROWS, self.stop_row))
            changes = np.flatnonzero(np.diff(column, prepend=column[0]))
            if number is not None and column[0] != number:
                changes = np.append(0, changes)
            for change in changes.tolist():
                before = number if change == 0 else int(column[change - 1])
                assert before is not None
                yield Document(before, start, first + change, self)
                start = first + change
            number = int(column[-1])
        if number is not None:
            yield Document(number, start, self.stop_row, self)

    def find(
        self: Readable, word: str | int, *, spaced: bool = False, limit: int | None = None
    ) -> Rows:
        """The rows of a token, ascending int64 ``(n,)``; no activations are read.

        ``find(" def")`` and ``find("def")`` are different tokens: the text must be exactly that of
        the token. A text that is no single token is the sequence of tokens that the tokenizer
        makes of it, within one block and document; the row is that of its last token.

        Args:
            word: the text of a token, or its id.
            spaced: also find the word with a space before it.
            limit: stop at so many rows.

        Raises:
            BadInput: there is no such token, or the store has no tokenizer and no id was given.
        """
        return rows_of(self, word, spaced=spaced, limit=limit)

    def to_pandas(
        self: Readable, site: str | Sequence[str] | None = None, rows: Asked = slice(None)
    ) -> "pandas.DataFrame":
        """Rows as a data frame, indexed by row: see :func:`rkstore.store.tables.to_pandas`."""
        from rkstore.store.tables import to_pandas

        return to_pandas(self, site, rows)

    def to_arrow(
        self: Readable, site: str | Sequence[str] | None = None, rows: Asked = slice(None)
    ) -> "pyarrow.Table":
        """Rows as an Arrow table: see :func:`rkstore.store.tables.to_arrow`."""
        from rkstore.store.tables import to_arrow

        return to_arrow(self, site, rows)
