"""Make the API reference from the docstrings: a page a module, an index and a search.

    python docs/api.py              # into build/api, which is what `make api` does
    python docs/api.py DIRECTORY

It has the modules that a program imports, and those that a new member of a family is written
against. The others have docstrings too, but no page.
"""

import importlib
import inspect
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

MODULES = [
    "rkstore",
    "rkstore.errors",
    "rkstore.settings",
    "rkstore.store",
    "rkstore.store.lookup",
    "rkstore.store.codecs.base",
    "rkstore.store.formats.base",
    "rkstore.harvest.settings",
    "rkstore.harvest.run",
    "rkstore.planted.settings",
    "rkstore.planted.store",
    "rkstore.planted.truth",
    "rkstore.planted.scores",
    "rkstore.share.settings",
    "rkstore.share.push",
    "rkstore.share.pull",
    "rkstore.share.exchange.base",
    "rkstore.share.exchange.importing",
    "rkstore.share.exchange.exporting",
    "rkstore.rkcnn",
    "rkstore.rkcnn.settings",
    "rkstore.rkcnn.mine",
    "rkstore.rkcnn.classifier",
    "rkstore.rkcnn.recovery",
    "rkstore.rkcnn.scores.base",
    "rkstore.dictionaries",
    "rkstore.dictionaries.selects.base",
    "rkstore.dictionaries.wirings.base",
    "rkstore.training.settings",
    "rkstore.training.train",
    "rkstore.training.objective",
    "rkstore.training.inits.base",
    "rkstore.training.helpers.base",
    "rkstore.evaluation.settings",
    "rkstore.evaluation.evaluate",
    "rkstore.evaluation.measure",
    "rkstore.evaluation.metrics.base",
    "rkstore.evaluation.results",
    "rkstore.evaluation.compare",
    "rkstore.evaluation.lifetimes",
    "rkstore.evaluation.paired",
]


def pages() -> list[str]:
    """The modules that have a page: those above, and the packages they are in."""
    found = set(MODULES)
    for name in MODULES:
        while name := name.rpartition(".")[0]:
            found.add(name)
    return sorted(found)


def public(module: ModuleType) -> list[str]:
    """The names that a module says are public, or else the classes and functions it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, found in vars(module).items()
        if inspect.isclass(found) or inspect.isfunction(found)
        if found.__module__ == module.__name__ and not name.startswith("_")
    ]


def show(name: str) -> None:
    """Leave in a module what its page shows: its public names, and the modules below it.

    A package imports its public names only when they are used (``door.py``), and pdoc documents
    what it finds.
    """
    module = importlib.import_module(name)
    names = public(module)
    for one in names:
        setattr(module, one, getattr(module, one))
    below = [page for page in pages() if page.rpartition(".")[0] == name]
    module.__dict__["__all__"] = [*names, *(page.rpartition(".")[2] for page in below)]


def main(directory: Path) -> None:
    """Write the pages into a directory."""
    for name in pages():
        show(name)
    # An option that comes from a member of a family has no line in the settings that show it.
    warnings.filterwarnings("ignore", r"Cannot determine where rkstore\.[\w.]+Settings\.\w+ is")
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("rkstore", output_directory=directory)


if __name__ == "__main__":
    main(Path(*(sys.argv[1:] or ["build/api"])))
