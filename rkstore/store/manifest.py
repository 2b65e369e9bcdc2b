"""The manifest of a store (``manifest.json``): sites, sizes, codec, format, source.

The manifest is written once, before the first shard, and never changes: it holds everything
that determines a stored value, and its fingerprint names the store.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rkstore.store.codecs import Codec, codec_named
from rkstore.store.files import FileRecord
from rkstore.store.formats import FORMATS, ArraySpec, format_named
from rkstore.store.jsontext import canonical
from rkstore.store.sites import Pair, Site

# 2: massive rows and out-of-range entries are kept apart; errors exclude massive rows.
SCHEMA = 2

# What only some stores have needs a later schema: columns besides the three of every store, files
# besides the shards, other names of sites. Only such a store states that schema, so that an older
# rkstore refuses it and reads all others. By the key of the manifest that states it.
MORE_COLUMNS_SCHEMA, FILES_SCHEMA = 3, 4
NEEDED = {"more_columns": MORE_COLUMNS_SCHEMA, "files": FILES_SCHEMA, "aliases": FILES_SCHEMA}

# Rows decoded at once. Large enough for compression and threads, small enough that a shuffled
# window of many chunks fits in memory: 3 MB of float16 at GPT-2's width.
CHUNK_ROWS = 512

# Columns of every row, stored once and not per site.
COLUMNS = {
    "token_id": np.dtype("<i4"),
    "document": np.dtype("<i4"),
    "position": np.dtype("<i4"),
}

# The row of another store with the same token, in a store that is aligned to it.
PARTNER_ROW = "partner_row"

# Columns that only some stores have.
MORE_COLUMNS = {PARTNER_ROW: np.dtype("<i8")}

# A name becomes a directory: no separators, no leading dot, no special characters.
SITE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# Where the statistics of a site over the rows of a shard lie, and what is kept apart of them.
STATISTICS, APART = "{}/statistics/%05d.safetensors", "{}/apart/%05d.safetensors.zst"


@dataclass(frozen=True)
class Manifest:
    """Everything that determines the bytes of a store."""

    rows: int
    """Rows of the finished store; fewer may be recorded so far."""
    context_size: int
    """Tokens in a block; rows ``[i * context_size, (i + 1) * context_size)`` are one block."""
    shard_rows: int
    chunk_rows: int
    codec: str
    format: str
    sites: tuple[Site, ...]
    source: dict[str, Any]
    """Where the values came from: model, tokenizer, text, tokens, libraries."""
    compression: str = ""
    """Of the activations; by default, and for all other arrays, the first of the format's."""
    pairs: tuple[Pair, ...] = ()
    """Sites that belong together: what an MLP reads, and what it writes."""
    schema: int = 0
    """By default, the earliest that has all that the store has."""
    more_columns: tuple[str, ...] = ()
    """Which of ``MORE_COLUMNS`` there are."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    """Files of the whole store besides its shards, by path (:mod:`rkstore.store.attached`)."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of the sites, by which they can be asked for."""

    def __post_init__(self) -> None:
        if self.compression == "":
            object.__setattr__(self, "compression", self._usual_compression)
        if self.schema == 0:
            object.__setattr__(self, "schema", self.needed_schema)

    @property
    def needed_schema(self) -> int:
        """The earliest schema that is written and has all that the store has."""
        return max([SCHEMA, *(least for key, least in NEEDED.items() if getattr(self, key))])

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the store."""
        named = self._as_dict() if self.schema == 1 else self._stated
        return hashlib.sha256(canonical(named).encode()).hexdigest()[:16]

    @property
    def stored_codec(self) -> Codec:
        """The codec of that name in this store's schema."""
        return codec_named(self.codec, self.schema)

    @cached_property
    def columns(self) -> dict[str, np.dtype]:
        """The dtype of each column."""
        return COLUMNS | {name: MORE_COLUMNS[name] for name in self.more_columns}

    @cached_property
    def hook_names(self) -> list[str]:
        return [site.hook_name for site in self.sites]

    @cached_property
    def _widths(self) -> dict[str, int]:
        return {site.hook_name: site.width for site in self.sites}

    def pairs_among(self, hook_names: Collection[str]) -> tuple[Pair, ...]:
        """The pairs whose two sites are both among these."""
        return tuple(pair for pair in self.pairs if {pair.reads, pair.writes} <= {*hook_names})

    def aliases_among(self, hook_names: Collection[str]) -> dict[str, str]:
        """The other names of these sites, each with the site."""
        return {alias: site for alias, site in self.aliases.items() if site in hook_names}

    @property
    def _usual_compression(self) -> str:
        return FORMATS[self.format].compressions[0] if self.format in FORMATS else ""

    @property
    def shards(self) -> int:
        """Shards of the finished store."""
        return -(-self.rows // self.shard_rows)

    def rows_of_shard(self, shard: int) -> tuple[int, int]:
        """First row, and one past the last, of a shard."""
        start = shard * self.shard_rows
        return start, min(start + self.shard_rows, self.rows)

    def rows_recorded(self, shards: int) -> int:
        """Rows in the first ``shards`` shards."""
        return min(shards * self.shard_rows, self.rows)

    def width(self, hook_name: str) -> int:
        """Dimensions of a site, also by another name of it."""
        return self._widths[self.aliases.get(hook_name, hook_name)]

    def fvu_before(self, hook_name: str) -> float:
        """Error that the values already had if they were imported from another store's export."""
        before = self.source.get("stored_before", {"codec_fvu": {}})
        return float(before["codec_fvu"].get(hook_name, 0.0))

    def specs(self, hook_name: str) -> dict[str, ArraySpec]:
        """The arrays of one site: ``""`` its values, then what its codec needs to decode them."""
        return self._specs[self.aliases.get(hook_name, hook_name)]

    @cached_property
    def _specs(self) -> dict[str, dict[str, ArraySpec]]:
        return {site.hook_name: self._specs_of(site.hook_name) for site in self.sites}

    def _specs_of(self, hook_name: str) -> dict[str, ArraySpec]:
        codec, width = self.stored_codec, self.width(hook_name)
        per_shard = self.shard_rows // self.chunk_rows if codec.side_of == "chunk" else 1
        values = ArraySpec(
            hook_name,
            codec.dtype,
            width,
            self.shard_rows,
            self.chunk_rows,
            self.compression,
            (("rkstore_codec", self.codec), ("rkstore_store", self.fingerprint)),
        )
        sides = {
            side: ArraySpec(
                f"{hook_name}.{side}",
                np.dtype("<f4"),
                width,
                per_shard,
                per_shard,
                self._usual_compression,
            )
            for side in codec.side
        }
        return {"": values} | sides

    def column_specs(self) -> dict[str, ArraySpec]:
        """The arrays of token id, document, position, and of more columns if there are any."""
        return {
            name: ArraySpec(
                name, dtype, None, self.shard_rows, self.chunk_rows, self._usual_compression
            )
            for name, dtype in self.columns.items()
        }

    def array_rows(self, spec: ArraySpec, rows: int) -> int:
        """How many rows of an array belong to the first ``rows`` rows of the store."""
        return -(-rows * spec.shard_rows // self.shard_rows)

    def all_specs(self, hook_names: Sequence[str] | None = None) -> list[ArraySpec]:
        """Every array of the store, or of these sites and the columns."""
        names = self.hook_names if hook_names is None else hook_names
        sites = [spec for name in names for spec in self.specs(name).values()]
        return [*sites, *self.column_specs().values()]

    def statistics_path(self, hook_name: str, shard: int) -> str:
        """Where the statistics of a site over the rows of one shard lie."""
        return STATISTICS.format(hook_name) % shard

    def apart_path(self, hook_name: str, shard: int) -> str:
        """Where what a codec keeps apart of the rows of one shard lies."""
        return APART.format(hook_name) % shard

    def shard_paths(self, shard: int, hook_names: Sequence[str] | None = None) -> list[str]:
        """Every file of a shard, or those of these sites and the columns, relative to the store."""
        return [pattern % shard for pattern in self.path_patterns(hook_names)]

    def path_patterns(self, hook_names: Sequence[str] | None = None) -> list[str]:
        """The same of the shard whose number takes the place of ``%d`` in each."""
        layout = format_named(self.format)
        names = self.hook_names if hook_names is None else hook_names
        arrays = [layout.path_pattern(spec) for spec in self.all_specs(names)]
        beside = [STATISTICS.format(name) for name in names]
        if self.stored_codec.keeps_apart:
            beside += [APART.format(name) for name in names]
        return arrays + beside

    def metadata(self, rows: int, hook_names: Sequence[str] | None = None) -> dict[str, bytes]:
        """Files, by path, that let other tools open the arrays as far as ``rows`` rows."""
        specs = self.all_specs(hook_names)
        return format_named(self.format).metadata({s: self.array_rows(s, rows) for s in specs})

    def to_bytes(self) -> bytes:
        """The canonical text of ``manifest.json``."""
        named = {"rkstore_schema": self.schema, "fingerprint": self.fingerprint} | self._stated
        text = json.dumps(named, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    def differences(self, other: "Manifest") -> list[str]:
        """Differences to another manifest, as ``key: there, not here``."""
        mine, theirs = _leaves(self._stated), _leaves(other._stated)
        return [
            f"{'.'.join(key)}: {theirs.get(key, 'absent')} there, {mine.get(key, 'absent')} here"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    @property
    def _stated(self) -> dict[str, Any]:
        return {"rkstore_schema": self.schema} | self._as_dict()

    def _as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "context_size": self.context_size,
            "shard_rows": self.shard_rows,
            "chunk_rows": self.chunk_rows,
            "codec": self.codec,
            "format": self.format,
            # Written only if it is not the default: the first stores lacked the key.
            **(
                {}
                if self.compression == self._usual_compression
                else {"compression": self.compression}
            ),
            "sites": [{"hook_name": site.hook_name, "d_in": site.width} for site in self.sites],
            # Written only if there are any: earlier stores lacked the key.
            **({"pairs": [asdict(pair) for pair in self.pairs]} if self.pairs else {}),
            **({"more_columns": list(self.more_columns)} if self.more_columns else {}),
            **({"aliases": dict(self.aliases)} if self.aliases else {}),
            **(
                {"files": {p: vars(self.files[p]) for p in sorted(self.files)}}
                if self.files
                else {}
            ),
            "source": self.source,
        }


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of ``n`` that is at most ``most``: how a shard is cut in chunks."""
    return next(size for size in range(min(n, most), 0, -1) if n % size == 0)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """The JSON text of every leaf, by the path of keys."""
    if not isinstance(value, dict) or not value:
        return {path: value if isinstance(value, str) else canonical(value)}
    leaves: dict[tuple[str, ...], str] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, (*path, str(key)))
    return leaves
