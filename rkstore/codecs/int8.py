"""int8: 256 codes a dimension and chunk, about six bits a value after lossless compression."""

from rkstore.codecs.affine import Affine


class Int8(Affine):
    """8 bits a value; its error is about 1e-4 of the variance of GPT-2-like activations."""

    name = "int8"
    steps = 255
