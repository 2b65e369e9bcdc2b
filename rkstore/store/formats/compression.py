"""Lossless compression of the bytes of one chunk. One class each.

The smallest one depends on the numbers. One-byte codes are best left in order for an entropy coder:
on GPT-2-like activations plain zstd makes int8 9 % smaller than Blosc with zstd on shuffled bits,
at twice its speed. Floats have repeating exponents, which shuffling the bits brings together.
"""

import ctypes
import math
import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numcodecs.blosc import BITSHUFFLE
from numcodecs.blosc import Blosc as BloscFrame
from numcodecs.zstd import Zstd as ZstdFrame
from numpy.typing import NDArray

from rkstore.store.formats.native import c_function

LEVEL = 1

# Given where to and how many bytes, where from and how many, and the level; returns how many.
COMPRESS = c_function(
    "numcodecs.zstd",
    "ZSTD_compress",
    ctypes.c_size_t,
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
)


class Compression(ABC):
    """Compresses the bytes of an array, and decompresses exactly that many."""

    name: str

    @abstractmethod
    def encode(self, values: np.ndarray, room: int = 0) -> NDArray[np.uint8]:
        """The bytes of a contiguous array, compressed; the same for the same values.

        Args:
            room: how many bytes are left free after them.
        """

    @abstractmethod
    def decode(
        self,
        data: bytes | memoryview,
        dtype: np.dtype,
        shape: tuple[int, ...],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The array of that type and shape; it may be a read-only view of ``data``.

        Args:
            out: contiguous memory that may be used for it, of that type and shape; it is returned
                if it was. Its content is lost if the data is not such an array.

        Raises:
            ValueError, RuntimeError: the data is not such an array, compressed.
        """

    @abstractmethod
    def zarr_codecs(self, itemsize: int) -> list[dict[str, Any]]:
        """Its name in Zarr v3, in the list of an array's codecs."""


class Blosc(Compression):
    """Blosc: the first bits of all numbers, then the second …, in blocks, each compressed."""

    def __init__(self, inner: str) -> None:
        self.name, self._inner = f"blosc-{inner}", inner

    def encode(self, values: np.ndarray, room: int = 0) -> NDArray[np.uint8]:
        frame = BloscFrame(self._inner, LEVEL, BITSHUFFLE, typesize=values.dtype.itemsize)
        return _copied(np.frombuffer(frame.encode(values), np.uint8), room)

    def decode(
        self,
        data: bytes | memoryview,
        dtype: np.dtype,
        shape: tuple[int, ...],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        # The sizes in a frame are untrusted: they never decide how much is read or allocated.
        stated = [int.from_bytes(data[i : i + 4], "little") for i in (4, 12)]
        if len(data) < 16 or stated != [size, len(data)]:
            raise ValueError(f"a chunk is not a frame of {size} bytes in {len(data)}")
        out = np.empty(shape, dtype) if out is None else out
        BloscFrame(self._inner).decode(data, out)
        return out

    def zarr_codecs(self, itemsize: int) -> list[dict[str, Any]]:
        configuration = {
            "typesize": itemsize,
            "cname": self._inner,
            "clevel": LEVEL,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        }
        return [{"name": "blosc", "configuration": configuration}]


class Zstd(Compression):
    """One Zstandard frame (RFC 8878) that states the size of its content."""

    name = "zstd"

    def encode(self, values: np.ndarray, room: int = 0) -> NDArray[np.uint8]:
        if COMPRESS is None:
            return _copied(self.by_wrapper(values), room)
        held = _scratch(values.nbytes + values.nbytes // 256 + 1024)
        size = COMPRESS(held.ctypes.data, held.size, values.ctypes.data, values.nbytes, LEVEL)
        if size > held.size:  # the codes of its errors are the largest numbers
            raise RuntimeError(f"Zstandard cannot compress {values.nbytes} bytes")
        return _copied(held[:size], room)

    @staticmethod
    def by_wrapper(values: np.ndarray) -> NDArray[np.uint8]:
        """The same bytes by numcodecs, which copies them while it holds the interpreter."""
        return np.frombuffer(ZstdFrame(LEVEL).encode(values), np.uint8)

    def decode(
        self,
        data: bytes | memoryview,
        dtype: np.dtype,
        shape: tuple[int, ...],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        # A frame that states no size could be of any size.
        if content_size(data) != size:
            raise ValueError(f"a chunk is not a Zstandard frame of {size} bytes")
        out = np.empty(shape, dtype) if out is None else out
        ZstdFrame().decode(data, out)
        return out

    def zarr_codecs(self, itemsize: int) -> list[dict[str, Any]]:  # noqa: ARG002
        return [{"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}}]


class Uncompressed(Compression):
    """Uncompressed: read as a view of the mapped file, without a copy."""

    name = "none"

    def encode(self, values: np.ndarray, room: int = 0) -> NDArray[np.uint8]:
        return _copied(values.reshape(-1).view(np.uint8), room)

    def decode(
        self,
        data: bytes | memoryview,
        dtype: np.dtype,
        shape: tuple[int, ...],
        out: np.ndarray | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        return np.frombuffer(data, dtype).reshape(shape)

    def zarr_codecs(self, itemsize: int) -> list[dict[str, Any]]:  # noqa: ARG002
        return []


COMPRESSIONS: dict[str, Compression] = {
    compression.name: compression
    for compression in (Blosc("zstd"), Blosc("lz4"), Zstd(), Uncompressed())
}


# What a thread compresses into: fresh memory costs a page fault every 4 KiB.
_HELD = threading.local()


def _scratch(size: int) -> NDArray[np.uint8]:
    """Memory of this thread, of at least so many bytes, until it asks again."""
    held: NDArray[np.uint8] | None = getattr(_HELD, "memory", None)
    if held is None or held.size < size:
        held = _HELD.memory = np.empty(size, np.uint8)
    return held


def _copied(data: NDArray[np.uint8], room: int) -> NDArray[np.uint8]:
    """These bytes in memory of their own, and room for more.

    NumPy lets other threads run meanwhile, and while the system maps memory, which takes longer.
    """
    own = np.empty(data.size + room, np.uint8)
    own[: data.size] = data
    return own


def content_size(frame: bytes | memoryview) -> int | None:
    """The content size in a Zstandard frame's header; None if it is missing.

    RFC 8878, section 3.1.1: the magic number, a byte that says which fields follow and how
    long they are, then window, dictionary and content size.
    """
    if len(frame) < 6 or bytes(frame[:4]) != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    length = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not length or len(frame) < start + length:
        return None
    size = int.from_bytes(frame[start : start + length], "little")
    return size + 256 if length == 2 else size
