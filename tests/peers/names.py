"""Which of some names a library does not have, or has with another default."""

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from pathlib import Path

library = importlib.import_module(sys.argv[1])
inside = pkgutil.walk_packages(library.__path__, f"{library.__name__}.")
modules = [library, *(importlib.import_module(module.name) for module in inside)]
text = "".join(Path(module.__file__).read_text("utf-8") for module in modules)
things, defaults = {}, {}
for module in modules:
    for name, thing in vars(module).items():
        if str(getattr(thing, "__module__", "")).startswith(library.__name__):
            things[name] = thing
            try:
                parameters = inspect.signature(thing).parameters.values()
            except (TypeError, ValueError):
                continue
            for parameter in parameters:
                defaults.setdefault(parameter.name, []).append(repr(parameter.default))


def known(span):
    """Whether there is such a class, function, method, argument, attribute or key."""
    name, _, value = span.partition("=")
    if value:
        return repr(ast.literal_eval(value)) in defaults.get(name, ())
    first, *rest = name.split(".")
    if first in things:
        thing = things[first]
        return all(hasattr(thing, part) for part in rest)
    return name in defaults or f'"{name}"' in text or f"self.{name} =" in text


print(json.dumps([span for span in json.load(sys.stdin) if not known(span)], allow_nan=False))
