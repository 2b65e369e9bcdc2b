"""SAELens' cached activations: an Arrow dataset, one row per block, one column per hook."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rkstore.errors import BadInput, one_line
from rkstore.share.exchange import facts as exported
from rkstore.share.exchange.base import Column, Exporter, Floats, Importer, Source
from rkstore.share.exchange.facts import facts_beside
from rkstore.share.exchange.matrices import agreed, blocks_between, cut, float32
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.store.manifest import COLUMNS
from rkstore.store.natural import natural
from rkstore.store.places import hub
from rkstore.store.sites import Site

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

TOKENS = "token_ids"
STATE = "state.json"

# The columns of the dataset that are rkstore's columns.
NAMED = {TOKENS if name == "token_id" else name: name for name in COLUMNS}

# Keys in the state of a saved dataset. Old versions also stored an order of its rows.
KNOWN = {
    "_data_files",
    "_fingerprint",
    "_format_columns",
    "_format_kwargs",
    "_format_type",
    "_output_all_columns",
    "_split",
}

# Bytes of one record batch: what a reader of the dataset maps and decodes at once.
BATCH_BYTES = 16 * 2**20


class FromSaelens(Importer):
    """Reads what ``CacheActivationsRunner`` writes, with any number of hooks."""

    name = "saelens"

    def open(self, path: Path, settings: "ImportSettings") -> Source:
        data = _loaded(path)
        shapes = _shapes(path, data, settings.hook_name)
        names = list(shapes)
        size = agreed(str(path), *(shape[0] for shape in shapes.values())) or 1
        facts = facts_beside(path)
        if facts:
            facts.check(str(path / exported.FILE), names, len(data) * size)
            agreed(str(path), size, facts.context_size)
        files = [Path(file["filename"]) for file in data.cache_files]
        files += [path / exported.FILE] if facts else []
        blocks = data.with_format("numpy")
        # The 'document' of another program may be anything, such as a text.
        taken = [n for n in (NAMED if facts else [TOKENS]) if n in data.column_names]

        def rows(column: str, start: int, stop: int) -> np.ndarray:
            part = blocks.select_columns([column])[blocks_between(start, stop, size)]
            return _rows(np.asarray(part[column]), start, stop, size)

        def read(start: int, stop: int) -> dict[str, Floats]:
            return {n: float32(rows(n, start, stop)).reshape(stop - start, -1) for n in names}

        def column(name: str) -> Column:
            return lambda start, stop: rows(name, start, stop)

        return Source(
            sites=tuple(Site(name, int(np.prod(shape[1:]))) for name, shape in shapes.items()),
            arrays={name: name for name in names},
            rows=len(data) * size,
            read=read,
            files={file.name: file for file in files},
            dtype=", ".join(sorted({data.features[name].dtype for name in names})),
            columns={NAMED[name]: column(name) for name in taken},
            context_size=size,
            facts=facts,
        )


class ToSaelens(Exporter):
    """Writes what ``CacheActivationsRunner`` writes, with any number of hooks."""

    name = "saelens"
    reserved = (TOKENS,)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        datasets = _datasets()
        from datasets.arrow_writer import ArrowWriter

        store, manifest = outgoing.store, outgoing.store.manifest
        size, hook_names = manifest.context_size, outgoing.hook_names
        known = outgoing.columns()
        columns = {name: ours for name, ours in NAMED.items() if ours in known}
        ids = datasets.Sequence(datasets.Value("int32"), length=size)
        features = datasets.Features(
            {
                name: datasets.Array2D((size, outgoing.width(name)), str(outgoing.dtype))
                for name in hook_names
            }
            | dict.fromkeys(columns, ids)
        )
        per_block = size * sum(map(outgoing.width, hook_names)) * outgoing.dtype.itemsize
        files = [f"data-{n:05d}-of-{len(store.shards):05d}.arrow" for n in range(len(store.shards))]
        # One file per shard, written once: Dataset.from_generator would write every value to its
        # cache first and copy it.
        for shard, file in zip(store.shards, files, strict=True):
            first, last = manifest.rows_of_shard(shard)
            batch: dict[str, np.ndarray] = {
                name: outgoing.values(name, first, last).reshape(-1, size, outgoing.width(name))
                for name in hook_names
            }
            for name, ours in columns.items():
                batch[name] = store.column(ours, first, last).reshape(-1, size)
            with ArrowWriter(features=features, path=str(out / file)) as writer:
                writer.write_batch(batch, writer_batch_size=max(1, BATCH_BYTES // per_block))
                writer.finalize()
        datasets.DatasetInfo(features=features).write_to_directory(str(out))
        (out / exported.FILE).write_text(outgoing.facts().to_text(), "ascii")
        state: dict[str, Any] = dict.fromkeys(sorted(KNOWN)) | {
            "_data_files": [{"filename": name} for name in files],
            "_fingerprint": manifest.fingerprint,
            "_format_kwargs": {},
            "_output_all_columns": False,
        }
        (out / STATE).write_text(json.dumps(state, indent=2, allow_nan=False) + "\n", "utf-8")


def _shapes(path: Path, data: Any, asked: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of a block in each requested column, or in all with activations.

    Raises:
        BadInput: there is none, or one does not hold activations.
    """
    shapes = {
        name: feature.shape
        for name, feature in data.features.items()
        if len(getattr(feature, "shape", ())) in (2, 3)
        and feature.dtype in ("float32", "float16", "float64")
    }
    names = asked or tuple(sorted(shapes, key=natural))
    for name in names or ("",):
        if name not in shapes:
            raise BadInput(
                f"{path} has no column {name or 'of activations'} of shape (context_size, "
                f"d_in) and floats: its columns are {', '.join(data.column_names)}"
            )
    return {name: shapes[name] for name in names}


def _datasets() -> Any:
    hub.fail_fast()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _loaded(path: Path) -> Any:
    if not (path / STATE).is_file():
        raise BadInput(f"{path} is not a dataset that 'datasets' saved (it has no {STATE})")
    _check_state(path / STATE)
    try:
        data = _datasets().load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be loaded: {one_line(error, 200)}") from None
    if any(Path(file["filename"]).parent.resolve() != path.resolve() for file in data.cache_files):
        raise BadInput(f"{path} names data files outside it: copy them into it")
    if not len(data):
        raise BadInput(f"{path} has no rows")
    return data


def _check_state(path: Path) -> None:
    """Raise BadInput if the state of the dataset would silently change its rows."""
    try:
        state = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        raise BadInput(f"{path} is not what 'datasets' saves") from None
    unknown = [key for key, value in state.items() if key not in KNOWN and value]
    if unknown:
        raise BadInput(f"{path} has '{unknown[0]}', which rkstore does not know: save it again")


def _rows(blocks: np.ndarray, start: int, stop: int, size: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` out of the whole blocks that hold them."""
    if blocks.shape[:2] != (-(-stop // size) - start // size, size):
        raise ValueError(f"blocks have shape {blocks.shape[1:]}, not {size} rows each")
    return cut(blocks.reshape(-1, *blocks.shape[2:]), start, stop, size)
