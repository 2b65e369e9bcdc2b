"""How files move, whichever way."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rkstore.info import size
from rkstore.manifest import FileRecord
from rkstore.store import sha256


@dataclass(frozen=True)
class Moved:
    """How much a push or a pull had to move."""

    files: int
    bytes: int
    present: int
    """Files that were there already."""

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}; {self.present} were there"


def intact(file: Path, recorded: FileRecord) -> bool:
    """Whether a file is what was recorded of it."""
    try:
        return file.stat().st_size == recorded.bytes and sha256(file) == recorded.sha256
    except OSError:
        return False


def each(work: Callable[[str], None], paths: Iterable[str], at_once: int) -> None:
    """Do the work for every path, some at once; the first failure ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        for _ in pool.map(work, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
