"""What makes each latent of a dictionary fire: samples, statistics, and files of them.

``codes.py`` encodes the rows of a store once, ``collect.py`` chooses samples of each latent from
their codes, ``samples.py`` is what was found and its files, and ``contexts.py`` are the tokens
around it.
"""

from rkstore.evaluation.samples.samples import Samples

__all__ = ["Samples"]
