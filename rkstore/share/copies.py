"""How files are copied, whichever way."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rkstore.errors import size


@dataclass(frozen=True)
class Moved:
    """How much a push or a pull had to move."""

    files: int
    bytes: int
    present: int
    """Files that were there already."""

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}; {self.present} were there"


def each(work: Callable[[str], None], paths: Iterable[str], at_once: int) -> None:
    """Do the work for every path, some at once; the first failure ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        for _ in pool.map(work, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
