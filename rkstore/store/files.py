"""Paths: as a user names them, and those of the files in it, whose names may be a stranger's."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rkstore.errors import DamagedStore, RkstoreError

# What the system says of a file that is not there, or is none: then the store has lost it.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


def named(path: str | os.PathLike[str]) -> Path:
    """A file or directory as a user named it: ``~`` is theirs, nothing else has a meaning."""
    return Path(os.path.expanduser(os.fspath(path)))  # noqa: PTH111 - Path's own refuses ~nobody


def place(root: Path, path: str) -> Path:
    """Where a file of a store can be put as a whole, in place of what is there.

    Raises:
        DamagedStore: one of its directories is a link, which could lead anywhere.
    """
    at = root
    for name in path.split("/")[:-1]:
        at /= name
        if at.is_symlink():
            raise DamagedStore(f"{path} of {root} is reached by a symbolic link: copy it instead")
    return root / path


def inside(root: Path, path: str) -> Path:
    """Where a file of a store can be read, whether it is there or not.

    The file may be a link to another, as caches of downloads make them: what is read is
    compared with what was recorded, wherever it lies.

    Raises:
        DamagedStore: a link leads to its directory, or it is no file: reading a pipe never ends.
    """
    at = place(root, path)
    if os.path.lexists(at) and not at.is_file():
        raise DamagedStore(f"{path} of {root} is not a file, nor a link to one")
    return at


def own(root: Path, path: str) -> Path:
    """Where a file of a store can be opened to write: never through a link.

    Raises:
        DamagedStore: there is a link, or what is no file.
    """
    at = inside(root, path)
    if at.is_symlink():
        raise DamagedStore(
            f"{path} of {root} is a symbolic link, which is read and never written to: "
            "copy the store to go on with it"
        )
    return at


def read_at_most(file: Path, most: int) -> bytes:
    """A small file; of one larger than ``most`` bytes the first few more than that.

    No more than its size is read: some files of the system have none, and never end.
    """
    with file.open("rb") as opened:
        return opened.read(min(os.fstat(opened.fileno()).st_size, most + 1))


@contextmanager
def reading(path: str, where: object) -> Iterator[None]:
    """Make one sentence of what the system says, unless it is that there is no such file.

    Raises:
        RkstoreError: the system failed; nothing is known of what is in the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in LOST:  # what a library says of bytes has none
            raise
        way_on = "mend that and read it again"
        if error.errno in TOO_MANY_OPEN:
            way_on = "let more files be open at once, with 'ulimit -n 4096'"
        raise RkstoreError(
            f"cannot read {path} of {where}: {os.strerror(error.errno)}; {way_on}"
        ) from None


MANIFEST = "manifest.json"


JOURNAL = "shards.jsonl"


PART = "part.json"


LARGEST_MANIFEST = 16 * 2**20


LARGEST_JOURNAL = 256 * 2**20


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file."""

    bytes: int
    sha256: str


def record_of(content: bytes) -> FileRecord:
    """The record of a file with that content."""
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


# What a writer leaves in the directory besides: its lock, and files not yet in place.
LOCK, ASIDE = ".lock", ".writing"


# What the Hub puts beside the files of a repository, and shows as its page.
HUB_FILES = {".gitattributes", "README.md"}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DiskErrors:
    """Turns what the operating system says about a disk into a sentence with a way on."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        way_on = "make room" if full else "mend that"
        raise RkstoreError(
            f"cannot write to {self.root}: {reason}; the shards recorded so far are intact, "
            f"{way_on} and run the same command again"
        ) from None


def sync_directory(path: Path) -> None:
    """Make a rename in that directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
