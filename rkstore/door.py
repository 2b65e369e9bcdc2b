"""The public names of a package, each imported when it is first used.

So using one name does not load the libraries that the others need.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def door(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        names: for each module, the public names that it defines, with spaces between them.
    """
    where = {name: module for module, defined in names.items() for name in defined.split()}

    def get(name: str) -> Any:
        if name in where:
            return getattr(importlib.import_module(where[name]), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get
