"""Two stores of the same tokens, read as one: what two models make of each token.

A site is named after its store, ``base:blocks.8.mlp.hook_post``. Row *i* is the same token at
every site.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, DamagedStore, few
from rkstore.store.codecs import CODECS, Codec, Encoded
from rkstore.store.jsontext import canonical
from rkstore.store.lookup import Lookup
from rkstore.store.manifest import PARTNER_ROW
from rkstore.store.pairing import (
    an_object,
    check_aligned,
    check_names,
    check_same_rows,
    check_same_tokens,
)
from rkstore.store.sites import Among, Hooks, Pair
from rkstore.store.statistics import Statistics
from rkstore.store.store import Store
from rkstore.store.words import Words

NAMES = ("base", "chat")

Integers = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class PairedManifest:
    """What the manifests of two stores say of the pair."""

    rows: int
    context_size: int
    chunk_rows: int
    source: dict[str, Any]
    """Text, tokens and tokenizer are the first store's; the model stands for both."""
    fingerprint: str
    """Depends on both stores, their order and their names."""
    widths: Mapping[str, int]

    def width(self, hook_name: str) -> int:
        return self.widths[hook_name]


class PairedStore(Lookup):
    """Two stores as one, read-only: a :class:`rkstore.store.Readable`.

    Rows and chunks are the second store's. Where it was harvested with ``--align text`` it has
    fewer rows than the first, and ``partner_row`` says which of the first's each belongs to.
    Columns are the first store's; statistics are those of each store.
    """

    def __init__(self, first: Store, second: Store, names: Sequence[str] = NAMES) -> None:
        """Pair two stores.

        Args:
            names: what the sites of each begin with.

        Raises:
            BadInput: the names are the same, or the rows are not of the same tokens.
        """
        check_names(names)
        self.first, self.second, self.names = first, second, tuple(names)
        self.where = f"{first.where} paired with {second.where}"
        self.aligned = PARTNER_ROW in second.manifest.columns
        if self.aligned or PARTNER_ROW in first.manifest.columns:
            check_aligned(first, second)
        else:
            check_same_rows(first, second)
            check_same_tokens(first, second)
        self._sites = {
            f"{name}:{own}": (store, own)
            for name, store in zip(self.names, (first, second), strict=True)
            for own in store.hook_names
        }
        self.aliases = {
            f"{name}:{alias}": f"{name}:{own}"
            for name, store in zip(self.names, (first, second), strict=True)
            for alias, own in store.aliases.items()
        }
        self.manifest = self._describe()

    @property
    def hook_names(self) -> list[str]:
        """The sites, those of the first store first."""
        return list(self._sites)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What each store says belongs together."""
        return tuple(
            replace(pair, reads=f"{name}:{pair.reads}", writes=f"{name}:{pair.writes}")
            for name, store in zip(self.names, (self.first, self.second), strict=True)
            for pair in store.pairs
        )

    @property
    def rows(self) -> int:
        """Recorded rows of the pair."""
        return self.second.rows

    @property
    def first_row(self) -> int:
        return self.second.first_row

    @property
    def stop_row(self) -> int:
        return self.second.stop_row

    @property
    def chunks(self) -> int:
        return self.second.chunks

    @property
    def chunk_range(self) -> range:
        return self.second.chunk_range

    def rows_of_chunk(self, chunk: int) -> tuple[int, int]:
        """First row, and one past the last, of a chunk."""
        return self.second.rows_of_chunk(chunk)

    @contextmanager
    def ahead(self, hook_names: Sequence[str], chunks: Iterable[int]) -> Iterator["PairedStore"]:
        """As :meth:`Store.ahead`, for the stores whose chunks are those of the pair."""
        asked = [self._site(name) for name in hook_names]
        with ExitStack() as reading:

            def of(store: Store) -> Store:
                names = [own for one, own in asked if one is store]
                there = self._as_stored(store)
                return reading.enter_context(store.ahead(names, chunks)) if there else store

            view = copy.copy(self)
            view.second = of(self.second)
            view.first = view.second if self.first is self.second else of(self.first)
            stores = {id(self.first): view.first, id(self.second): view.second}
            view._sites = {name: (stores[id(one)], own) for name, (one, own) in self._sites.items()}
            yield view

    def codec_of(self, hook_name: str) -> Codec:
        """The codec in which :meth:`stored_chunk` returns a site.

        float32 for a site whose rows have to be put together from other chunks.
        """
        store, _ = self._site(hook_name)
        return store.codec if self._as_stored(store) else CODECS["float32"]

    def stored_chunk(self, hook_name: str, chunk: int, out: NDArray[Any] | None = None) -> Encoded:
        """One chunk of the pair's rows, encoded in :meth:`codec_of`.

        Args:
            out: see :meth:`Store.stored_chunk`.

        Raises:
            BadInput: the site or the chunk is not in the pair.
            DamagedStore: the bytes are not what was written.
        """
        store, own = self._site(hook_name)
        self.check_chunk(chunk)
        if self._as_stored(store):
            return store.stored_chunk(own, chunk, out)
        return Encoded(self._gathered(store, own, *self.rows_of_chunk(chunk)))

    def chunk(self, hook_name: str, chunk: int) -> NDArray[np.float32]:
        """The same decoded, ``(rows of the chunk, d_in)`` float32."""
        return self.codec_of(hook_name).decode(self.stored_chunk(hook_name, chunk))

    def read(
        self, hook_name: str, start: int | None = None, stop: int | None = None
    ) -> NDArray[np.float32]:
        """Activations of rows ``start`` to ``stop``, ``(stop - start, d_in)`` float32.

        By default, all readable rows. Raises as :meth:`stored_chunk`.
        """
        return self._gathered(*self._site(hook_name), start, stop)

    def column(self, name: str, start: int | None = None, stop: int | None = None) -> Integers:
        """A column of the first store, at the rows of the pair.

        ``partner_row``, where the second store has it, is the row of the first.
        """
        if not self.aligned:
            return self.first.column(name, start, stop)
        rows = self._partner_rows(start, stop)
        if name == PARTNER_ROW:
            return rows
        first = int(rows[0]) if len(rows) else self.first.first_row
        stop = int(rows[-1]) + 1 if len(rows) else first
        between: Integers = self.first.column(name, first, stop)
        return between[rows - first]

    @property
    def has_words(self) -> bool:
        """Whether the first store has its tokenizer."""
        return self.first.has_words

    @property
    def words(self) -> Words:
        """The first store's tokenizer, as its column of tokens is."""
        return self.first.words

    @property
    def document_ids(self) -> dict[int, Any]:
        """Those of the first store, as its column of documents is."""
        return self.first.document_ids

    def in_text(self, start: int, stop: int) -> tuple[Store, NDArray[np.int64]]:
        """The first store, and the rows of the pair there."""
        if not self.aligned:
            return self.first, np.arange(start, stop)
        return self.first, self._partner_rows(start, stop).astype(np.int64)

    def statistics(self, hook_name: str) -> Statistics:
        """Exact statistics of a site over all rows of its own store.

        Those of the first store over its ordinary rows, if the second is aligned to it: the rows
        without a partner are above all those of BOS, which are massive.
        """
        store, own = self._site(hook_name)
        if self.aligned and store is self.first:
            return store.ordinary_statistics(own)
        return store.statistics(own)

    def ordinary_statistics(self, hook_name: str) -> Statistics:
        """The same over the rows that are not massive."""
        store, own = self._site(hook_name)
        return store.ordinary_statistics(own)

    def codec_fvu(self, hook_name: str) -> float:
        """See :meth:`Store.codec_fvu`; over all rows of the site's own store."""
        store, own = self._site(hook_name)
        return store.codec_fvu(own)

    def site(self, layer: str | int | None = None, hook: Hooks = None) -> str:
        """See :meth:`Store.site`; ``base:*`` is a hook of the first store alone."""
        return self._among.one(layer, hook)

    def sites(self, layers: str | int | None = None, hooks: Hooks = None) -> list[str]:
        """See :meth:`Store.sites`."""
        return self._among.chosen(layers, hooks)

    def check_site(self, hook_name: str) -> str:
        """The site of that name or alias; raises BadInput with the alternatives."""
        site = self.aliases.get(hook_name, hook_name)
        if site not in self._sites:
            raise BadInput(f"'{hook_name}' is not in {self.where}, which {self._has}")
        return site

    def check_chunk(self, chunk: int) -> None:
        """Raise BadInput with the alternatives unless the chunk can be read."""
        self.second.check_chunk(chunk)

    @property
    def _among(self) -> Among:
        return Among(self.hook_names, self.where, lambda _: self._has, self.aliases)

    @property
    def _has(self) -> str:
        return f"has {few(self.hook_names)}"

    def _site(self, hook_name: str) -> tuple[Store, str]:
        """The store of a site, and its name there."""
        return self._sites[self.check_site(hook_name)]

    def _as_stored(self, store: Store) -> bool:
        """Whether a chunk of the pair is a chunk of that store."""
        same = store.manifest.chunk_rows == self.second.manifest.chunk_rows
        return store is self.second or (same and not self.aligned)

    def _gathered(
        self, store: Store, own: str, start: int | None, stop: int | None
    ) -> NDArray[np.float32]:
        """Rows of the pair from one of its stores, with one chunk of it in memory at a time."""
        if store is self.second or not self.aligned:
            return store.read(own, start, stop)
        rows = self._partner_rows(start, stop)
        out = np.empty((len(rows), store.manifest.width(own)), np.float32)
        chunks, begins = np.unique(rows // store.manifest.chunk_rows, return_index=True)
        for chunk, begin, end in zip(chunks, begins, [*begins[1:], len(rows)], strict=True):
            first, _ = store.rows_of_chunk(int(chunk))
            out[begin:end] = store.chunk(own, int(chunk))[rows[begin:end] - first]
        return out

    def _partner_rows(self, start: int | None, stop: int | None) -> Integers:
        """The rows of the first store that belong to rows of the pair, rising."""
        rows = self.second.column(PARTNER_ROW, start, stop)
        if len(rows) and (
            rows[0] < self.first.first_row
            or rows[-1] >= self.first.stop_row
            or (np.diff(rows) <= 0).any()
        ):
            here = f"rows {self.first.first_row}:{self.first.stop_row} of {self.first.where}"
            raise DamagedStore(
                f"{PARTNER_ROW} of {self.second.where} does not rise within {here}: pull all rows "
                "of both, or harvest the second again"
            )
        return rows

    def _describe(self) -> PairedManifest:
        stores = dict(zip(self.names, (self.first, self.second), strict=True))
        prints = [[name, store.manifest.fingerprint] for name, store in stores.items()]
        source = self.first.manifest.source
        return PairedManifest(
            self.second.manifest.rows,
            self.second.manifest.context_size,
            self.second.manifest.chunk_rows,
            {key: source[key] for key in ("text", "tokens", "tokenizer") if key in source}
            | {"model": _both(list(stores.values())), "paired": prints},
            hashlib.sha256(canonical({"paired": prints}).encode()).hexdigest()[:16],
            {
                name: self._sites[site][0].manifest.width(self._sites[site][1])
                for name, site in [*((name, name) for name in self._sites), *self.aliases.items()]
            },
        )


def _both(stores: Sequence[Store]) -> dict[str, Any]:
    """Name and digest that stand for two models."""
    models = [an_object(store.manifest.source.get("model")) for store in stores]
    digests = [model.get("weights_sha256") for model in models]
    both = hashlib.sha256(canonical(digests).encode()).hexdigest()
    return {
        "name": "+".join(str(model.get("name", "unknown")).split("/")[-1] for model in models),
        "weights_sha256": both if all(digests) else None,
    }
