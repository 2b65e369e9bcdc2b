"""A value as text or number, however it was written."""

import math
import os
import re
from contextlib import suppress
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

# A number in decimal notation; 1_000, 0x10 and 1:30 are not numbers.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def read_as(kind: type[Any], value: Any, *, path: bool = False) -> Any:
    """A value as text or number; the value itself if it is neither."""
    if kind is str and path and isinstance(value, str | os.PathLike):
        return expanded(value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    written = isinstance(value, str) and NUMBER.fullmatch(value)
    with suppress(ValueError, OverflowError):  # nan, inf, too many digits
        if kind is str and number and math.isfinite(value):
            return str(value)
        if kind is float and (number or written):
            return float(value)
        if kind is int and (number or written):
            return _whole(value)
    return value


def _whole(number: Any) -> Any:
    """The number as ``int``; itself if it is not whole."""
    if isinstance(number, Integral):
        return int(number)
    exact = Fraction(number if isinstance(number, str) else float(number))
    return int(exact) if exact.denominator == 1 else number


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` as the home directory; a URL or a name on the Hub is as it was.

    ``~nobody``, if that user does not exist, is a file in the working directory.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - Path's own refuses ~nobody
