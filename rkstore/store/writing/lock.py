"""One writer at a time: whether a directory is free for a store, and its lock.

It is the kernel's lock on a file, so it ends with the process that holds it, however that ends;
the file's content only names that process.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import BadInput
from rkstore.store.files import KEPT, LOCK, MANIFEST, make_directory, writing


def holds_store(root: Path, begun: set[str]) -> bool:
    """Whether there is a store in a directory, which need not exist yet.

    Args:
        begun: names of files that a writer may leave there before the manifest.

    Raises:
        BadInput: it is a file, or holds something else.
    """
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is a file: choose another --out")
    others = sorted({file.name for file in root.iterdir()} - begun) if root.is_dir() else []
    if others and MANIFEST not in others:
        raise BadInput(
            f"{root} is not empty and holds no store ({others[0]} is there): choose another --out"
        )
    return bool(others)


def take_lock(root: Path, name: str = LOCK, what: str | None = None) -> BinaryIO:
    """Lock a directory that exists; give what is returned to :func:`unlock`.

    Args:
        name: of the file, where only a part of the directory is locked.
        what: that part, for the sentence.

    Raises:
        BadInput: another process is writing to it.
    """
    while True:
        # Never through a link: its target would be truncated.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        lock = os.fdopen(os.open(root / name, flags, 0o644), "a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(32).decode(errors="replace").strip() or "another process"
            lock.close()
            raise BadInput(
                f"{what or root} is being written by process {holder}: wait for it or stop it"
            ) from None
        # Its holder may have removed the file after we opened it: then we have locked a file
        # that nobody else can find.
        if _same_file(lock, root / name):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n".encode())
            lock.flush()
            return lock
        lock.close()


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


def _same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
