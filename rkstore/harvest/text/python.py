"""The text that ships with CPython: a corpus that needs no network.

The reference manual's topics (``pydoc_data.topics``) and the standard library's
own source files, docstrings included: about eleven megabytes, the same for two
machines with the same Python. The demo model was trained on it, and ``rkstore demo`` reads it.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

# Its name, instead of a dataset's.
PYTHON_CORPUS = "python"

Part = Literal["all", "train", "held-out"]

# Not every CPython installs its own tests; tables of code points and generated grammars are
# useless to a language model.
LEFT_OUT = {
    "__pycache__",
    "encodings",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def python_documents(part: Part = "all") -> Iterator[tuple[str, str]]:
    """Yield ``(name, text)`` of every document of the corpus, sorted by name.

    One document in twenty, chosen by the hash of its name, is held out: the
    demo model was not trained on it.

    Args:
        part: ``"train"``, ``"held-out"``, or ``"all"`` for both.
    """
    for name, text in sorted(_topics() | _sources()):
        if part == "all" or (part == "held-out") == is_held_out(name):
            yield name, text


def is_held_out(name: str) -> bool:
    """Whether the document of that name was held out from the demo model."""
    return hashlib.sha256(name.encode()).digest()[0] % 20 == 0


def _topics() -> set[tuple[str, str]]:
    return {(f"topics/{name}", text) for name, text in topics.items()}


def _sources() -> set[tuple[str, str]]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    found = set()
    for path in stdlib.rglob("*.py"):
        parts = path.relative_to(stdlib).parts
        # Generated at build time: they contain local paths.
        if parts[0].startswith(("config-", "_sysconfigdata")) or LEFT_OUT & set(parts[:-1]):
            continue
        try:
            found.add((f"lib/{'/'.join(parts)}", path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found
