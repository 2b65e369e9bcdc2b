"""The activation cache of jkminder/dictionary_learning: raw shards, each with its shape in JSON.

A cache has one directory a submodule with ``shard_0.memmap``, ``shard_0.meta``, …, and
the token ids of all in ``tokens.pt`` beside those directories.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.errors import BadInput
from rkstore.exchange.base import (
    Floats,
    Importer,
    Matrix,
    Source,
    check_tokens,
    float32,
    names_of,
    of_matrices,
)
from rkstore.exchange.pt import load_tensor
from rkstore.settings import ImportSettings

TOKENS = "tokens.pt"
CONFIG = "config.json"

# NumPy has no bfloat16: the cache keeps its sixteen bits as int16. Activations are
# never whole numbers, so int16 can mean nothing else.
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<i2"),
    "int16": np.dtype("<i2"),
}


class Memmap(Importer):
    """Reads a whole cache, or the directory of one submodule."""

    name = "memmap"

    def open(self, path: Path, settings: ImportSettings) -> Source:
        directories = _directories(path)
        names = names_of([directory.name for directory in directories], settings.hook_name)
        if len(directories) > 1:
            for directory in directories:
                _check_order(directory)
        files: dict[str, Path] = {}
        matrices = {}
        for name, directory in zip(names, directories, strict=True):
            shards = [_shard(file) for file in _shard_files(directory)]
            _check_widths(directory, shards)
            matrices[name] = Matrix(_Joined(shards), _floats)
            for shard in shards:
                files[shard.path.relative_to(directory.parent).as_posix()] = shard.path
        dtypes = sorted({shard.dtype for m in matrices.values() for shard in m.array.shards})
        found = [place / TOKENS for place in (path, directories[0].parent)]
        tokens = next((file for file in found if file.is_file()), None)
        columns = {}
        if tokens is not None:
            ids = load_tensor(tokens).reshape(-1).numpy()
            check_tokens(str(tokens), ids, next(iter(matrices.values())).rows)
            columns["token_id"] = lambda start, stop: ids[start:stop]
            files[TOKENS] = tokens
        return of_matrices(matrices, files, ", ".join(dtypes), columns)


@dataclass(frozen=True)
class _Shard:
    path: Path
    rows: int
    width: int
    dtype: str
    values: np.ndarray


class _Joined:
    """Shards one behind another, sliced as one array."""

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
            f"{path} is no directory: give an activation cache, or one of its submodules"
        )
    if any(path.glob("shard_*.memmap")):
        return [path.absolute()]
    found = {file.parent for file in path.absolute().glob("*/shard_*.memmap")}
    if not found:
        raise BadInput(f"{path} has no shard_*.memmap, nor has any directory in it")
    return sorted(found, key=lambda directory: _natural(directory.name))


def _shard_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("shard_*.memmap"), key=lambda file: _natural(file.name))
    for number, file in enumerate(files):
        if file.name != f"shard_{number}.memmap":
            raise BadInput(f"{directory} has {file.name} where shard_{number}.memmap is due")
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts layer_2 before layer_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _shard(path: Path) -> _Shard:
    meta = path.with_suffix(".meta")
    try:
        stated = json.loads(meta.read_bytes())
        rows, width = (int(size) for size in stated["shape"])
        dtype = str(stated["dtype"]).removeprefix("torch.")
    except FileNotFoundError:
        raise BadInput(
            f"{path} has no {meta.name} beside it: the shard was never finished"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(
            f'{meta} does not state a shard\'s "shape" (rows, d_in) and "dtype"'
        ) from None
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


def _check_order(directory: Path) -> None:
    """Raise BadInput if the rows of several submodules cannot be the same tokens."""
    try:
        config: Any = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(config, dict) and config.get("shuffle_shards"):
        raise BadInput(
            f"{directory} was shuffled, each submodule in an order of its own: import them one "
            "at a time"
        )
