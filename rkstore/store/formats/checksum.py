"""CRC-32C of bytes where they are."""

import ctypes

import google_crc32c
import numpy as np

from rkstore.store.formats.native import c_function

# What the wrapper is given at once: small copies stay in the processor's cache.
PIECE = 2**18

EXTEND = c_function(
    "google_crc32c._crc32c",
    "crc32c_extend",
    ctypes.c_uint32,
    *(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t),
)


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of contiguous bytes."""
    if EXTEND is None:
        return by_wrapper(data)
    held = np.frombuffer(data, np.uint8)
    return int(EXTEND(0, held.ctypes.data, held.size))


def by_wrapper(data: bytes | memoryview) -> int:
    """The same, slower: the library's own wrapper takes ``bytes``."""
    crc = 0
    for start in range(0, len(data), PIECE):
        crc = google_crc32c.extend(crc, bytes(data[start : start + PIECE]))
    return crc
