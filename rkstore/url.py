"""Files at a URL: a directory, S3, HTTP, the Hub or SFTP, all through fsspec.

Nothing else in rkstore knows what is behind a URL. What comes back is bytes, never an object,
and whoever asks bounds them; which paths are asked for follows from a manifest, never from
what a listing says.
"""

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec

from rkstore.errors import BadInput, RkstoreError
from rkstore.lock import let_go, take_lock
from rkstore.store import ASIDE

# What each scheme needs besides fsspec, which comes with rkstore's other requirements.
PACKAGES = {
    "file": "fsspec",
    "s3": "s3fs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
BLOCK_BYTES = 2**20

# Many files are small, and each costs a round trip: ask for some at once.
AT_ONCE = 8


class NotThere(RkstoreError):
    """There is no file at that path, or it may not be read: servers tell the two apart or not."""


def is_url(text: object) -> bool:
    """Whether that is a URL and not a local path."""
    return "://" in str(text)


class Location:
    """A directory at a URL."""

    def __init__(self, url: str) -> None:
        """Find what speaks to that URL; nothing is read yet.

        Raises:
            BadInput: no such URL can be used, or what it needs is not installed.
            RkstoreError: the server cannot be reached, or does not let one in.
        """
        self.scheme = url.partition("://")[0].lower() if is_url(url) else "file"
        # No password in what is printed.
        self.url = re.sub(r"//[^/@]*@", "//", url.rstrip("/"))
        if self.scheme not in PACKAGES or "::" in url or "?" in url:
            raise BadInput(
                f"'{self.url}' is no place for a store: give a directory, or a URL that begins "
                f"with {', '.join(f'{scheme}://' for scheme in PACKAGES)}"
            )
        with self._telling(""):
            self._fs, self._root = _file_system(self.scheme, url)
            self._fs.invalidate_cache()  # what an earlier Location listed may have changed
        self.name = posixpath.basename(self._root)
        # One SFTP session answers one question at a time.
        self.at_once = 1 if self.scheme in ("sftp", "ssh") else AT_ONCE

    def blocks(self, path: str, size: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, some at a time.

        Args:
            size: how many there should be, which spares some servers a question.

        Raises:
            NotThere: there is no such file.
            RkstoreError: it cannot be read.
        """
        options: dict[str, Any] = {}
        if self.scheme in ("http", "https"):
            options = {"block_size": 0, "size": size or None}  # one request, streamed
        elif self.scheme == "hf":
            options = {"block_size": 0}
        elif self.scheme == "s3":
            options = {"block_size": 8 * BLOCK_BYTES}
        with self._telling(path), self._fs.open(self._at(path), "rb", **options) as file:
            if hasattr(file, "prefetch"):
                file.prefetch(max_concurrent_requests=64)
            while block := file.read(BLOCK_BYTES):
                yield block

    def read(self, path: str, most: int) -> bytes:
        """A small file; of one larger than ``most`` bytes the first few more than that."""
        content = bytearray()
        for block in self.blocks(path):
            content += block
            if len(content) > most:
                break
        return bytes(content)

    def read_optional(self, path: str, most: int) -> bytes | None:
        """A small file, or None if it is not there."""
        try:
            return self.read(path, most)
        except NotThere:
            return None

    @contextmanager
    def writing(self) -> Iterator[dict[str, int]]:
        """Write to the directory; gives the size of every file in it, by path.

        Raises:
            BadInput: this kind of URL cannot be written to, or another process writes there.
        """
        if self.scheme in ("http", "https"):
            raise BadInput(f"{self.url} can be read only: push to s3://, sftp:// or a directory")
        if self.scheme == "hf":
            raise BadInput(
                "each file pushed to hf:// would be a commit of its own: use "
                "'hf upload-large-folder USER/NAME STORE --repo-type dataset'"
            )
        lock = None
        if self.scheme == "file":
            Path(self._root).mkdir(parents=True, exist_ok=True)
            lock = take_lock(Path(self._root))
        try:
            yield self._sizes()
        finally:
            # The line may be down by now: then the next push clears what is left aside.
            with suppress(Exception):
                if self.scheme != "s3" and self._fs.isdir(self._at(ASIDE)):
                    self._fs.rm(self._at(ASIDE), recursive=True)
            if lock is not None:
                let_go(lock, Path(self._root))

    def put(self, path: str, source: Path) -> None:
        """Copy a local file there. Whoever reads meanwhile finds the old one or the new one."""
        with self._telling(path, "write"):
            if self.scheme == "s3":  # an object appears as a whole
                self._fs.put_file(str(source), self._at(path))
                return
            aside, target = self._at(f"{ASIDE}/{path.replace('/', '__')}"), self._at(path)
            self._fs.makedirs(posixpath.dirname(aside), exist_ok=True)
            self._fs.put_file(str(source), aside)
            self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
            rename = os.replace if self.scheme == "file" else self._fs.ftp.posix_rename
            rename(aside, target)

    def put_bytes(self, path: str, content: bytes) -> None:
        """Write a small file there, as a whole."""
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "content"
            source.write_bytes(content)
            self.put(path, source)

    def remove(self, path: str) -> None:
        with self._telling(path, "remove"):
            self._fs.rm_file(self._at(path))

    def _sizes(self) -> dict[str, int]:
        with self._telling(""):
            try:
                found = self._fs.find(self._root, detail=True)
            except FileNotFoundError:
                if self.scheme == "s3":  # a prefix need not exist, a bucket does
                    raise
                return {}
        before = f"{self._root}/"
        return {path.removeprefix(before): int(info["size"]) for path, info in found.items()}

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _telling(self, path: str, doing: str = "read") -> Iterator[None]:
        """Make one sentence of whatever a backend raises: each has exceptions of its own."""
        place = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except RkstoreError:
            raise
        except ImportError:
            package = PACKAGES[self.scheme]
            raise BadInput(
                f"{self.scheme}:// needs {package}: pip install {package}, "
                "or 'rkstore[share]' for all there are"
            ) from None
        except Exception as raised:
            error = _behind(raised)
            if isinstance(error, FileNotFoundError | PermissionError) or _status(error) == 403:
                reason = f"{place} is not there, or is not for you to {doing}"
                raise NotThere(f"{reason}: {_line(error)}") from None
            raise RkstoreError(
                f"cannot {doing} {place}: {_line(error)}; what is there is kept, "
                "run the same command again to go on"
            ) from None


def _file_system(scheme: str, url: str) -> tuple[Any, str]:
    """What speaks to a URL, and the path it has there, without a slash at its end."""
    options: dict[str, Any] = {}
    if scheme == "file":
        path = unquote(url.partition("://")[2]) if is_url(url) else url
        return fsspec.filesystem("file"), str(Path(path).resolve())
    if scheme in ("http", "https"):
        import aiohttp

        # A large file may take long; a server that says nothing for a minute is gone.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options = {"client_kwargs": {"timeout": timeout}}
    elif scheme in ("sftp", "ssh"):
        options = {"host_key_policy": _known_hosts_only(), "skip_instance_cache": True}
    fs, root = fsspec.core.url_to_fs(url, **options)
    return fs, str(root).rstrip("/")


def _known_hosts_only() -> Any:
    """A policy that lets in the servers that ``ssh`` knows, where fsspec's lets in anyone."""
    import paramiko

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:  # noqa: ARG002
            file = Path("~/.ssh/known_hosts").expanduser()
            known = paramiko.HostKeys(str(file)) if file.is_file() else paramiko.HostKeys()
            if not known.check(hostname, key):
                raise BadInput(
                    f"the {key.get_name()} key of {hostname} is not in {file}: "
                    "connect to it once with ssh, or add it with ssh-keyscan"
                )

    return KnownHosts()


def _behind(error: Exception) -> Exception:
    """What really happened: over HTTP a server that is down is said to lack the file as well."""
    cause = error.__cause__
    missing = cause is None or isinstance(cause, FileNotFoundError) or _status(cause) in (403, 404)
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and not missing:
        return cause
    return error


def _status(error: BaseException) -> int | None:
    status: int | None = getattr(error, "status", None)
    return status


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
