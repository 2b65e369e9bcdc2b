"""One writer at a time: whether a directory is free for a store, and its lock.

It is the kernel's lock on a file, so it ends with the process that holds it, however that ends;
the file's content only names that process.
"""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from rkstore.errors import BadInput
from rkstore.store.files import LOCK, MANIFEST


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


def take_lock(root: Path) -> BinaryIO:
    """Lock a directory that exists; give what is returned to :func:`unlock`.

    Raises:
        BadInput: another process is writing to it.
    """
    while True:
        # Never through a link: its target would be truncated.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        lock = os.fdopen(os.open(root / LOCK, flags, 0o644), "a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(32).decode(errors="replace").strip() or "another process"
            lock.close()
            raise BadInput(
                f"{root} is being written by process {holder}: wait for it or stop it"
            ) from None
        # Its holder may have removed the file after we opened it: then our lock is on an unlinked
        # file.
        if _same_file(lock, root / LOCK):
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n".encode())
            lock.flush()
            return lock
        lock.close()


def unlock(lock: BinaryIO, root: Path) -> None:
    """Unlock the directory."""
    (root / LOCK).unlink(missing_ok=True)
    lock.close()


def _same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
