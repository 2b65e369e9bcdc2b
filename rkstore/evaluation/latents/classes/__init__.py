"""Token classes: what a token is in its text. One file each, listed in ``CLASSES``.

A file gives for the text of a document every class as int8 ``(n,)``: 1 for the tokens that are in
it, 0 for those that it is told apart from, and -1 for those that are neither.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rkstore.evaluation.latents.classes.english import english
from rkstore.evaluation.latents.classes.python import python
from rkstore.evaluation.latents.text import Text
from rkstore.store.readable import Readable

# The classes of some tokens, by name.
Labels = dict[str, NDArray[np.int8]]

CLASSES: Mapping[str, Callable[[Text], Labels]] = {"python": python, "english": english}


def usual_classes(store: Readable) -> str:
    """The classes of a store's text: those of Python if it was read from Python files."""
    text = store.manifest.source.get("text") or {}
    files = [str(file.get("name")) for file in text.get("files") or ()]
    code = text.get("dataset") == "python" or (files and all(f.endswith(".py") for f in files))
    return "python" if code else "english"
