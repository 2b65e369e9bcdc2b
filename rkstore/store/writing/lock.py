"""One writer at a time: whether a directory is free for a store, and its lock.

It is the kernel's lock on a file, so it ends with the process that holds it, however that ends;
the file's content only names that process.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import KEPT, LOCK, MANIFEST, make_directory, writing

# What the system says of a lock that another process has. Anything else is no lock at all.
HELD = (errno.EWOULDBLOCK, errno.EACCES)

# Whoever asks who writes here holds the lock for a moment: these are the seconds between tries.
MOMENTS = (0.01, 0.05, 0.1)


def holds_store(root: Path, begun: set[str], head: str = MANIFEST) -> bool:
    """Whether there is a store in a directory, which need not exist yet.

    Args:
        begun: names of files that a writer may leave there before the manifest.
        head: what is there in place of the manifest, if it is no store that is looked for.

    Raises:
        BadInput: it is a file, or holds something else.
    """
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is a file: choose another --out")
    others = sorted({file.name for file in root.iterdir()} - begun) if root.is_dir() else []
    if others and head not in others:
        what = "store" if head == MANIFEST else head
        raise BadInput(
            f"{root} is not empty and holds no {what} ({others[0]} is there): choose another --out"
        )
    return bool(others)


def claim(root: Path, begun: set[str], head: str = MANIFEST) -> tuple[BinaryIO, bool]:
    """Lock a directory for a store, made if need be; and whether a store is in it.

    It is looked at under the lock: another writer may have begun, and finished, a moment before.

    Args:
        begun: see :func:`holds_store`, as for ``head``.

    Raises:
        BadInput: another process is writing to it, it is a file, or it holds something else.
        RkstoreError: its file system has no locks.
    """
    holds_store(root, begun, head)  # nothing is made where it must not be
    root.mkdir(parents=True, exist_ok=True)
    lock = take_lock(root)
    try:
        return lock, holds_store(root, begun, head)
    except BaseException:
        unlock(lock, root)
        raise


def take_lock(root: Path, name: str = LOCK, what: str | None = None) -> BinaryIO:
    """Lock a directory that exists; give what is returned to :func:`unlock`.

    Args:
        name: of the file, where only a part of the directory is locked.
        what: that part, for the sentence.

    Raises:
        BadInput: another process is writing to it.
        RkstoreError: its file system has no locks.
    """
    while True:
        # Never through a link: its target would be truncated.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        lock = os.fdopen(os.open(root / name, flags, 0o644), "a+b")
        try:
            _lock_now(lock)
        except OSError as error:
            holder = _holder(lock)
            lock.close()
            if error.errno in HELD:
                raise BadInput(
                    f"{what or root} is being written by {holder}: wait for it or stop it"
                ) from None
            (root / name).unlink(missing_ok=True)
            raise RkstoreError(
                f"{what or root} cannot be locked: {os.strerror(error.errno or 0)}; write to a "
                "file system that has locks (flock), and copy it from there"
            ) from None
        # Its holder may have removed the file after we opened it: then we have locked a file
        # that nobody else can find.
        if _same_file(lock, root / name):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n".encode())
            lock.flush()
            return lock
        lock.close()


def _lock_now(lock: BinaryIO) -> None:
    """Lock a file; raise what the system says if another process has it for more than a moment."""
    for moment in MOMENTS:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD:
                raise
        time.sleep(moment)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def writer_of(root: Path) -> str | None:
    """Who is writing to a directory, such as ``process 123``; None if nobody is."""
    try:
        # A stranger's lock may be a link, or a pipe that nobody ever opens.
        descriptor = os.open(root / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return _holder(lock) if error.errno in HELD else None
    return None


def unlock(lock: BinaryIO, root: Path, name: str = LOCK) -> None:
    """Unlock the directory."""
    (root / name).unlink(missing_ok=True)
    lock.close()


@contextmanager
def locked(target: Path, what: str | None = None) -> Iterator[None]:
    """Hold the lock of what one process at a time writes, by a file beside it.

    Raises:
        BadInput: another process is writing it.
    """
    name = f".{target.name}.lock"
    with writing(target, KEPT):
        make_directory(target.parent)
        lock = take_lock(target.parent, name, what or str(target))
    try:
        yield
    finally:
        unlock(lock, target.parent, name)


def _holder(lock: BinaryIO) -> str:
    lock.seek(0)
    number = lock.read(32).strip()
    return f"process {number.decode()}" if number.isdigit() else "another process"


def _same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
