"""Files of a store, written atomically: names, links, digests.

A file is written to a temporary name, synced, and renamed into place. Paths in a store are
untrusted, so none of them may lead out of its directory.
"""

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import DamagedStore, RkstoreError

MANIFEST, JOURNAL, PART = "manifest.json", "shards.jsonl", "part.json"

# In place of a manifest, in a directory with a piece of a harvest: no store yet.
PIECE = "piece.json"

# Other files of a writer: its lock, and files that are not in place yet.
LOCK, ASIDE = ".lock", ".writing"

# Files that the Hub adds to a repository, and its page.
HUB_FILES = {".gitattributes", "README.md"}

# What is larger is not read. A journal of 12 sites in shards of 8,192 rows has 1.5 GB at 10⁹ rows.
LARGEST_MANIFEST, LARGEST_JOURNAL = 16 * 2**20, 4 * 2**30

# A quarter of this, as hashlib takes, has threads wait four times as often for the interpreter.
HASHED_AT_ONCE = 2**20

# System errors for a missing file, or something that is not a file: the store has lost it.
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
    digest = hashlib.sha256()
    held = memoryview(bytearray(min(HASHED_AT_ONCE, path.stat().st_size + 1)))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(held):
            digest.update(held[:count])
    return digest.hexdigest()


def is_recorded(file: Path, recorded: FileRecord) -> bool:
    """Whether a file has the size and the SHA-256 that were recorded."""
    return file.stat().st_size == recorded.bytes and sha256(file) == recorded.sha256


def named(path: str | os.PathLike[str]) -> Path:
    """A path as given by a user: ``~`` is the home directory, nothing else is special."""
    return Path(os.path.expanduser(os.fspath(path)))  # noqa: PTH111 - Path's own refuses ~nobody


def place(root: Path, path: str) -> Path:
    """The path at which a file of a store can be put in place, replacing any other.

    Raises:
        DamagedStore: one of its directories is a link, which could lead anywhere.
    """
    at = root
    for name in path.split("/")[:-1]:
        at /= name
        if at.is_symlink():
            raise _linked(root, path)
    return root / path


def _linked(root: Path, path: str) -> DamagedStore:
    return DamagedStore(f"{path} of {root} is reached by a symbolic link: copy it instead")


def inside(root: Path, path: str) -> Path:
    """The path at which a file of a store can be read, whether or not it exists.

    The file may be a link, as in download caches: its content is compared with the record,
    wherever it is.

    Raises:
        DamagedStore: its directory is a link, or it is not a file: reading a pipe never ends.
    """
    at = place(root, path)
    if os.path.lexists(at) and not at.is_file():
        raise DamagedStore(f"{path} of {root} is not a file, nor a link to one")
    return at


def own(root: Path, path: str) -> Path:
    """The path at which a file of a store can be written: never through a link.

    Raises:
        DamagedStore: there is a link, or something that is not a file.
    """
    at = inside(root, path)
    if at.is_symlink():
        raise DamagedStore(
            f"{path} of {root} is a symbolic link, which is read but never written to: copy the "
            f"store to continue it"
        )
    return at


def read_small(root: Path, path: str, most: int) -> bytes | None:
    """A small file of a store, or None if there is none.

    From a file larger than ``most`` bytes, slightly more than that; and never more than its size,
    because some system files have none and never end.

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
    """Whether a file of a store matches its record.

    Raises:
        RkstoreError: the system does not let it be read.
    """
    try:
        with reading(path, root):
            return is_recorded(inside(root, path), recorded)
    except (DamagedStore, OSError):
        return False


def in_place(root: Path, path: str, recorded: FileRecord) -> bool:
    """Whether a file need not be written again: it can be read, and is what was recorded."""
    with suppress(RkstoreError):
        return intact(root, path, recorded)
    return False


@contextmanager
def reading(path: str, where: object) -> Iterator[None]:
    """Turn a system error into one sentence, unless the file does not exist.

    Raises:
        RkstoreError: the system failed; the content of the file is unknown.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in LOST:  # libraries' own errors have none
            raise
        way_on = "fix that and read it again"
        if error.errno in TOO_MANY_OPEN:
            way_on = "raise the limit on open files, with 'ulimit -n 4096'"
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
        way_on = "make room" if full else "fix that"
        kept = f"{kept}, "
        if error.errno == errno.ENOENT and not root.exists():
            reason, kept, way_on = "it was removed meanwhile", "", "keep it in place"
        raise RkstoreError(
            f"cannot write to {root}: {reason}; {kept}{way_on} and run the same command again"
        ) from None


def aside(root: Path, path: str, mark: str = "") -> Path:
    """The temporary path for a new file of a store; nothing is there yet.

    Args:
        mark: distinguishes processes that may write the same file at once.
    """
    waiting = own(root, f"{ASIDE}/{waiting_name(path, mark)}")
    waiting.parent.mkdir(exist_ok=True)
    waiting.unlink(missing_ok=True)
    return waiting


def open_aside(root: Path, path: str, mark: str = "") -> BinaryIO:
    """A new file to write for that path of a store, put there by :func:`into_place`.

    Args:
        mark: see :func:`aside`.

    Raises:
        DamagedStore: a link leads to where it would wait.
    """
    name = waiting_name(path, mark)
    with _directory_of(root, f"{ASIDE}/{name}") as at:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.fdopen(os.open(name, flags, 0o666, dir_fd=at), "wb")


def into_place(root: Path, path: str, mark: str = "", attempt: str = "") -> None:
    """Rename a synced file that waits aside to its path, so that a power cut does not undo it.

    Args:
        attempt: the directory below that of waiting files in which it waits, if there is one.

    Raises:
        DamagedStore: one of its directories is a link; none can become one meanwhile.
    """
    name = waiting_name(path, mark)
    waiting = "/".join(filter(None, (ASIDE, attempt, name)))
    with _directory_of(root, waiting) as waits, _directory_of(root, path) as goes:
        os.rename(name, path.rpartition("/")[2], src_dir_fd=waits, dst_dir_fd=goes)
        os.fsync(goes)


def put(root: Path, path: str, content: bytes) -> None:
    """Put a small file of a store in place as a whole, unless it is there already."""
    if in_place(root, path, record_of(content)):
        return
    mark = f".{os.getpid()}"
    with open_aside(root, path, mark) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    into_place(root, path, mark)


def waiting_name(path: str, mark: str = "") -> str:
    """The name under which a file waits to be put at that path of a store."""
    return f"{path.replace('/', '__')}{mark}"


@contextmanager
def _directory_of(root: Path, path: str) -> Iterator[int]:
    """A descriptor of a file's directory, made if there is none, and never reached by a link."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in path.split("/")[:-1]:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=at)
                os.fsync(at)
            if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise _linked(root, path)
            above, at = at, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(above)
        yield at
    finally:
        os.close(at)


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
        OSError: ``target`` is now a file, or a directory that is not empty.
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
        try:
            sync(target.parent)
        except OSError:  # it must not be there and refused by who runs the command again
            target.replace(waiting)
            raise
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
