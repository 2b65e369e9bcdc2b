"""HDF5: one directory per array, one file per shard with one chunked dataset, ``values``.

Only filters that every HDF5 library has are used (shuffle, deflate, Fletcher-32),
so MATLAB, Julia or ``h5dump`` open the files without a plugin. The file format is that of HDF5
1.10, the first with checksums on its tables of chunks. The library only locates the chunks; they
are encoded and decoded here, without its global lock.
"""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numcodecs.fletcher32 import Fletcher32

from rkstore.store.formats.base import ArraySpec, Format, MappedFile, Shard

DATASET = "values"
LEVEL = 1
FILTERS = {
    "deflate": [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32],
    "none": [h5py.h5z.FILTER_FLETCHER32],
}
CHECKSUM = 4


class Hdf5(Format):
    """Chunked HDF5, byte-shuffled deflate level 1 or none, a Fletcher-32 checksum per chunk."""

    name = "hdf5"
    compressions = tuple(FILTERS)

    def path_pattern(self, spec: ArraySpec) -> str:
        return f"{spec.name}/%05d.h5"

    def encode_chunk(self, spec: ArraySpec, values: np.ndarray, rows: int) -> bytes:
        whole = np.zeros((min(spec.chunk_rows, rows), *spec.tail), spec.dtype)
        whole[: len(values)] = values
        data = whole.tobytes()
        if spec.compression == "deflate":
            planes = np.frombuffer(data, np.uint8).reshape(-1, spec.dtype.itemsize)
            data = zlib.compress(planes.T.tobytes(), LEVEL)
        return bytes(Fletcher32().encode(data))

    def write_chunks(
        self, path: Path, spec: ArraySpec, chunks: Sequence[bytes | memoryview], rows: int
    ) -> None:
        deflate = {"shuffle": True, "compression": "gzip", "compression_opts": LEVEL}
        # In memory, then to disk at once: on a full disk HDF5 fails while closing, and never
        # closes the file.
        in_memory = {"driver": "core", "backing_store": False, "libver": ("v110", "v110")}
        with path.open("xb") as out, h5py.File(str(path), "w", **in_memory) as file:
            dataset = file.create_dataset(
                DATASET,
                (rows, *spec.tail),
                spec.dtype,
                chunks=(min(spec.chunk_rows, rows), *spec.tail),
                fletcher32=True,
                track_times=False,
                **(deflate if spec.compression == "deflate" else {}),
            )
            dataset.attrs.update(dict(spec.attributes))
            for i, chunk in enumerate(chunks):
                place = (i * spec.chunk_rows, *(0 for _ in spec.tail))
                dataset.id.write_direct_chunk(place, chunk)
            file.flush()
            out.write(file.id.get_file_image())

    def open_shard(self, path: Path, spec: ArraySpec, rows: int) -> Shard:
        return Hdf5Shard(path, spec, rows)

    def metadata(self, rows: dict[ArraySpec, int]) -> dict[str, bytes]:  # noqa: ARG002
        return {}  # each file describes itself

    def open_array(self, root: Path, spec: ArraySpec, shards: Sequence[int]) -> Any:
        """The list of h5py datasets, one a shard, in order."""
        return [h5py.File(root / self.shard_path(spec, shard))[DATASET] for shard in shards]


class Hdf5Shard(Shard):
    """An HDF5 file whose chunks are read directly from a memory map.

    HDF5 locates them and is closed again: an open file would take half a megabyte, and its deflate
    reads to the end of a stream, so a small file could fill the memory. Decoding here also needs
    no lock.
    """

    def __init__(self, path: Path, spec: ArraySpec, rows: int) -> None:
        self.spec, self.rows = spec, rows
        self._shape = (min(spec.chunk_rows, rows), *spec.tail)
        self._size = math.prod(self._shape) * spec.dtype.itemsize
        self._bytes = MappedFile(path)
        with h5py.File(path, "r") as opened:
            # A link to another file would lead out of the store.
            if not isinstance(opened.get(DATASET, getlink=True), h5py.HardLink):
                raise ValueError(f"it holds no dataset '{DATASET}'")
            dataset = opened[DATASET]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"it holds no dataset '{DATASET}'")
            self._check(dataset)
            self._chunks = self._places(dataset)
        self._checked: set[int] = set()

    def _check(self, dataset: h5py.Dataset) -> None:
        """Every chunk must have this shape and type, and a checksum."""
        expected = ((self.rows, *self.spec.tail), self._shape)
        found = (dataset.shape, dataset.chunks)
        if found != expected or dataset.id.get_type() != h5py.h5t.py_create(self.spec.dtype):
            raise ValueError(f"its {DATASET} are {found}, not {expected} of {self.spec.dtype}")
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        expected_filters = FILTERS[self.spec.compression]
        if filters != expected_filters:
            raise ValueError(f"its filters are {filters}, not {expected_filters}")

    def _places(self, dataset: h5py.Dataset) -> dict[int, slice]:
        """The byte range of each chunk, by its first row."""
        places: dict[int, slice] = {}

        def note(chunk: Any) -> None:
            row = chunk.chunk_offset[0]
            # A flag of the chunk could disable its checksum.
            if chunk.filter_mask:
                raise ValueError(f"the chunk of row {row} was stored without its checksum")
            end = chunk.byte_offset + chunk.size
            if not CHECKSUM <= chunk.size <= end <= len(self._bytes):
                raise ValueError(f"the chunk of row {row} is outside the file")
            places[row] = slice(chunk.byte_offset, end)

        dataset.id.chunk_iter(note)
        if places.keys() != set(range(0, self.rows, self.spec.chunk_rows)):
            raise ValueError(f"it has {len(places)} chunks, not those of its rows")
        return places

    def chunk(self, index: int, out: np.ndarray | None = None) -> np.ndarray:  # noqa: ARG002
        start = index * self.spec.chunk_rows
        stored = self._bytes[self._chunks[start]]
        if start not in self._checked:
            Fletcher32().decode(bytes(stored))
            if self.spec.compression == "none":  # a view is free: checked only the first time
                self._checked.add(start)
        data = stored[:-CHECKSUM]
        if self.spec.compression == "deflate":
            chunk = _unshuffled(_inflate(data, self._size), self.spec.dtype)
        elif len(data) == self._size:
            chunk = np.frombuffer(data, self.spec.dtype)
        else:
            raise ValueError(f"a chunk has not the {self._size} bytes of its rows")
        return chunk.reshape(self._shape)[: self.rows - start]


def _unshuffled(data: bytes, dtype: np.dtype) -> np.ndarray:
    """HDF5's byte shuffle: the first bytes of all numbers, then the second, and so on."""
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype)


def _inflate(data: memoryview, size: int) -> bytes:
    """Decompress exactly that many bytes."""
    try:
        stream = zlib.decompressobj()
        out = stream.decompress(data, size)
        if len(out) != size or stream.decompress(stream.unconsumed_tail, 1) or not stream.eof:
            raise ValueError(f"a chunk has not the {size} bytes of its rows")
    except zlib.error as error:
        raise ValueError(str(error)) from None
    return out
