"""Work in a copy of this process, which may be killed, or bound, or end badly."""

import os
import sys
from collections.abc import Callable


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
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait_for(child: int) -> int:
    """The exit status of a child; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
