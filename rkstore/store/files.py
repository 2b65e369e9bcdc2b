"""Paths: as a user names them, and those of the files in it, whose names may be a stranger's."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rkstore.errors import DamagedStore, RkstoreError

# What the system says of a file that is not there, or is none: then the store has lost it.
LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` as the home directory; a URL or a name on the Hub is as it was.

    ``~nobody``, where there is no such user, is a file of the working directory.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - Path's own refuses ~nobody


def named(path: str | os.PathLike[str]) -> Path:
    """A file or directory as a user named it: ``~`` is theirs, nothing else has a meaning."""
    return Path(expanded(path))


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
