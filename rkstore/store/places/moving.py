"""How files move, whichever way."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rkstore.cli.terminal import size
from rkstore.errors import DamagedStore
from rkstore.store.files import inside, reading
from rkstore.store.manifest import FileRecord
from rkstore.store.store import sha256


@dataclass(frozen=True)
class Moved:
    """How much a push or a pull had to move."""

    files: int
    bytes: int
    present: int
    """Files that were there already."""

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}; {self.present} were there"


def intact(root: Path, path: str, recorded: FileRecord) -> bool:
    """Whether a file of a store is what was recorded of it.

    Raises:
        RkstoreError: the system does not let it be read.
    """
    try:
        with reading(path, root):
            file = inside(root, path)
            return file.stat().st_size == recorded.bytes and sha256(file) == recorded.sha256
    except (DamagedStore, OSError):
        return False


def each(work: Callable[[str], None], paths: Iterable[str], at_once: int) -> None:
    """Do the work for every path, some at once; the first failure ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        for _ in pool.map(work, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
