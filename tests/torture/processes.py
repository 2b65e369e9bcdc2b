"""Work in a copy of this process, which may be killed, or bound, or end badly."""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Of the files for what commands say.
NUMBERS = itertools.count()


def in_child(work: Callable[[], object]) -> int:
    """Start the work in a copy of this process, which has imported everything already."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait_for(child: int) -> int:
    """The exit status of a child; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Command:
    """``rkstore`` with some words, in a child."""

    def __init__(
        self,
        words: Sequence[object],
        here: Path,
        first: Callable[[], object] = lambda: None,
        environment: Mapping[str, object] | None = None,
    ) -> None:
        """Start it.

        Args:
            here: the directory where it runs; what it says goes to a file beside that.
            first: what it does before anything else.
            environment: variables that it has besides those of this process.
        """
        self._log = here.with_name(f"{here.name}.{next(NUMBERS)}.log")
        self.child = in_child(
            lambda: self._run(list(map(str, words)), here, first, environment or {})
        )

    def _run(
        self,
        words: list[str],
        here: Path,
        first: Callable[[], object],
        environment: Mapping[str, object],
    ) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        told = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.chdir(here)
        os.environ |= {name: str(value) for name, value in environment.items()}
        sys.argv = ["rkstore", *words]
        from rkstore.cli import main

        first()
        main()

    def end(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.child, number)

    def wait(self) -> int:
        """Its exit status; negative if a signal ended it."""
        return wait_for(self.child)

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self._log.read_text("utf-8", "replace")

    def complaint(self) -> str | None:
        """What is wrong with the way in which it gave up; None if it said one sentence."""
        lines = [line for line in self.said.splitlines() if line.startswith("rkstore: ")]
        if "Traceback" in self.said or len(lines) != 1:
            return self.said[-1500:] or "nothing was said"
        return None


@contextmanager
def served(serve: Callable[[int], object]) -> Iterator[int]:
    """A server in a child until the block ends; its port.

    Args:
        serve: is given the descriptor to which it writes its port, and serves for ever.
    """
    told, tells = os.pipe()
    parent = os.getpid()

    def work() -> None:
        os.close(told)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        threading.Thread(target=serve, args=(tells,), daemon=True).start()
        while os.getppid() == parent:  # it does not outlive who started it
            time.sleep(0.2)

    child = in_child(work)
    os.close(tells)
    with os.fdopen(told) as line:
        port = line.readline()
    assert port, "the server did not start"
    try:
        yield int(port)
    finally:
        os.kill(child, signal.SIGKILL)
        wait_for(child)
