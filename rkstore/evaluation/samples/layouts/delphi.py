"""Delphi's cache of latents: every activation of every latent, for explaining and scoring them.

``MODULE/FIRST_LAST.safetensors`` has ``locations`` (sequence, position, latent - FIRST),
``activations`` in float16 and the ``tokens`` of all sequences; sequences are the store's blocks,
in which several documents may meet. Written as it streams, where Delphi holds all of it in memory.
"""

from __future__ import annotations

import json
import math
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput
from rkstore.evaluation.samples.layouts.base import Found, Layout, Subject
from rkstore.evaluation.samples.layouts.dashboard import dataset_of
from rkstore.evaluation.samples.layouts.parts import Part, parts_of
from rkstore.settings import option

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rkstore.evaluation.samples.codes import Segment


class Delphi(Layout):
    """A folder for each site, which Delphi's ``LatentDataset`` reads."""

    name = "delphi"
    n_splits: int = option(5, "Files among which the latents are divided.", least=1)

    def check(self, subject: Subject) -> None:
        for part in parts_of(subject, "Delphi"):
            if self.n_splits > part.stop - part.first:
                raise BadInput(
                    f"--n-splits is {self.n_splits}: {part.hook_name} has only "
                    f"{part.stop - part.first} latents"
                )

    def write(self, found: Found, out: Path) -> None:
        import numpy as np

        size = found.looking.context_size
        of_each = [np.unique(segment.text // size) for segment in found.codes]
        blocks = np.unique(np.concatenate(of_each))
        for part in parts_of(found, "Delphi"):
            folder = out / part.hook_name
            folder.mkdir()
            self._write_part(found, part, folder, blocks)
            config = {
                "dataset_repo": dataset_of(found),
                "dataset_split": str(_text(found).get("split") or ""),
                "dataset_name": str(_text(found).get("config") or ""),
                "dataset_column": "text",
                "batch_size": 32,
                "cache_ctx_len": size,
                "n_tokens": len(blocks) * size,
                "n_splits": self.n_splits,
                "model_name": (found.store.manifest.source.get("model") or {}).get("name"),
                "rkstore": dict(found.facts) | {"fingerprint": found.samples.fingerprint},
            }
            text = json.dumps(config, indent=4, allow_nan=False) + "\n"
            (folder / "config.json").write_text(text, "utf-8")

    def _write_part(
        self, found: Found, part: Part, folder: Path, blocks: NDArray[np.int64]
    ) -> None:
        import numpy as np
        import torch

        size, fired = found.looking.context_size, found.samples.fired
        edges = torch.linspace(0, part.stop - part.first, self.n_splits + 1).long().tolist()
        splits = list(pairwise(edges))
        counts = [int(fired[part.first + a : part.first + b].sum()) for a, b in splits]
        widest = max(b - a for a, b in splits)
        small = max(widest, len(blocks), size) <= 2**16
        kind = np.dtype(np.uint16 if small else np.uint32)
        arrays = [
            _mapped(
                folder / f"{a}_{b - 1}.safetensors",
                {
                    "activations": (np.dtype("<f2"), (count,)),
                    "locations": (kind, (count, 3)),
                    "tokens": (np.dtype("<i8"), (len(blocks), size)),
                },
            )
            for (a, b), count in zip(splits, counts, strict=True)
        ]
        _fill_tokens([own["tokens"] for own in arrays], found, blocks)
        at = [0] * len(splits)
        for segment in found.codes:
            sequence, position, latent, value = _by_latent(segment, size, blocks)
            if not np.isfinite(value.astype(np.float16)).all():
                raise BadInput(
                    f"an activation of {part.hook_name} is above 65,504, the most that Delphi's "
                    "float16 holds: write these samples with --to parquet"
                )
            for i, (a, b) in enumerate(splits):
                own = (latent >= part.first + a) & (latent < part.first + b)
                here = slice(at[i], at[i] + int(own.sum()))
                at[i] = here.stop
                columns = (sequence, position, latent - (part.first + a))
                for column, values in enumerate(columns):
                    arrays[i]["locations"][here, column] = values[own]
                arrays[i]["activations"][here] = value[own]


def _text(found: Subject) -> dict[str, Any]:
    text = found.store.manifest.source.get("text")
    return text if isinstance(text, dict) else {}


def _by_latent(
    segment: Segment, size: int, blocks: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Sequence, position, latent and value of the entries, by token and then by latent."""
    import numpy as np

    order = np.lexsort((segment.latent, segment.place))
    text = segment.text[segment.place[order]]
    sequence = np.searchsorted(blocks, text // size)
    return sequence, text % size, segment.latent[order], segment.value[order]


def _fill_tokens(arrays: list[NDArray[Any]], found: Found, blocks: NDArray[np.int64]) -> None:
    """The tokens of every block, in every file."""
    text, _ = found.store.in_text(found.store.first_row, found.store.first_row)
    size = found.looking.context_size
    for sequence, block in enumerate(blocks.tolist()):
        first, stop = max(block * size, text.first_row), min((block + 1) * size, text.stop_row)
        tokens = text.column("token_id", first, stop)
        for own in arrays:
            own[sequence, first - block * size : stop - block * size] = tokens


def _mapped(
    path: Path, tensors: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    """A new file of safetensors of zeros, and its tensors, mapped into memory to be filled.

    The format is a length in eight bytes, so much JSON, and the data one behind another.
    """
    import numpy as np

    names = {"f2": "F16", "u2": "U16", "u4": "U32", "i8": "I64"}
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda one: -one[1][0].itemsize):
        end = at + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": names[dtype.str[1:]], "shape": shape, "data_offsets": [at, end]}
        at = end
    content = json.dumps(header, allow_nan=False).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        # Room for all of it: a mapped file on a full disk would end the program.
        os.posix_fallocate(file.fileno(), 8 + len(content), max(1, at))
        file.truncate(8 + len(content) + at)
    found = {}
    for name, (dtype, shape) in tensors.items():
        begin = 8 + len(content) + header[name]["data_offsets"][0]
        empty = math.prod(shape) == 0
        found[name] = (
            np.empty(shape, dtype)
            if empty
            else np.memmap(path, dtype, "r+", offset=begin, shape=shape)
        )
    return found
