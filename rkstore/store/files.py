"""A file is there as a whole or not at all: names, links, digests, and how one is put in place.

Whatever is written waits aside until all of it is on the disk, and is renamed into place then.
Paths of a store may come from a stranger, so none of them leads out of its directory.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rkstore.errors import DamagedStore, RkstoreError

MANIFEST, JOURNAL, PART = "manifest.json", "shards.jsonl", "part.json"

# What a writer leaves in the directory besides: its lock, and files that are not in place yet.
LOCK, ASIDE = ".lock", ".writing"

# What the Hub puts beside the files of a repository, and shows as its page.
HUB_FILES = {".gitattributes", "README.md"}

# What is larger is not read. A journal of 12 sites in shards of 8,192 rows has 1.5 GB at 10⁹ rows.
LARGEST_MANIFEST, LARGEST_JOURNAL = 16 * 2**20, 4 * 2**30

# What the system says of a file that is missing, or is no file: the store has lost it.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
FULL = (errno.ENOSPC, errno.EDQUOT)

# What a failed write leaves of a file that is replaced as a whole.
KEPT = "what was there before is intact"


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file."""

    bytes: int
    sha256: str


def record_of(content: bytes) -> FileRecord:
    """The record of a file with that content."""
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(path: str | os.PathLike[str]) -> Path:
    """A file or directory as a user named it: ``~`` is theirs, nothing else has a meaning."""
    return Path(os.path.expanduser(os.fspath(path)))  # noqa: PTH111 - Path's own refuses ~nobody


def place(root: Path, path: str) -> Path:
    """Where a file of a store can be put as a whole, replacing what is there.

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


def read_small(root: Path, path: str, most: int) -> bytes | None:
    """A small file of a store, or None if there is none.

    Of a file larger than ``most`` bytes, the first few more than that; and no more than its
    size: some files of the system have none, and never end.

    Raises:
        DamagedStore: see :func:`inside`.
        RkstoreError: the system does not let it be read.
    """
    try:
        with reading(path, root), inside(root, path).open("rb") as file:
            return file.read(min(os.fstat(file.fileno()).st_size, most + 1))
    except (FileNotFoundError, NotADirectoryError):
        return None


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


def in_place(root: Path, path: str, recorded: FileRecord) -> bool:
    """Whether a file need not be written again: it can be read, and is what was recorded."""
    with suppress(RkstoreError):
        return intact(root, path, recorded)
    return False


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


@contextmanager
def writing(root: Path, kept: str = "the shards recorded so far are intact") -> Iterator[None]:
    """Make one sentence of what the system says while files are written.

    Args:
        kept: what is not lost, for the sentence.

    Raises:
        RkstoreError: the disk is full or failed; what was written before is intact.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in FULL or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        way_on = "make room" if full else "mend that"
        kept = f"{kept}, "
        if error.errno == errno.ENOENT and not root.exists():
            reason, kept, way_on = "it was removed meanwhile", "", "keep it in place"
        raise RkstoreError(
            f"cannot write to {root}: {reason}; {kept}{way_on} and run the same command again"
        ) from None


def aside(root: Path, path: str, mark: str = "") -> Path:
    """Where a new file for that path of a store waits; nothing is there yet.

    Args:
        mark: keeps two processes apart that may write the same file at once.
    """
    waiting = own(root, f"{ASIDE}/{path.replace('/', '__')}{mark}")
    waiting.parent.mkdir(exist_ok=True)
    waiting.unlink(missing_ok=True)
    return waiting


def into_place(waiting: Path, target: Path) -> None:
    """Rename a synced file to where it belongs, so that a power cut does not undo it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting.replace(target)
    sync(target.parent)


def put(root: Path, path: str, content: bytes) -> None:
    """Put a small file of a store in place as a whole, unless it is there already."""
    if in_place(root, path, record_of(content)):
        return
    waiting = aside(root, path, f".{os.getpid()}")
    waiting.write_bytes(content)
    sync(waiting)
    into_place(waiting, place(root, path))


def sync(path: Path) -> None:
    """Make a written file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, so that a power cut does not undo it."""
    new = [above for above in (path, *path.parents) if not above.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in new:
        sync(directory.parent)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files beside any store: renamed once all are whole and on the disk.

    Raises:
        RkstoreError: the disk is full or failed; each file is what it was, or the new one.
    """
    waiting: dict[Path, Path] = {}
    try:
        with writing(Path(os.path.commonpath([path.parent for path in files])), KEPT):
            for path, content in files.items():
                make_directory(path.parent)
                waiting[path] = _beside(path)
                waiting[path].write_bytes(content)
                sync(waiting[path])
            for path in files:
                waiting[path].replace(path)
            for directory in {path.parent for path in files}:
                sync(directory)
    finally:
        for path in waiting.values():
            remove(path)


@contextmanager
def directory_aside(target: Path, replaces: bool = False) -> Iterator[Path]:
    """A new directory to fill, renamed to ``target`` once it is whole and on the disk.

    Args:
        replaces: a directory that is there is removed first, once the new one is whole.

    Raises:
        OSError: by then there is a file, or a directory that is not empty.
    """
    make_directory(target.parent)
    waiting = _beside(target)
    try:
        waiting.mkdir()
        yield waiting
        for path in (*waiting.rglob("*"), waiting):
            sync(path)
        if replaces:
            remove(target)
        waiting.replace(target)
        sync(target.parent)
    finally:
        remove(waiting)


def clear_aside(directory: Path, names: str) -> None:
    """Remove what processes that have ended left waiting in a directory.

    Args:
        names: a regular expression for the names that it waited to have.
    """
    left = re.compile(rf"\.(?:{names})(?:\.(?P<process>\d+))?\.writing", re.DOTALL | re.ASCII)
    for path in list(directory.iterdir()) if directory.is_dir() else ():
        found = left.fullmatch(path.name)
        # Version 0.1 left no number.
        if found and not (found["process"] and _runs(int(found["process"]))):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """Where what this process writes to ``target`` waits; nothing is there."""
    clear_aside(target.parent, re.escape(target.name))
    waiting = target.with_name(f".{target.name}.{os.getpid()}.writing")
    remove(waiting)
    return waiting


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return True
