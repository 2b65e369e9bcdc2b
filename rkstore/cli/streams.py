"""Output streams of the command line. A closed one must not end a harvest."""

import io
import logging
import os
import sys
from contextlib import suppress
from typing import Any

import click


def prepare() -> None:
    """Make the standard streams safe to write to, however the program was started."""
    # A free descriptor is given to the next file that is opened: a library's stderr would then be
    # written into a shard.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if not isinstance(sys.stderr, Unheard):
        sys.stderr = Unheard(sys.stderr or open(os.devnull, "w"))  # noqa: PTH123, SIM115
    if not speaks():
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    # A character that a terminal lacks, such as ‖, is written as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    log = logging.getLogger("rkstore")
    if not any(isinstance(handler, OnStderr) for handler in log.handlers):
        log.addHandler(OnStderr())


def alone() -> bool:
    """Whether no launcher started several processes together."""
    return os.environ.get("WORLD_SIZE", "1") in ("", "1")


def speaks() -> bool:
    """Whether this process prints: of several that a launcher started together, the first."""
    return alone() or os.environ.get("RANK", "0") in ("", "0")


def echo(text: object, err: bool = False) -> None:
    """Print some lines, in which nothing moves the cursor or turns the direction of reading."""
    if not speaks():
        return
    click.echo("\n".join(plain(line) for line in str(text).split("\n")), err=err)


def plain(text: str) -> str:
    """The text on one line, what is not to be seen in it written as its number.

    Names in a stranger's store may hold line breaks, escape sequences and marks of direction, and
    so make lines that this program never wrote.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class OnStderr(logging.Handler):
    """What the package has to say besides results, as one more line of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(plain(record.getMessage()), err=True)


class Unheard(io.TextIOBase):
    """A stream that may be closed, full or a pipe without a reader: output is then lost.

    It has no ``buffer``, because click would use that to bypass it for ASCII.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> Any:  # type: ignore[override]
        return self._stream.errors

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed by this program
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        # A bar is shown on a terminal, and only the process that prints shows one.
        return speaks() and not self._stream.closed and bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())
