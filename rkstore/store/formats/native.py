"""Functions of C libraries that are called at an address, while other threads run.

What wraps them in Python takes or makes copies, and holds the interpreter for some of the time. Of
sixteen threads that compress, or check what they read, one would then run, and none would start the
kernels of a model.
"""

import ctypes
import importlib
from collections.abc import Callable
from typing import Any


def c_function(module: str, name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """A function of the library that an extension module wraps; ctypes calls it without the
    interpreter.

    Args:
        result, arguments: their types in ctypes.

    Returns:
        None if it has no name there, because it is compiled into the module: then the wrapper has
        to do.
    """
    try:
        found = getattr(ctypes.CDLL(importlib.import_module(module).__file__), name)
    except (ImportError, OSError, AttributeError):
        return None
    found.restype, found.argtypes = result, arguments
    function: Callable[..., Any] = found
    return function
