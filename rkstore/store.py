"""Reading a store: rows of any site, columns, statistics, and whether every file is intact.

Nothing here can call a language model: this side of the shards needs NumPy and
the format's library, no torch and no transformers.
"""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from rkstore.codecs import Encoded, codec_named
from rkstore.errors import BadInput, DamagedStore
from rkstore.formats import ArraySpec, Shard, format_named
from rkstore.manifest import (
    COLUMNS,
    JOURNAL,
    MANIFEST,
    FileRecord,
    Manifest,
    read_journal,
    read_manifest,
)
from rkstore.statistics import Statistics

# Each open shard holds a file descriptor, and 1,024 are all that many systems give.
OPEN_SHARDS = 256

# What a writer leaves in the directory besides: its lock, and files not yet in place.
LOCK, ASIDE = ".lock", ".writing"


class Store:
    """An activation store, read-only. It sees the shards that were recorded when it was opened.

    Reading is safe from many threads at once.
    """

    def __init__(self, root: str | Path) -> None:
        """Open the store in that directory.

        Raises:
            BadInput: there is none, or it needs a newer rkstore.
            DamagedStore: its manifest or journal was changed.
        """
        self.root = Path(root)
        self.manifest: Manifest = read_manifest(self.root)
        self.records = read_journal(self.root, self.manifest)
        self.rows = self.manifest.rows_recorded(len(self.records))
        self._codec = codec_named(self.manifest.codec)
        self._format = format_named(self.manifest.format)
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether every shard of the manifest is recorded."""
        return len(self.records) == self.manifest.shards

    @property
    def chunks(self) -> int:
        """Recorded chunks of each site; the last may be shorter than the others."""
        return -(-self.rows // self.manifest.chunk_rows)

    def rows_of_chunk(self, chunk: int) -> tuple[int, int]:
        """First row, and the row behind the last, of a chunk."""
        start = chunk * self.manifest.chunk_rows
        return start, min(start + self.manifest.chunk_rows, self.rows)

    def chunk(self, hook_name: str, chunk: int) -> NDArray[np.float32]:
        """Activations of one chunk, decoded, ``(rows of the chunk, d_in)`` float32.

        Raises:
            BadInput: the site is not in the store.
            DamagedStore: the bytes are not what was written; names site, shard and rows.
        """
        self.check_site(hook_name)
        if not 0 <= chunk < self.chunks:
            raise BadInput(f"chunk {chunk} is not in {self.root}, which has {self.chunks} chunks")
        specs = self.manifest.specs(hook_name)
        shard, inside = divmod(chunk, specs[""].chunks_per_shard)
        values = self._read(specs[""], shard, inside)
        side = {name: self._read(specs[name], shard, 0)[inside] for name in self._codec.side}
        return self._codec.decode(Encoded(values, side))

    def read(self, hook_name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Activations of rows ``start`` to ``stop``, decoded, ``(stop - start, d_in)`` float32.

        Raises:
            BadInput: the site is not in the store, or the rows are not.
            DamagedStore: see :meth:`chunk`.
        """
        self.check_site(hook_name)
        start, stop = self._check_rows(start, stop)
        out = np.empty((stop - start, self.manifest.width(hook_name)), np.float32)
        for chunk in self._chunks_between(start, stop):
            first, last = self.rows_of_chunk(chunk)
            a, b = max(first, start), min(last, stop)
            out[a - start : b - start] = self.chunk(hook_name, chunk)[a - first : b - first]
        return out

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """``token_id``, ``document`` or ``position`` of rows ``start`` to ``stop``, int32.

        ``position`` counts from 0 inside the block that the model saw; ``document``
        counts the documents of the text.
        """
        if name not in COLUMNS:
            raise BadInput(f"unknown column '{name}': choose one of {', '.join(COLUMNS)}")
        start, stop = self._check_rows(start, stop)
        spec = self.manifest.column_specs()[name]
        out = np.empty(stop - start, COLUMNS[name])
        for chunk in self._chunks_between(start, stop):
            first, last = self.rows_of_chunk(chunk)
            a, b = max(first, start), min(last, stop)
            values = self._read(spec, *divmod(chunk, spec.chunks_per_shard))
            out[a - start : b - start] = values[a - first : b - first]
        return out

    def statistics(self, hook_name: str) -> Statistics:
        """Exact statistics of all recorded rows of a site, from before encoding."""
        self.check_site(hook_name)
        if not self.records:
            raise BadInput(f"the store at {self.root} has no rows yet: run its harvest again")
        shards = (self._shard_statistics(hook_name, shard) for shard in range(len(self.records)))
        return functools.reduce(Statistics.merge, shards)

    def _shard_statistics(self, hook_name: str, shard: int) -> Statistics:
        path = self.manifest.statistics_path(hook_name, shard)
        raw = self._checked_bytes(path, self.records[shard].files[path])
        try:
            statistics = Statistics.from_arrays(load_safetensors(raw))
        except (SafetensorError, KeyError, IndexError, ValueError, TypeError) as error:
            raise DamagedStore(f"{path} of {self.root} holds no statistics: {error}") from None
        first, last = self.manifest.rows_of_shard(shard)
        widths = {array.shape for array in statistics.as_arrays().values()} - {(1,)}
        if statistics.count != last - first or widths - {(self.manifest.width(hook_name),)}:
            raise DamagedStore(f"{path} of {self.root} holds statistics of other rows")
        return statistics

    def codec_fvu(self, hook_name: str) -> float:
        """Error of the stored values, as a fraction of the site's variance."""
        self.check_site(hook_name)
        error = sum(record.squared_error[hook_name] for record in self.records)
        total = float(self.statistics(hook_name).m2.sum())
        return error / total if total > 0 else 0.0

    def stored_bytes(self, hook_name: str | None = None) -> int:
        """Bytes on disk of one site's stored numbers, or of all recorded files."""
        prefixes = None
        if hook_name is not None:
            prefixes = tuple(f"{s.name}/" for s in self.manifest.specs(hook_name).values())
        return sum(
            file.bytes
            for record in self.records
            for path, file in record.files.items()
            if prefixes is None or (path.startswith(prefixes) and "/statistics/" not in path)
        )

    def site(self, layer: int | None = None, hook: str | None = None) -> str:
        """The one site that a layer and a hook name.

        Args:
            layer: transformer block; may be left out if only one site fits.
            hook: full name (``blocks.8.mlp.hook_post``) or the part behind the block.

        Raises:
            BadInput: no site fits, or several do; names what there is.
        """
        names = self.manifest.hook_names
        fitting = [
            name
            for name in names
            if (layer is None or name.startswith(f"blocks.{layer}."))
            and (hook is None or name == hook or name.split(".", 2)[-1] == hook)
        ]
        if len(fitting) == 1:
            return fitting[0]
        options = {"--layer": layer, "--hook": hook}
        asked = " and ".join(f"{k} {v}" for k, v in options.items() if v is not None)
        if not fitting:
            raise BadInput(f"{asked} is not in the store at {self.root}, which has {_few(names)}")
        raise BadInput(
            f"{asked or 'no --layer'} leaves {len(fitting)} sites to choose from "
            f"({_few(fitting)}): say which with --layer and --hook"
        )

    def check_site(self, hook_name: str) -> None:
        """Raise BadInput, naming what there is, unless the site is in the store."""
        if hook_name not in self.manifest.hook_names:
            raise BadInput(
                f"'{hook_name}' is not in the store at {self.root}, "
                f"which has {_few(self.manifest.hook_names)}"
            )

    def open_array(self, hook_name: str) -> Any:
        """The stored numbers of a site, not decoded, as Zarr or h5py hand them out."""
        self.check_site(hook_name)
        opened = self._format.open_array(self.root, self.manifest.specs(hook_name)[""])
        # Files behind the last recorded shard are no part of the store.
        return opened[: len(self.records)] if isinstance(opened, list) else opened

    def _check_rows(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.rows if stop is None else stop
        if not 0 <= start <= stop <= self.rows:
            raise BadInput(f"rows {start}:{stop} are not in the store, which has {self.rows}")
        return start, stop

    def _chunks_between(self, start: int, stop: int) -> range:
        size = self.manifest.chunk_rows
        return range(start // size, -(-stop // size))

    def _read(self, spec: ArraySpec, shard: int, chunk: int) -> np.ndarray:
        try:
            return self._open(spec, shard).chunk(chunk)
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            first, last = self.manifest.rows_of_shard(shard)
            raise DamagedStore(
                f"{spec.name}, shard {shard} (rows {first}:{last}) of {self.root} is damaged: "
                f"{error}; 'rkstore verify' lists every damaged file"
            ) from None

    def _open(self, spec: ArraySpec, shard: int) -> Shard:
        key = (spec.name, shard)
        with self._lock:
            if key in self._shards:
                self._shards.move_to_end(key)
                return self._shards[key]
            path = self._format.shard_path(spec, shard)
            recorded = self.records[shard].files.get(path)
            size = (self.root / path).stat().st_size
            if recorded is None or size != recorded.bytes:
                stated = "none" if recorded is None else f"{recorded.bytes:,}"
                raise ValueError(f"{path} has {size:,} bytes, {stated} are recorded")
            first, last = self.manifest.rows_of_shard(shard)
            rows = self.manifest.array_rows(spec, last - first)
            opened = self._format.open_shard(self.root / path, spec, rows)
            self._shards[key] = opened
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
            return opened

    def _checked_bytes(self, path: str, recorded: FileRecord) -> bytes:
        try:
            raw = (self.root / path).read_bytes()
        except OSError as error:
            raise DamagedStore(f"{path} of {self.root} cannot be read: {error}") from None
        if hashlib.sha256(raw).hexdigest() != recorded.sha256:
            raise DamagedStore(f"{path} of {self.root} was changed after it was written")
        return raw


@dataclass(frozen=True)
class Problem:
    """A file that is not as recorded, and in what way."""

    path: str
    what: str


def verify(store: Store, advance: Callable[[int], object] = lambda _: None) -> Iterator[Problem]:
    """Compare every file of a store with what was recorded of it.

    Args:
        advance: told the bytes of each file once it is checked.

    Yields:
        One problem for each file that was changed, cut short, lost or added.
    """
    expected: dict[str, FileRecord] = {}
    for record in store.records:
        expected |= record.files
    for path, recorded in expected.items():
        yield from _compare(store.root, path, recorded)
        advance(recorded.bytes)
    metadata = store.manifest.metadata(store.rows) if store.records else {}
    for path, content in metadata.items():
        file = store.root / path
        if not file.is_file():
            yield Problem(path, "is missing")
        elif file.read_bytes() != content:
            yield Problem(path, "was changed")
    known = expected.keys() | metadata.keys() | {MANIFEST, JOURNAL, LOCK}
    for file in sorted(store.root.rglob("*")):
        path = file.relative_to(store.root).as_posix()
        if not file.is_dir() and path not in known:
            what = (
                "was left by an interrupted write" if path.startswith(ASIDE) else "is not recorded"
            )
            yield Problem(path, what)


def _compare(root: Path, path: str, recorded: FileRecord) -> Iterator[Problem]:
    file = root / path
    if not file.is_file():
        yield Problem(path, "is missing")
    elif (size := file.stat().st_size) != recorded.bytes:
        yield Problem(path, f"has {size:,} bytes where {recorded.bytes:,} were written")
    elif sha256(file) != recorded.sha256:
        yield Problem(path, "was changed")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_store(path: str | Path | None, under: str | Path = "stores") -> Path:
    """The directory asked for, or the only store under ``stores/``.

    Raises:
        BadInput: there is none, or there are several; lists them.
    """
    if path is not None:
        return Path(path)
    found = sorted(file.parent for file in Path(under).glob(f"*/{MANIFEST}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(f"there is no store under {under}/: write one with 'rkstore harvest'")
    raise BadInput(
        f"there are {len(found)} stores under {under}/ "
        f"({', '.join(str(path) for path in found)}): say which with --store"
    )


def _few(names: list[str], most: int = 16) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
