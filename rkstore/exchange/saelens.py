"""SAELens' cached activations: an Arrow dataset, one row a block, one column a hook."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rkstore import hub
from rkstore.errors import BadInput
from rkstore.exchange.base import (
    Exporter,
    Floats,
    Importer,
    Source,
    float32,
    known_tokens,
    narrowed,
)
from rkstore.manifest import Site
from rkstore.settings import ImportSettings
from rkstore.store import Store

TOKENS = "token_ids"

# Bytes of one record batch: what a reader of the dataset maps and decodes at once.
BATCH_BYTES = 16 * 2**20


class Saelens(Importer, Exporter):
    """Reads and writes what ``CacheActivationsRunner`` writes, with any number of hooks."""

    name = "saelens"
    reserved: ClassVar = (TOKENS,)

    def open(self, path: Path, settings: ImportSettings) -> Source:
        data = _loaded(path)
        shapes = {
            name: feature.shape
            for name, feature in data.features.items()
            if len(getattr(feature, "shape", ())) == 2
            and feature.dtype in ("float32", "float16", "float64")
        }
        names = list(settings.hook_name) or list(shapes)
        for name in names or [""]:
            if name not in shapes:
                raise BadInput(
                    f"{path} has no column {name or 'of activations'} of shape (context_size, "
                    f"d_in) and floats: its columns are {', '.join(data.column_names)}"
                )
        contexts = {shapes[name][0] for name in names}
        if len(contexts) > 1:
            raise BadInput(f"the columns of {path} have blocks of {sorted(contexts)} rows")
        [size] = contexts
        files = [Path(file["filename"]) for file in data.cache_files]
        blocks = data.with_format("numpy")

        def read(start: int, stop: int) -> dict[str, Floats]:
            part = blocks.select_columns(names)[start // size : -(-stop // size)]
            return {name: _rows(float32(part[name]), start, stop, size) for name in names}

        def tokens(start: int, stop: int) -> np.ndarray:
            part = blocks.select_columns([TOKENS])[start // size : -(-stop // size)]
            return _rows(np.asarray(part[TOKENS]), start, stop, size)

        return Source(
            sites=tuple(Site(name, shapes[name][1]) for name in names),
            rows=len(data) * size,
            read=read,
            files={file.name: file for file in files},
            dtype=", ".join(sorted({data.features[name].dtype for name in names})),
            columns={"token_id": tokens} if TOKENS in data.column_names else {},
            context_size=size,
        )

    def write(
        self,
        store: Store,
        hook_names: list[str],
        dtype: np.dtype,
        out: Path,
        advance: Callable[[int], object],
    ) -> None:
        datasets = _datasets()
        from datasets.arrow_writer import ArrowWriter

        size, manifest = store.manifest.context_size, store.manifest
        features = {
            name: datasets.Array2D(shape=(size, manifest.width(name)), dtype=str(dtype))
            for name in hook_names
        }
        with_tokens = known_tokens(store)
        if with_tokens:
            features[TOKENS] = datasets.Sequence(datasets.Value("int32"), length=size)
        features = datasets.Features(features)
        per_block = size * sum(map(manifest.width, hook_names)) * dtype.itemsize
        shards = list(store.shards)
        names = [f"data-{n:05d}-of-{len(shards):05d}.arrow" for n in range(len(shards))]
        # A file a shard, written once: Dataset.from_generator would write every value to
        # its cache first and copy it from there.
        for shard, name in zip(shards, names, strict=True):
            first, last = manifest.rows_of_shard(shard)
            batch: dict[str, np.ndarray] = {}
            for hook_name in hook_names:
                x = narrowed(hook_name, store.read(hook_name, first, last), dtype, first)
                batch[hook_name] = x.reshape(-1, size, x.shape[1])
                advance(last - first)
            if with_tokens:
                batch[TOKENS] = store.column("token_id", first, last).reshape(-1, size)
            with ArrowWriter(features=features, path=str(out / name)) as writer:
                writer.write_batch(batch, writer_batch_size=max(1, BATCH_BYTES // per_block))
                writer.finalize()
        datasets.DatasetInfo(features=features).write_to_directory(str(out))
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": manifest.fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        text = json.dumps(state, indent=2, allow_nan=False) + "\n"
        (out / "state.json").write_text(text, "utf-8")


def _datasets() -> Any:
    hub.fail_fast()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _loaded(path: Path) -> Any:
    if not (path / "state.json").is_file():
        raise BadInput(f"{path} is no dataset that 'datasets' saved (it has no state.json)")
    try:
        data = _datasets().load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if any(Path(file["filename"]).parent.resolve() != path.resolve() for file in data.cache_files):
        raise BadInput(f"{path} names data files that lie outside it: copy them into it")
    if not len(data):
        raise BadInput(f"{path} has no rows")
    return data


def _rows(blocks: np.ndarray, start: int, stop: int, size: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` out of the whole blocks that hold them."""
    if blocks.shape[:2] != (-(-stop // size) - start // size, size):
        raise ValueError(f"blocks have shape {blocks.shape[1:]}, not {size} rows each")
    skipped = start % size
    rows: np.ndarray = blocks.reshape(-1, *blocks.shape[2:])[skipped : skipped + stop - start]
    return rows
