"""int6: 64 codes a dimension, four to five bits a value after lossless compression."""

from rkstore.store.codecs.spread import Spread


class Int6(Spread):
    """6 bits a value before compression; its error is 1.3e-3 of the variance of each dimension.

    A code takes a byte: the two bits that are always zero cost next to nothing once it is
    compressed, and every tool reads bytes.
    """

    name = "int6"
    codes = 64
    step = 0.125
