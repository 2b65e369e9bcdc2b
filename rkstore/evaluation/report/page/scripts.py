"""Data as classic scripts: a page opened from a disk may load scripts, and nothing else.

What comes from a store is a stranger's: a string in a script stays a string, whatever is in it.
"""

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What could end a script, begin a comment or a tag, or end a line inside of a string of old
# JavaScript. Everything else beyond ASCII is escaped by json already.
ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def script(name: str, *values: Any) -> bytes:
    """A file that hands values to one of the page's functions, ``RK.name(…)``."""
    given = ",".join(compact(value).translate(ESCAPED) for value in values)
    return f"RK.{name}({given});\n".encode("ascii")


def compact(value: Any) -> str:
    """JSON without spaces, in ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def column(values: NDArray[Any], kind: str) -> str:
    """Numbers in base64, little-endian.

    Args:
        kind: of NumPy, such as ``u4``.

    Raises:
        OverflowError: a number does not fit.
    """
    written = values.astype(np.dtype(f"<{kind}"))
    if kind[0] != "f" and not np.array_equal(written, values):
        raise OverflowError(f"numbers up to {values.max()} do not fit {kind}")
    return base64.b64encode(written.tobytes()).decode()


def deflated(content: bytes) -> str:
    """Bytes as raw deflate in base64, which browsers read from a file on a disk."""
    packer = zlib.compressobj(9, wbits=-15)
    return base64.b64encode(packer.compress(content) + packer.flush()).decode()
