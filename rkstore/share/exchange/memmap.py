"""The activation cache of jkminder/dictionary_learning: raw shards with shapes in JSON.

A cache has one directory per submodule with ``shard_0.memmap``, ``shard_0.meta``, …, and the token
ids for all in ``tokens.pt`` next to those directories.
"""

import io
import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.share.exchange import facts as exported
from rkstore.share.exchange.base import Exporter, Floats, Importer, Source
from rkstore.share.exchange.facts import Facts, facts_beside
from rkstore.share.exchange.matrices import Ids, Matrix, check_ids, float32, of_matrices
from rkstore.share.exchange.npy import mapped, write_array
from rkstore.share.exchange.outgoing import Array, Outgoing
from rkstore.share.exchange.pt import load_ids
from rkstore.store.natural import natural

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

TOKENS = "tokens.pt"
CONFIG = "config.json"

# Columns that the cache does not have, beside its tokens, where an export puts them.
BESIDE = {"document.npy": "document", "position.npy": "position"}

# Rows of a shard at least: dictionary_learning's own.
SHARD_ROWS = 1_000_000

# NumPy has no bfloat16: the cache keeps its sixteen bits as int16. Activations are never integers,
# so int16 is unambiguous.
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<i2"),
    "int16": np.dtype("<i2"),
}

# Keys of a submodule's configuration that describe its rows, and their types.
MEANS: dict[str, type] = {
    "shard_count": int,
    "total_size": int,
    "d_model": int,
    "shuffle_shards": bool,
    "store_tokens": bool,
}
# Keys that do not change the rows: sequences differ in length and are concatenated. ``io`` is in
# the directory's name; sequence ranges are in a file that is not read.
MEANS_NOTHING = ("batch_size", "context_len", "shard_size", "io", "store_sequence_ranges")


class FromMemmap(Importer):
    """Reads a whole cache, or the directory of one submodule."""

    name = "memmap"

    def open(self, path: Path, settings: "ImportSettings") -> Source:
        directories = _directories(path)
        files: dict[str, Path] = {}
        matrices = {}
        for directory in directories:
            shards = [_shard(file) for file in _shard_files(directory)]
            _check_widths(directory, shards)
            dtypes = sorted({shard.dtype for shard in shards})
            joined = _Joined(shards)
            matrices[directory.name] = Matrix(joined, _floats, ", ".join(dtypes))
            for shard in shards:
                files[shard.path.relative_to(directory.parent).as_posix()] = shard.path
        configs = [_config(d, m.array) for d, m in zip(directories, matrices.values(), strict=True)]
        shuffled = any(config.get("shuffle_shards") for config in configs)
        if shuffled and len(directories) > 1:
            raise BadInput(
                f"{path} was shuffled, each submodule in its own order: import them one at a time"
            )
        if shuffled and (settings.context_size or 1) > 1:
            raise BadInput(
                f"{path} was shuffled: its rows are not blocks, leave out --context-size"
            )
        facts = _facts(path, directories, matrices)
        columns = {}
        for file, column in BESIDE.items() if facts else ():
            if (there := directories[0].parent / file).is_file():
                columns[column] = Ids(mapped(there))
                check_ids(str(there), columns[column], next(iter(matrices.values())))
                files[file] = there
        if facts:
            files[exported.FILE] = directories[0].parent / exported.FILE
        # If the cache says that it kept no tokens, those next to it belong to another.
        if all(config.get("store_tokens", not shuffled) for config in configs):
            found = [place / TOKENS for place in (path, directories[0].parent)]
            for tokens in [file for file in found if file.is_file()][:1]:
                columns["token_id"] = Ids(load_ids(tokens))
                check_ids(str(tokens), columns["token_id"], next(iter(matrices.values())))
                files[TOKENS] = tokens
        return of_matrices(str(path), matrices, files, settings.hook_name, columns, facts)


class ToMemmap(Exporter):
    """Writes a directory for each site, with the tokens beside them."""

    name = "memmap"
    reserved = (TOKENS, *BESIDE, exported.FILE)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        import torch

        known = outgoing.columns()
        for name in outgoing.hook_names:
            (out / name).mkdir()
            shards = _write_shards(out / name, outgoing.site(name))
            config = {
                "context_len": outgoing.store.manifest.context_size,
                "shard_size": SHARD_ROWS,
                "d_model": outgoing.width(name),
                "shuffle_shards": False,
                "io": "out",
                "total_size": outgoing.rows,
                "shard_count": shards,
                "store_tokens": "token_id" in known,
            }
            text = json.dumps(config, indent=2, allow_nan=False) + "\n"
            (out / name / CONFIG).write_text(text, "ascii")
        if "token_id" in known:
            tokens = np.concatenate(list(outgoing.column("token_id").chunks)).astype(np.int64)
            # In memory first: on a full disk torch raises whatever its stream happens to say.
            content = io.BytesIO()
            torch.save(torch.from_numpy(tokens), content)
            (out / TOKENS).write_bytes(content.getbuffer())
        for file, column in BESIDE.items():
            write_array(out / file, outgoing.column(column))
        (out / exported.FILE).write_text(outgoing.facts().to_text(), "ascii")


def _write_shards(directory: Path, array: Array) -> int:
    """Write the rows in shards of whole chunks; returns how many there are."""
    number, chunks = 0, iter(array.chunks)
    stored = array.dtype.newbyteorder("<")
    chunk = next(chunks, None)
    while chunk is not None:
        rows = 0
        with (directory / f"shard_{number}.memmap").open("xb") as file:
            while chunk is not None and rows < SHARD_ROWS:
                file.write(np.ascontiguousarray(chunk, stored).data)
                rows += len(chunk)
                chunk = next(chunks, None)
        meta = {"shape": [rows, array.shape[1]], "dtype": f"torch.{array.dtype.name}"}
        text = json.dumps(meta, allow_nan=False)
        (directory / f"shard_{number}.meta").write_text(text, "ascii")
        number += 1
    return number


def _facts(path: Path, directories: list[Path], matrices: dict[str, Matrix]) -> Facts | None:
    """The facts of an export that the cache is, if it is one."""
    root = directories[0].parent
    facts = facts_beside(root)
    alone = path.absolute() == directories[0]
    if facts is None or (alone and directories[0].name not in facts.codec_fvu):
        return None  # they describe other files
    rows = next(iter(matrices.values())).rows
    facts.check(str(root / exported.FILE), list(matrices), rows)
    return facts


@dataclass(frozen=True)
class _Shard:
    path: Path
    rows: int
    width: int
    dtype: str
    values: np.ndarray


class _Joined:
    """Shards one after another, sliced as one array."""

    def __init__(self, shards: list[_Shard]) -> None:
        self.shards = shards
        self._ends = list(accumulate(shard.rows for shard in shards))
        self.shape = (self._ends[-1], shards[0].width)

    def __getitem__(self, rows: slice) -> list[_Shard]:
        """The parts of the shards that make up those rows, in order."""
        parts, start = [], rows.start
        while start < rows.stop:
            number = bisect_right(self._ends, start)
            shard, end = self.shards[number], self._ends[number]
            stop = min(rows.stop, end)
            inside = slice(start - end + shard.rows, stop - end + shard.rows)
            values = shard.values[inside]
            parts.append(_Shard(shard.path, len(values), shard.width, shard.dtype, values))
            start = stop
        return parts


def _floats(parts: list[_Shard]) -> Floats:
    return np.concatenate([_decoded(part) for part in parts])


def _decoded(part: _Shard) -> Floats:
    if DTYPES[part.dtype].kind == "f":
        return float32(part.values)
    return (part.values.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _directories(path: Path) -> list[Path]:
    """The directories that hold shards, in the order of the numbers in their names."""
    if not path.is_dir():
        raise BadInput(
            f"{path} is not a directory: give an activation cache, or one of its submodules"
        )
    if any(path.glob("shard_*.memmap")):
        return [path.absolute()]
    found = {file.parent for file in path.absolute().glob("*/shard_*.memmap")}
    if not found:
        raise BadInput(f"{path} has no shard_*.memmap, and neither has any directory in it")
    return sorted(found, key=lambda directory: natural(directory.name))


def _shard_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("shard_*.memmap"), key=lambda file: natural(file.name))
    for number, file in enumerate(files):
        if file.name != f"shard_{number}.memmap":
            raise BadInput(f"{directory} has {file.name} where shard_{number}.memmap is due")
    return files


def _shard(path: Path) -> _Shard:
    meta = path.with_suffix(".meta")
    try:
        stated = json.loads(meta.read_bytes())
        rows, width = (int(size) for size in stated["shape"])
        unknown = [key for key in stated if key not in ("shape", "dtype")]
        # The first caches were float32 and did not say so.
        dtype = str(stated.get("dtype", "float32")).removeprefix("torch.")
    except FileNotFoundError:
        raise BadInput(
            f"{path} has no {meta.name} next to it: the shard was never finished"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(
            f'{meta} does not state a shard\'s "shape" (rows, d_in) and "dtype"'
        ) from None
    if unknown:
        raise BadInput(f"{meta} has '{unknown[0]}', which rkstore does not know: ask for it")
    if dtype not in DTYPES:
        raise BadInput(f"{meta} states dtype {dtype}: it may be {', '.join(DTYPES)}")
    if min(rows, width) < 1:
        raise BadInput(f"{meta} states shape {rows, width}: a shard has rows and a width")
    size, expected = path.stat().st_size, rows * width * DTYPES[dtype].itemsize
    if size != expected:
        raise BadInput(f"{path} has {size:,} bytes where its .meta states {expected:,}")
    values = np.memmap(path, DTYPES[dtype], mode="r", shape=(rows, width))
    return _Shard(path, rows, width, "bfloat16" if dtype == "int16" else dtype, values)


def _check_widths(directory: Path, shards: list[_Shard]) -> None:
    for shard in shards:
        if shard.width != shards[0].width:
            raise BadInput(
                f"{directory / shard.path.name} is {shard.width} wide and "
                f"{shards[0].path.name} is {shards[0].width}"
            )


def _config(directory: Path, rows: _Joined) -> dict[str, Any]:
    """The cache's configuration of a submodule; empty if there is none.

    Raises:
        BadInput: it contradicts the shards, or has a key that could mean anything.
    """
    path = directory / CONFIG
    if not path.is_file():
        return {}
    config = _object(path)
    for key, value in config.items():
        if key not in MEANS_NOTHING and key not in MEANS:
            raise BadInput(f"{path} has '{key}', which rkstore does not know: ask for it")
        if key in MEANS and type(value) is not MEANS[key]:
            raise BadInput(f"{path} states {key} as {value!r}")
    there = {"shard_count": len(rows.shards), "total_size": rows.shape[0], "d_model": rows.shape[1]}
    for key, value in there.items():
        if config.get(key, value) != value:
            raise BadInput(f"{path} states {key} {config[key]:,}, the shards there have {value:,}")
    if config.get("shuffle_shards") and config.get("store_tokens"):
        raise BadInput(f"{path} states shuffled shards and tokens, which are in another order")
    return config


def _object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadInput(f"{path} is not a JSON object")
    return document
