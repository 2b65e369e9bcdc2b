"""Reading a store: rows of any site, columns, statistics.

It needs NumPy and the library of the format, neither torch nor a language model.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkstore.errors import BadInput, DamagedStore, few
from rkstore.store.attached import DOCUMENT_IDS, TOKENIZER, ids_in
from rkstore.store.codecs import Codec, Encoded
from rkstore.store.contents import Contents, read_contents
from rkstore.store.files import FileRecord, named, read_small, reading
from rkstore.store.lookup import Lookup
from rkstore.store.shards import ShardFiles
from rkstore.store.sites import Among, Hooks
from rkstore.store.statistics import ShardStatistics, Statistics
from rkstore.store.words import Words


class Store(ShardFiles, Lookup):
    """An activation store, read-only. It sees the shards that were recorded when it was opened.

    The directory may hold a part of a store. Rows and chunks keep the numbers they have in
    the whole: ``rows`` and ``chunks`` count those of the whole, ``first_row``, ``stop_row``
    and ``chunk_range`` say which are here, ``hook_names`` the sites, ``pairs`` the pairs of them,
    ``aliases`` their other names.

    Reading is safe from many threads at once. A store can be pickled, for another process:
    the copy sees the same shards.
    """

    def __init__(self, root: str | Path) -> None:
        """Open the store in that directory.

        Raises:
            BadInput: there is none, or it needs a newer rkstore.
            DamagedStore: its manifest or journal was changed.
            RkstoreError: the system does not let it be read.
        """
        self.root = named(root)
        self.where = str(self.root)
        self._hold(read_contents(functools.partial(read_small, self.root), self.where))

    def _hold(self, contents: Contents) -> None:
        self.manifest, self.records = contents.manifest, contents.records
        self.part, self.held = contents.part, contents.held
        self.pairs = self.manifest.pairs_among(self.held.sites)
        self.aliases = self.manifest.aliases_among(self.held.sites)
        self.rows = self.manifest.rows_recorded(len(self.records))
        self.codec = self.manifest.stored_codec
        self._begin_reading()

    def __getstate__(self) -> dict[str, Any]:
        """The state without open files: the copy may be in another directory."""
        kept = {name: getattr(self, name) for name in ("where", "manifest", "records", "part")}
        return kept | {"root": self.root.absolute()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root, self.where = state["root"], state["where"]
        self._hold(Contents(state["manifest"], state["records"], state["part"]))

    @property
    def name(self) -> str:
        """The last part of its directory or URL."""
        return self.root.absolute().name

    @property
    def complete(self) -> bool:
        """Whether every shard of the manifest is recorded."""
        return len(self.records) == self.manifest.shards

    @property
    def hook_names(self) -> list[str]:
        """The readable sites."""
        return list(self.held.sites)

    @property
    def shards(self) -> range:
        """The readable shards."""
        return self.held.shards

    @property
    def first_row(self) -> int:
        """The first readable row: 0 unless this is a part that starts later."""
        return self.shards.start * self.manifest.shard_rows

    @property
    def stop_row(self) -> int:
        """One past the last readable row."""
        return self.manifest.rows_recorded(self.shards.stop)

    @property
    def chunks(self) -> int:
        """Recorded chunks of each site; the last may be shorter than the others."""
        return -(-self.rows // self.manifest.chunk_rows)

    @property
    def chunk_range(self) -> range:
        """The readable chunks."""
        return self._chunks_between(self.first_row, self.stop_row)

    def rows_of_chunk(self, chunk: int) -> tuple[int, int]:
        """First row, and one past the last, of a chunk."""
        start = chunk * self.manifest.chunk_rows
        return start, min(start + self.manifest.chunk_rows, self.rows)

    def chunk(self, hook_name: str, chunk: int) -> NDArray[np.float32]:
        """Activations of one chunk, decoded, ``(rows of the chunk, d_in)`` float32.

        In an uncompressed float32 store they are a read-only view of the mapped file.

        Raises:
            BadInput: the site is not in the store.
            DamagedStore: the bytes are not what was written; names site, shard and rows.
            RkstoreError: the system does not let them be read.
        """
        return self.codec.decode(self.stored_chunk(hook_name, chunk))

    def codec_of(self, hook_name: str) -> Codec:  # noqa: ARG002 - in a pair, sites may differ
        """The codec of a site's chunks."""
        return self.codec

    @contextmanager
    def ahead(self, hook_names: Sequence[str], chunks: Iterable[int]) -> Iterator["Store"]:  # noqa: ARG002
        """This store, to read these chunks of these sites from, about in this order.

        A store at a URL fetches them before they are read.

        Args:
            chunks: may be endless. Iterated more than once, and by other threads.

        Raises:
            BadInput: a site is not in the store.
        """
        yield self

    def stored_chunk(self, hook_name: str, chunk: int, out: NDArray[Any] | None = None) -> Encoded:
        """One encoded chunk, ``(rows of the chunk, d_in)``, for the store's ``codec``.

        Its rows can be decoded separately, and it takes a quarter of the memory in int8.

        Args:
            out: contiguous memory that may be used for its values, of the codec's type and their
                shape. If it was, they are ``out`` itself.

        Raises:
            BadInput, RkstoreError: see :meth:`chunk`.
        """
        hook_name = self.check_site(hook_name)
        self.check_chunk(chunk)
        specs = self.manifest.specs(hook_name)
        shard, within = divmod(chunk, specs[""].chunks_per_shard)
        values = self._read(specs[""], shard, within, out)
        # If a codec is fitted per shard, all chunks use the first and only row.
        at = within if self.codec.side_of == "chunk" else 0
        side = {name: self._side(specs[name], shard)[at] for name in self.codec.side}
        return Encoded(values, side, self._apart(hook_name, shard, within, len(values)))

    def read(
        self, hook_name: str, start: int | None = None, stop: int | None = None
    ) -> NDArray[np.float32]:
        """Activations of rows ``start`` to ``stop``, decoded, ``(stop - start, d_in)`` float32.

        By default, all readable rows.

        Raises:
            BadInput: the site is not in the store, or the rows are not.
            RkstoreError: see :meth:`chunk`.
        """
        hook_name = self.check_site(hook_name)
        start, stop = self._check_rows(start, stop)
        out = np.empty((stop - start, self.manifest.width(hook_name)), np.float32)
        self._fill(out, start, lambda chunk: self.chunk(hook_name, chunk))
        return out

    def column(
        self, name: str, start: int | None = None, stop: int | None = None
    ) -> NDArray[np.signedinteger[Any]]:
        """``token_id``, ``document`` or ``position`` of rows ``start`` to ``stop``, int32.

        ``position`` counts from 0 within the block; ``document`` is the number of the file, or of
        the row of the split, that the text came from. An aligned store also has ``partner_row``.
        """
        specs = self.manifest.column_specs()
        if name not in specs:
            raise BadInput(f"unknown column '{name}': choose one of {', '.join(specs)}")
        start, stop = self._check_rows(start, stop)
        spec = specs[name]
        per_shard = spec.chunks_per_shard
        out = np.empty(stop - start, spec.dtype)
        self._fill(out, start, lambda chunk: self._read(spec, *divmod(chunk, per_shard)))
        return out

    def statistics(self, hook_name: str) -> Statistics:
        """Exact statistics of all readable rows of a site, before encoding."""
        return self._statistics(hook_name).all

    def ordinary_statistics(self, hook_name: str) -> Statistics:
        """The same for the rows that are not massive (:mod:`rkstore.store.massive`).

        In a store of schema 1, or if every row is massive, for all rows.
        """
        found = self._statistics(hook_name)
        return found.ordinary or found.all

    def massive_rows(self, hook_name: str) -> int:
        """How many readable rows of a site are massive; 0 in schema 1, which does not record it."""
        return self._statistics(hook_name).massive

    def _statistics(self, hook_name: str) -> ShardStatistics:
        hook_name = self.check_site(hook_name)
        if not self.shards:
            raise BadInput(f"the store at {self.where} has no rows yet: run its harvest again")
        shards = (self._shard_statistics(hook_name, shard) for shard in self.shards)
        return functools.reduce(ShardStatistics.merge, shards)

    def _shard_statistics(self, hook_name: str, shard: int) -> ShardStatistics:
        path = self.manifest.statistics_path(hook_name, shard)
        raw = self._checked_bytes(path, self.records[shard].files[path])
        first, last = self.manifest.rows_of_shard(shard)
        try:
            return ShardStatistics.from_bytes(raw, last - first, self.manifest.width(hook_name))
        except ValueError as error:
            raise DamagedStore(f"{path} of {self.where} holds no statistics: {error}") from None

    def codec_fvu(self, hook_name: str) -> float:
        """Error of the stored values of ordinary rows, as a fraction of their variance.

        In schema 1, of all rows. The error that imported values already had is added, as the two
        are independent.
        """
        hook_name = self.check_site(hook_name)
        total = float(self.ordinary_statistics(hook_name).m2.sum())
        error = sum(self.records[shard].squared_error[hook_name] for shard in self.shards)
        return self.manifest.fvu_before(hook_name) + (error / total if total > 0 else 0.0)

    def massive_error(self, hook_name: str) -> float:
        """Error of the stored values of massive rows, as a fraction of the sum of their ‖x‖²."""
        hook_name = self.check_site(hook_name)
        known = self._statistics(hook_name)
        if not known.massive:
            return 0.0
        errors = (self.records[shard].massive_error or {} for shard in self.shards)
        return sum(error.get(hook_name, 0.0) for error in errors) / known.massive_square

    def stored_bytes(self, hook_name: str | None = None) -> int:
        """Bytes on disk of one site's stored numbers, or of all expected files."""
        files = list(self.files().items())
        if hook_name is not None:
            arrays = tuple(f"{spec.name}/" for spec in self.manifest.specs(hook_name).values())
            files = [(p, f) for p, f in files if p.startswith(arrays) and "/statistics/" not in p]
        return sum(file.bytes for _, file in files)

    def files(self) -> dict[str, FileRecord]:
        """The record of each expected file, by path."""
        return self.held.files(self.manifest, self.records)

    def file(self, path: str) -> bytes:
        """The content of a file of the whole store, such as its tokenizer.

        Raises:
            BadInput: the store has no such file.
            DamagedStore: it is not what was written.
            RkstoreError: the system does not let it be read.
        """
        if path not in self.manifest.files:
            raise BadInput(f"the store at {self.where} has no {path}")
        return self._checked_bytes(path, self.manifest.files[path])

    @property
    def has_words(self) -> bool:
        """Whether the tokenizer is in the store."""
        return TOKENIZER in self.manifest.files

    @functools.cached_property
    def words(self) -> Words:
        """The tokenizer in the store, for the words of its tokens.

        Raises:
            BadInput: it has none: it is older, an import, or the model's tokenizer is a slow one.
        """
        if not self.has_words:
            raise BadInput(
                f"the store at {self.where} has no tokenizer, so its tokens have no words: harvest "
                "it again, with a fast tokenizer (tokenizer.json)"
            )
        return Words(self.file(TOKENIZER), self.where)

    @functools.cached_property
    def document_ids(self) -> dict[int, Any]:
        """The documents' own ids by their numbers, of ``harvest --id-column``; else empty."""
        if DOCUMENT_IDS not in self.manifest.files:
            return {}
        try:
            return ids_in(self.file(DOCUMENT_IDS))
        except ValueError as error:
            raise DamagedStore(f"{DOCUMENT_IDS} of {self.where} is damaged: {error}") from None

    def in_text(self, start: int, stop: int) -> tuple["Store", NDArray[np.int64]]:
        """This store, and these rows: its blocks are whole, unless they have one row each."""
        return self, np.arange(start, stop)

    def site(self, layer: str | int | None = None, hook: Hooks = None) -> str:
        """The one site that a layer and a hook name; either may be left out if one site fits.

        Args:
            layer: transformer block.
            hook: full name (``blocks.8.mlp.hook_post``), the part after the block, or a glob.

        Raises:
            BadInput: no site fits, or several do; lists the alternatives.
        """
        return self._among.one(layer, hook)

    def sites(self, layers: str | int | None = None, hooks: Hooks = None) -> list[str]:
        """The sites that any of the hooks names in the layers: see :meth:`Among.chosen`."""
        return self._among.chosen(layers, hooks)

    @property
    def _among(self) -> Among:
        return Among(self.hook_names, f"the store at {self.where}", self._has, self.aliases)

    def check_site(self, hook_name: str) -> str:
        """The site of that name or alias; raises BadInput with the alternatives if none is here."""
        site = self.aliases.get(hook_name, hook_name)
        if site in self.held.sites:
            return site
        raise BadInput(f"'{hook_name}' is not in the store at {self.where}, which {self._has()}")

    def check_chunk(self, chunk: int) -> None:
        """Raise BadInput with the alternatives unless the chunk can be read."""
        if chunk not in self.chunk_range:
            elsewhere = self.part is not None and 0 <= chunk < self.chunks
            has = self._has() if elsewhere else f"has {self.chunks} chunks, counted from 0"
            raise BadInput(f"chunk {chunk} is not in the store at {self.where}, which {has}")

    def open_array(self, hook_name: str) -> Any:
        """The encoded numbers of a site, as Zarr or h5py arrays; raises as :meth:`chunk`."""
        hook_name = self.check_site(hook_name)
        spec = self.manifest.specs(hook_name)[""]
        try:
            with reading(hook_name, self.where):
                return self._format.open_array(self.root, spec, self.shards)
        except (OSError, KeyError, ValueError) as error:
            raise DamagedStore(f"{hook_name} of {self.where} is damaged: {error}") from None

    def _check_rows(self, start: int | None, stop: int | None) -> tuple[int, int]:
        start = self.first_row if start is None else start
        stop = self.stop_row if stop is None else stop
        if self.first_row <= start <= stop <= self.stop_row:
            return start, stop
        has = f"has {self.rows}" if self.part is None else self._has()
        raise BadInput(f"rows {start}:{stop} are not in the store, which {has}")

    def _has(self, _: str = "") -> str:
        """The readable range, to end a sentence about an unreadable one."""
        if self.part is None:
            return f"has {few(self.hook_names)}"
        return (
            f"is a part, with {few(self.hook_names) or 'no site'} and rows "
            f"{self.first_row}:{self.stop_row} of {self.rows}: {self._how_to_get_more()}"
        )

    def _how_to_get_more(self) -> str:
        return f"'rkstore pull URL --out {self.where}' fetches more"

    def _fill(self, out: np.ndarray, start: int, values: Callable[[int], np.ndarray]) -> None:
        """Fill rows from ``start`` on with the values of each chunk."""
        stop = start + len(out)
        for chunk in self._chunks_between(start, stop):
            first, last = self.rows_of_chunk(chunk)
            a, b = max(first, start), min(last, stop)
            out[a - start : b - start] = values(chunk)[a - first : b - first]

    def _chunks_between(self, start: int, stop: int) -> range:
        size = self.manifest.chunk_rows
        return range(start // size, -(-stop // size))
