"""What can go wrong, each as one sentence that says what to do about it."""

import keyword
import logging
import re
from collections.abc import Callable, Sequence

# An option as written on a command line. Between quotes is a value or a whole command.
OPTION = re.compile(r"(?<!\w)'[^']*'(?!\w)|(?<![\w/.-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9-]*)")


class RkstoreError(Exception):
    """An operation that failed. The command line prints its sentence and exits with ``status``.

    ``str`` of it is for Python, and names arguments in place of options.
    """

    status = 1

    @property
    def sentence(self) -> str:
        """What went wrong, with options as they are written on a command line."""
        return super().__str__()

    def __str__(self) -> str:
        return for_python(self.sentence)


class BadInput(RkstoreError, ValueError):
    """A request that cannot be carried out as asked: nothing was started."""

    status = 2


class DamagedStore(RkstoreError):
    """Files that are not what the store recorded when it wrote them."""


def warn(sentence: str) -> None:
    """Say what somebody may not expect, and is no error.

    It goes to the log of this package, ``rkstore``, so without a handler to standard error.
    """
    logging.getLogger("rkstore").warning("%s", sentence)


def few(names: Sequence[str], most: int = 16) -> str:
    """The first of some names, and how many more there are, to keep a sentence readable."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def for_python(sentence: str) -> str:
    """The sentence with arguments: ``prepend_bos=False`` in place of ``--no-prepend-bos``."""
    return _renamed(sentence, "{}=False", keyword.iskeyword)


def for_yaml(sentence: str) -> str:
    """The sentence with the keys of a file: ``prepend_bos: false``, and ``from`` as it is."""
    return _renamed(sentence, "{}: false", lambda _: False)


def _renamed(sentence: str, off: str, taken: Callable[[str], bool]) -> str:
    def name(found: re.Match[str]) -> str:
        if found["name"] is None:
            return found[0]
        plain = found["name"].replace("-", "_")
        plain += "_" if taken(plain) else ""
        return off.format(plain) if found["no"] else plain

    return OPTION.sub(name, sentence)


def size(count: float) -> str:
    """Bytes for display, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def one_line(error: object, most: int = 300) -> str:
    """The message of another library's error, as one shortened line within a sentence."""
    return " ".join(str(error).split())[:most] or type(error).__name__
