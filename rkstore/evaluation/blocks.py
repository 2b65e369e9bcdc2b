"""Blocks of a store's tokens for a run of the model, and which of their rows are measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput
from rkstore.store.batches.kept import at_any, left_out
from rkstore.store.readable import Readable

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOutBlocks:
    """Blocks with held-out rows, each ``(blocks, context_size)``.

    A block is run whole, but where only a part of it is held out, only that part is measured.
    """

    store: Readable = field(repr=False)
    rows: Integers
    """Their rows' numbers."""
    tokens: Integers
    held_out: Mask

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, store: Readable, chunks: Sequence[int], most: int) -> "HeldOutBlocks":
        """The blocks of a store, evenly spread over those with held-out rows.

        Args:
            chunks: the chunks that are held out.
            most: how many blocks; all, if there are fewer.

        Raises:
            BadInput: no row is held out, or the rows are not blocks of known tokens.
        """
        size, chunk_rows = store.manifest.context_size, store.manifest.chunk_rows
        ranges = [np.arange(*store.rows_of_chunk(chunk)) for chunk in chunks]
        held_out = np.concatenate([np.empty(0, np.int64), *ranges])
        numbers = np.unique(held_out // size)
        whole = (numbers * size >= store.first_row) & ((numbers + 1) * size <= store.stop_row)
        numbers = numbers[whole]
        if not len(numbers):
            raise BadInput(
                f"the store at {store.where} has no whole block of {size} tokens with held-out "
                f"rows in its rows {store.first_row}:{store.stop_row}: pull more of them"
            )
        if most < len(numbers):
            numbers = numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]
        rows = numbers[:, None] * size + np.arange(size)
        _check_blocks(store, rows)
        tokens = store["token_id", rows.reshape(-1)].reshape(rows.shape).astype(np.int64)
        return cls(store, rows, tokens, np.isin(rows // chunk_rows, chunks))

    def chosen(self, sites: Sequence[str], special_tokens: bool, max_norm: float | None) -> Mask:
        """The rows that training reads at all of some sites, held out or not.

        Args:
            special_tokens, max_norm: see :func:`rkstore.store.batches.kept.left_out`.

        Raises:
            BadInput: there is no held-out one.
        """
        chunks = np.unique(self.rows // self.store.manifest.chunk_rows).tolist()
        out = at_any(
            [
                left_out(self.store, site, chunks, special_tokens=special_tokens, max_norm=max_norm)
                for site in sites
            ]
        )
        chosen = ~out.holds(self.rows.reshape(-1)).reshape(self.rows.shape)
        if not (chosen & self.held_out)[:, :-1].any():
            raise BadInput(
                f"every held-out row of these blocks of {self.store.where} is left out: use "
                "--special-tokens, a larger --max-norm, or more --blocks"
            )
        return chosen

    def read(self, site: str) -> NDArray[np.float32]:
        """The stored rows of a site, ``(blocks * context_size, width)``."""
        found: NDArray[np.float32] = self.store[site, self.rows.reshape(-1)]
        return found


def _check_blocks(store: Readable, rows: Integers) -> None:
    """Raise BadInput unless these rows are what a model reads at once, with their tokens."""
    tokens, position = store["token_id", rows.reshape(-1)], store["position", rows.reshape(-1)]
    if tokens.min() < 0:
        raise BadInput(
            f"{store.where} does not have the tokens of its rows, so no model can be run on them: "
            "leave out --with-model, or give a store that was harvested"
        )
    if rows.shape[1] < 2 or (position.reshape(rows.shape) != np.arange(rows.shape[1])).any():
        raise BadInput(
            f"the rows of {store.where} are not whole blocks of a text, so no model can be run on "
            "them: leave out --with-model, or give the store whose tokens they are"
        )
