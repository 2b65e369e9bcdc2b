"""int4: 16 codes a dimension, about three bits a value after lossless compression."""

from rkstore.store.codecs.spread import Spread


class Int4(Spread):
    """4 bits a value before compression; its error is 2e-2 of the variance of each dimension.

    A code takes a byte, as with int6.
    """

    name = "int4"
    codes = 16
    step = 0.5
