"""CRC-32C of bytes where they are, while other threads run.

``google_crc32c`` takes ``bytes`` and holds the interpreter, at least below a megabyte: a chunk of a
mapped file would be copied first, and of many threads that check chunks one at a time would run.
The C function that it wraps takes an address, and ctypes lets go of the interpreter meanwhile.
"""

import ctypes
from collections.abc import Callable

import google_crc32c
import numpy as np

# What the wrapper is given at once: small copies stay in the processor's cache.
PIECE = 2**18


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of contiguous bytes."""
    if _EXTEND is None:
        return by_wrapper(data)
    held = np.frombuffer(data, np.uint8)
    return _EXTEND(0, held.ctypes.data, held.size)


def by_wrapper(data: bytes | memoryview) -> int:
    """The same where the C function has no name: if it is compiled into its wrapper."""
    crc = 0
    for start in range(0, len(data), PIECE):
        crc = google_crc32c.extend(crc, bytes(data[start : start + PIECE]))
    return crc


def _c_function() -> Callable[[int, int, int], int] | None:
    try:
        from google_crc32c import _crc32c

        found = ctypes.CDLL(_crc32c.__file__).crc32c_extend
    except (ImportError, OSError, AttributeError):
        return None
    found.argtypes, found.restype = (
        (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t),
        ctypes.c_uint32,
    )
    extend: Callable[[int, int, int], int] = found
    return extend


_EXTEND = _c_function()
