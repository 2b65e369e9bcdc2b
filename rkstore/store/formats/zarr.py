"""Zarr v3: one directory per array, one file per shard, chunks inside the shard.

Shards are written in the layout of the Zarr v3 ``sharding_indexed`` codec
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): the chunks one after
another, then for each chunk its offset and length as two little-endian uint64, then the CRC-32C of
that index. Any Zarr v3 library reads them. They are read here directly from a memory map, because
the offsets are known and decompression then runs in any number of threads.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rkstore.store.formats.base import ArraySpec, Bytes, Format, MappedFile, Shard
from rkstore.store.formats.checksum import crc32c
from rkstore.store.formats.compression import COMPRESSIONS

# Absent chunks (after the last row of the last shard) have this offset and length.
MISSING = 2**64 - 1
CRC_BYTES = 4

DATA_TYPES = {
    np.dtype("<f4"): "float32",
    np.dtype("<f2"): "float16",
    np.dtype("<u2"): "uint16",
    np.dtype("u1"): "uint8",
    np.dtype("<i4"): "int32",
    np.dtype("<i8"): "int64",
}


class Zarr(Format):
    """Sharded Zarr v3, each chunk compressed and followed by its CRC-32C."""

    name = "zarr"
    compressions = tuple(COMPRESSIONS)

    def compression_for(self, dtype: np.dtype) -> str:
        return "zstd" if dtype.itemsize == 1 else "blosc-zstd"

    def path_pattern(self, spec: ArraySpec) -> str:
        return "/".join([spec.name, "c", "%d"] + ["0"] * len(spec.tail))

    def encode_chunk(self, spec: ArraySpec, values: np.ndarray, rows: int) -> memoryview:  # noqa: ARG002
        if len(values) < spec.chunk_rows:  # Zarr chunks are always whole.
            padded = np.zeros((spec.chunk_rows, *spec.tail), spec.dtype)
            padded[: len(values)] = values
            values = padded
        values = np.ascontiguousarray(values, spec.dtype)
        data = COMPRESSIONS[spec.compression].encode(values, CRC_BYTES).data
        data[-CRC_BYTES:] = crc32c(data[:-CRC_BYTES]).to_bytes(CRC_BYTES, "little")
        return data

    def write_chunks(
        self,
        path: Path,
        spec: ArraySpec,
        chunks: Sequence[bytes | memoryview],
        rows: int,  # noqa: ARG002
    ) -> None:
        index = np.full((spec.chunks_per_shard, 2), MISSING, "<u8")
        end = 0
        with path.open("xb") as file:
            for i, chunk in enumerate(chunks):
                file.write(chunk)
                index[i] = end, len(chunk)
                end += len(chunk)
            stated = index.tobytes()
            file.write(stated + crc32c(stated).to_bytes(CRC_BYTES, "little"))

    def open_shard(self, path: Path, spec: ArraySpec, rows: int) -> Shard:
        return ZarrShard(MappedFile(path), spec, rows)

    def checks_chunks(self, spec: ArraySpec) -> bool:
        # Without compression all shards of an array have the same index: only the digest of the
        # whole file notices that one was put in the place of another.
        return spec.compression != "none"

    def open_ranges(self, data: Bytes, spec: ArraySpec, rows: int) -> Shard:
        return ZarrShard(data, spec, rows)

    def metadata(self, rows: dict[ArraySpec, int]) -> dict[str, bytes]:
        group = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
        files = {
            f"{spec.name}/zarr.json": _json(_array_metadata(spec, rows[spec])) for spec in rows
        }
        return {"zarr.json": _json(group)} | files

    def open_array(self, root: Path, spec: ArraySpec, shards: Sequence[int]) -> Any:  # noqa: ARG002
        import zarr

        return zarr.open_array(root / spec.name, mode="r")


class ZarrShard(Shard):
    """A shard file, mapped to memory or read in ranges: first its index, then chunk by chunk."""

    def __init__(self, data: Bytes, spec: ArraySpec, rows: int) -> None:
        self.spec, self.rows = spec, rows
        self._bytes = data
        size = spec.chunks_per_shard * 16 + CRC_BYTES
        if len(self._bytes) < size:
            raise ValueError(f"{len(self._bytes)} bytes are too few for its index of {size}")
        index = _checked(self._bytes[-size:], "index")
        self._index = np.frombuffer(index, "<u8").reshape(-1, 2)
        self._end = len(self._bytes) - size
        self._compression = COMPRESSIONS[spec.compression]
        self._checked: set[int] = set()

    def chunk(self, index: int, out: np.ndarray | None = None) -> np.ndarray:
        offset, length = (int(n) for n in self._index[index])
        if offset + length > self._end:
            raise ValueError(f"chunk {index} is outside the file")
        data = self._bytes[offset : offset + length]
        # A view is free, so it is checked only the first time.
        if index not in self._checked:
            _checked(data, f"chunk {index}")
            if self.spec.compression == "none":
                self._checked.add(index)
        shape = (self.spec.chunk_rows, *self.spec.tail)
        if out is not None and (out.shape, out.dtype) != (shape, self.spec.dtype):
            out = None
        chunk = self._compression.decode(data[:-CRC_BYTES], self.spec.dtype, shape, out)
        rows = self.rows - index * self.spec.chunk_rows
        return chunk if rows >= len(chunk) else chunk[:rows]


def _checked(data: memoryview, what: str) -> memoryview:
    """Return the data without its trailing checksum, or raise if that is wrong."""
    body, stated = data[:-CRC_BYTES], int.from_bytes(data[-CRC_BYTES:], "little")
    found = crc32c(body)
    if found != stated:
        raise ValueError(f"{what} has checksum {found:08x} where {stated:08x} was written")
    return body


def _array_metadata(spec: ArraySpec, rows: int) -> dict[str, Any]:
    crc = {"name": "crc32c"}
    to_bytes = {"name": "bytes", "configuration": {"endian": "little"}}
    compression = COMPRESSIONS[spec.compression].zarr_codecs(spec.dtype.itemsize)
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [spec.chunk_rows, *spec.tail],
            "codecs": [to_bytes, *compression, crc],
            "index_codecs": [to_bytes, crc],
            "index_location": "end",
        },
    }
    shard_shape = [spec.shard_rows, *spec.tail]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *spec.tail],
        "data_type": DATA_TYPES[spec.dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [sharding],
        "attributes": dict(spec.attributes),
        "storage_transformers": [],
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
