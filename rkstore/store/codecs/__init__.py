"""Codecs: activations to stored numbers and back. One file each.

A codec never sees a file, and a format never sees what the numbers mean. To add one, write its
file and add it to ``CODECS``.
"""

from rkstore.errors import BadInput
from rkstore.store.codecs.base import Codec, Encoded
from rkstore.store.codecs.bfloat16 import BFloat16
from rkstore.store.codecs.float16 import Float16
from rkstore.store.codecs.float32 import Float32
from rkstore.store.codecs.int4 import Int4
from rkstore.store.codecs.int6 import Int6
from rkstore.store.codecs.int8 import Int8
from rkstore.store.codecs.minmax import MinMax

CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Float32(), Float16(), BFloat16(), Int8(), Int6(), Int4())
}
"""What ``--codec`` offers, by name."""

# The codecs of these names in a store of schema 1.
SCHEMA_1: dict[str, Codec] = {name: MinMax(name) for name in ("int8", "int6")}


def codec_named(name: str, schema: int = 2) -> Codec:
    """Return the codec of that name.

    Args:
        schema: of the store; in the first, int8 and int6 were other codecs.

    Raises:
        BadInput: no codec has that name.
    """
    if schema == 1 and name in SCHEMA_1:
        return SCHEMA_1[name]
    if name not in CODECS:
        raise BadInput(f"unknown codec '{name}': choose one of {', '.join(CODECS)}")
    return CODECS[name]


__all__ = ["CODECS", "Codec", "Encoded", "codec_named"]
