"""HDF5: one array a directory, one shard a file with one chunked dataset, ``values``.

Only filters that every HDF5 library has are used (shuffle, deflate, Fletcher-32),
so MATLAB, Julia or ``h5dump`` open the files without a plugin. The file format is that of
HDF5 1.10, the first that has a checksum on its tables of chunks as well. The price is speed:
HDF5 decompresses under one global lock.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rkstore.formats.base import ArraySpec, Format, Shard

DATASET = "values"
FILTERS = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32]


class Hdf5(Format):
    """Chunked HDF5, byte-shuffled deflate level 1, a Fletcher-32 sum on every chunk."""

    name = "hdf5"

    def shard_path(self, spec: ArraySpec, shard: int) -> str:
        return f"{spec.name}/{shard:05d}.h5"

    def write_shard(self, path: Path, spec: ArraySpec, values: np.ndarray) -> None:
        with h5py.File(path, "x", libver=("v110", "v110")) as file:
            dataset = file.create_dataset(
                DATASET,
                data=np.ascontiguousarray(values, spec.dtype),
                chunks=(min(spec.chunk_rows, len(values)), *spec.tail),
                shuffle=True,
                compression="gzip",
                compression_opts=1,
                fletcher32=True,
                track_times=False,
            )
            dataset.attrs.update(dict(spec.attributes))

    def open_shard(self, path: Path, spec: ArraySpec, rows: int) -> Shard:
        return Hdf5Shard(path, spec, rows)

    def metadata(self, rows: dict[ArraySpec, int]) -> dict[str, bytes]:  # noqa: ARG002
        return {}  # each file says all there is to know of itself

    def open_array(self, root: Path, spec: ArraySpec) -> Any:
        """The list of h5py datasets, one a shard, in order."""
        paths = sorted((root / spec.name).glob("*.h5"), key=lambda path: int(path.stem))
        return [h5py.File(path)[DATASET] for path in paths]


class Hdf5Shard(Shard):
    """An open HDF5 file; h5py's own lock makes it safe to share."""

    def __init__(self, path: Path, spec: ArraySpec, rows: int) -> None:
        self.spec = spec
        self._file = h5py.File(path, "r")
        dataset = self._file.get(DATASET)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"it holds no dataset '{DATASET}'")
        expected = ((rows, *spec.tail), spec.dtype, (min(spec.chunk_rows, rows), *spec.tail))
        found = (dataset.shape, dataset.dtype, dataset.chunks)
        if found != expected:
            raise ValueError(f"its {DATASET} are {found}, not {expected}")
        self._check_filters(dataset)
        self._dataset = dataset

    def _check_filters(self, dataset: h5py.Dataset) -> None:
        """Every chunk must pass through the checksum: a flag in the file could leave it out."""
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        if filters != FILTERS:
            raise ValueError(f"its filters are {filters}, not {FILTERS}")
        chunks = dataset.id.get_num_chunks()
        if chunks != -(-dataset.shape[0] // dataset.chunks[0]):
            raise ValueError(f"it has {chunks} chunks, too few for its rows")
        for i in range(chunks):
            if dataset.id.get_chunk_info(i).filter_mask:
                raise ValueError(f"chunk {i} was stored without its checksum")

    def chunk(self, index: int) -> np.ndarray:
        start = index * self.spec.chunk_rows
        chunk: np.ndarray = self._dataset[start : start + self.spec.chunk_rows]
        return chunk
