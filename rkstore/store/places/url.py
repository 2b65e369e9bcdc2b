"""Files at a URL, to read: a directory, S3, HTTP, the Hub or SFTP, all through fsspec.

Only this module and, for writing, :mod:`rkstore.store.writing.destination` know what is behind a
URL. Results are bytes, bounded by the caller, never objects; paths come from a manifest, never
from a listing.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import fsspec

from rkstore.errors import BadInput, DamagedStore, RkstoreError
from rkstore.store.contents import Contents, read_contents
from rkstore.store.files import JOURNAL, MANIFEST, PART, PIECE, inside, named
from rkstore.store.places.hub import repository_of
from rkstore.store.places.ranges import OTHER_BYTES, Part, from_file, from_http, from_s3
from rkstore.store.places.retry import patiently, status_of, until_whole

# What each scheme needs besides fsspec, which rkstore requires anyway.
PACKAGES = {
    "file": "fsspec",
    "s3": "s3fs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface_hub aiohttp",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
HTTP, SFTP = ("http", "https", "hf"), ("sftp", "ssh")
BLOCK_BYTES = 2**20

# A large file may take long; a server that is silent for a minute is gone.
SILENT_SECONDS = 60

# Statuses for a missing file, or one that this user may not see.
HIDDEN = (401, 403, 404)
PARTIAL = 206

# Files transferred in parallel: many are small, and each costs a round trip.
AT_ONCE = 8

T = TypeVar("T")


class NotThere(RkstoreError):
    """No file at that path, or no permission: not every server says which."""


def is_url(text: object) -> bool:
    """Whether that is a URL and not a local path."""
    return "://" in str(text)


class Location:
    """A directory at a URL, read-only."""

    def __init__(self, url: str | Path) -> None:
        """Connect to that URL; nothing is read yet.

        Raises:
            BadInput: the URL cannot be used, or a package is not installed.
            RkstoreError: the server cannot be reached, or refuses access.
        """
        url = str(url)
        self.scheme = url.partition("://")[0].lower() if is_url(url) else "file"
        # Never print a password.
        self.url = re.sub(r"://[^/@]*@", "://", url.rstrip("/"))
        # To fsspec, :: joins two URLs and ? is a wildcard. In a directory's name they are ordinary.
        if self.scheme not in PACKAGES or (is_url(url) and ("::" in url or "?" in url)):
            raise BadInput(
                f"'{self.url}' is not a valid place for a store: give a directory, or a URL that "
                f"begins with {', '.join(f'{scheme}://' for scheme in PACKAGES)}"
            )
        self._given = url
        with self._one_sentence(""):
            patiently(self._connect)
            self._fs.invalidate_cache()  # an earlier listing may be outdated
        # On the Hub, the URL may end with the repository and its revision.
        named = re.sub(r"@[^/]*", "", self.url) if self.scheme == "hf" else self._root
        self.name = posixpath.basename(named)
        # An SFTP session answers one request at a time.
        self.at_once = 1 if self.scheme in SFTP else AT_ONCE

    def _connect(self) -> None:
        connected, self._root = _file_system(self.scheme, self._given)
        self._held = os.getpid(), connected

    @property
    def _fs(self) -> Any:
        """The file system, connected by this process: after a fork, the connection is another's.

        Several threads may connect at once: none sees the connection before it is there.
        """
        if self._held[0] != os.getpid():
            self._connect()
        return self._held[1]

    def blocks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, some at a time. If the connection breaks, they continue from there.

        Raises:
            NotThere: there is no such file.
            RkstoreError: it cannot be read.
        """
        download = _Download(lambda at, tag: self._open(path, at, tag))
        with self._one_sentence(path), closing(download):
            while block := self._patiently(download.block):
                yield block

    def read(self, path: str, most: int) -> bytes:
        """A small file; of one larger than ``most`` bytes, slightly more than that."""
        content = bytearray()
        for block in self.blocks(path):
            content += block
            if len(content) > most:
                break
        return bytes(content)

    def part(self, path: str, start: int, stop: int) -> Part:
        """Some bytes of a file, in one request.

        Raises:
            NotThere: there is no such file.
            NoRanges: the server sends whole files only.
            RkstoreError: it cannot be read.
        """
        ask = from_http if self.scheme in HTTP else from_s3 if self.scheme == "s3" else from_file
        if self.scheme == "file":
            inside(Path(self._root), path)

        def answer() -> Part:
            found = ask(self._fs, self._at(path), start, stop)
            if len(found.content) != min(stop, found.total) - start:
                raise EOFError("the connection broke")
            return found

        with self._one_sentence(path):
            return self._patiently(answer)

    def contents(self) -> Contents:
        """Read and check the metadata of the store there.

        Raises:
            BadInput: there is no store, or it needs a newer rkstore.
            DamagedStore: one of its files is not what rkstore wrote.
            RkstoreError: it cannot be read.
        """

        def read(path: str, most: int) -> bytes | None:
            content = self.read_if_there(path, most)
            if content is None and path == PIECE:  # then it is no store either: say why
                self.read(MANIFEST, 0)
            return content

        try:
            return self.until_whole(lambda: read_contents(read, self.url))
        except NotThere as error:
            raise BadInput(f"there is no store at {self.url}: {error.sentence}") from None

    def read_if_there(self, path: str, most: int) -> bytes | None:
        """A small file of a store, checked to have arrived whole; None if there is none."""
        try:
            content = self.read(path, most)
        except NotThere:
            return None
        if self.scheme != "file":
            self._check_arrived(path, content)
        return content

    def _check_arrived(self, path: str, content: bytes) -> None:
        """Notice what the checks of a store would let pass: a file that is shorter, or other."""
        if path == JOURNAL and not content.endswith(b"\n") and content:
            raise DamagedStore(
                f"the last line of {self.url}/{path} has no end: the file was cut in transit, "
                "or is being written; run the same command again"
            )
        if path == PART or not content:  # an empty journal is that of a store without rows
            with suppress(NotThere):
                if self.read(path, len(content)) == content:
                    return
            raise DamagedStore(f"{self.url}/{path} changes from one read to the next")

    def until_whole(self, work: Callable[[], T]) -> T:
        """Do what fetches and checks, again if it is damaged; what a disk says, it says again."""
        return work() if self.scheme == "file" else until_whole(work)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _open(self, path: str, at: int, tag: str) -> tuple[Any, str]:
        """A file, to be read from that byte on, and what tells it from one that replaces it.

        Args:
            tag: of the file whose first bytes were read; empty if none were.
        """
        if self.scheme in HTTP:
            return _stream(self._fs, self._at(path), at, tag)
        if self.scheme == "file":
            inside(Path(self._root), path)
        options = {"block_size": 8 * BLOCK_BYTES} if self.scheme == "s3" else {}
        file = self._fs.open(self._at(path), "rb", **options)
        file.seek(at)
        if self.scheme in SFTP:
            found = file.stat()
            file.prefetch(found.st_size, max_concurrent_requests=64)
            return _Whole(file, found.st_size, at), f"{found.st_size} {found.st_mtime}"
        return file, str(file.details.get("ETag", "")) if self.scheme == "s3" else ""

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do what needs the connection, with retries if it breaks; never for a disk.

        s3fs retries by itself, but not what arrived damaged.
        """
        if self.scheme == "file":
            return work()
        return patiently(work, self._connect_again)

    def _connect_again(self) -> None:
        # The others connect whenever they need to; an SFTP session ends with its connection.
        if self.scheme in SFTP:
            self._fs.client.close()
            self._connect()

    @contextmanager
    def _one_sentence(self, path: str, doing: str = "read") -> Iterator[None]:
        """Turn a backend's exception into one sentence: each has its own exceptions."""
        where = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except RkstoreError:
            raise
        except ImportError:
            package = PACKAGES[self.scheme]
            raise BadInput(
                f"{self.scheme}:// needs {package}: pip install {package}, "
                "or 'rkstore[share]' for all schemes"
            ) from None
        except Exception as error:
            # S3 does not say whether an unreadable file exists; a disk does.
            absent = (FileNotFoundError, PermissionError)[: 2 if self.scheme == "s3" else 1]
            if isinstance(error, absent) or status_of(error) in HIDDEN:
                hint = "; if it is private, log in with 'hf auth login'" * (self.scheme == "hf")
                reason = f"{where} does not exist, or you may not {doing} it{hint}"
                raise NotThere(f"{reason}: {_line(error)}") from None
            raise RkstoreError(
                f"cannot {doing} {where}: {_line(error)}; what is there is kept, "
                "run the same command again to continue"
            ) from None


class _Download:
    """A file being downloaded. When reading fails, the next call opens it where it stopped."""

    def __init__(self, open: Callable[[int, str], tuple[Any, str]]) -> None:
        self._open = open
        self._file: Any = None
        self._at, self._tag = 0, ""

    def block(self) -> bytes:
        """The next bytes; none at the end."""
        try:
            if self._file is None:
                self._file, tag = self._open(self._at, self._tag)
                if self._at and tag != self._tag:
                    raise DamagedStore("the file was replaced while it was being read")
                self._tag = tag
            block: bytes = self._file.read(BLOCK_BYTES)
        except Exception:
            self.close()
            raise
        self._at += len(block)
        return block

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # the connection may be gone
                file.close()


class _Whole:
    """A file over SFTP whose end is checked: a connection that broke may look like the end."""

    def __init__(self, file: Any, size: int, at: int) -> None:
        self._file, self._left = file, size - at

    def read(self, count: int) -> bytes:
        block: bytes = self._file.read(count)
        self._left -= len(block)
        if not block and self._left > 0:
            raise EOFError("the connection broke")
        return block

    def close(self) -> None:
        self._file.close()


def _stream(fs: Any, url: str, at: int, tag: str) -> tuple[Any, str]:
    """A file over HTTP in one request, and its ETag."""
    # Bytes are counted: they must not be those of a compressed answer.
    headers = {"Accept-Encoding": "identity"}
    if at:
        headers["Range"] = f"bytes={at}-"
        if tag.startswith('"'):  # the weak ones are not to be compared
            headers["If-Range"] = tag
    # The size is not needed, but fsspec would ask for it.
    file = fs.open(url, "rb", block_size=0, size=-1, headers=headers)
    found = file.r.headers
    if at and file.r.status == PARTIAL:
        if not found.get("Content-Range", "").startswith(f"bytes {at}-"):
            file.close()
            raise OSError(OTHER_BYTES)
    elif at:  # a server without ranges sends all of it
        while at and (block := file.read(min(at, BLOCK_BYTES))):
            at -= len(block)
    return file, found.get("ETag", "")


def _file_system(scheme: str, url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path that the URL has there, without a final slash."""
    if scheme == "file":
        path = Path(unquote(url.partition("://")[2])) if is_url(url) else named(url)
        return fsspec.filesystem("file"), str(path.resolve())
    headers: dict[str, str] = {}
    if scheme == "hf":
        url, headers = _on_the_hub(url)
    options: dict[str, Any] = {}
    if scheme in HTTP:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=SILENT_SECONDS)
        # trust_env: use the proxy that every other program uses.
        client = {"timeout": timeout, "headers": headers, "trust_env": True}
        options = {"client_kwargs": client}
    elif scheme in SFTP:
        options = {"host_key_policy": _known_hosts_only(), "skip_instance_cache": True}
    fs, root = fsspec.core.url_to_fs(url, **options)
    if scheme in SFTP:
        fs.ftp.get_channel().settimeout(SILENT_SECONDS)
    return fs, str(root).rstrip("/")


def _on_the_hub(url: str) -> tuple[str, dict[str, str]]:
    """The HTTP address of a Hub repository's files, and the header with the token.

    Its own file system would list the directory of each file before fetching it.
    """
    from huggingface_hub import constants, get_token

    place = repository_of(url)
    if place is None:
        raise BadInput(f"'{url}' names no repository: give hf://datasets/USER/NAME")
    kind = "datasets/" if place.kind == "dataset" else ""
    at, path = quote(place.revision, safe=""), f"/{quote(place.under)}" if place.under else ""
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return f"{constants.ENDPOINT}/{kind}{place.name}/resolve/{at}{path}", headers


def _known_hosts_only() -> Any:
    """A policy that accepts the servers that ``ssh`` knows; fsspec's own accepts any."""
    import paramiko

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:  # noqa: ARG002
            file = named("~/.ssh/known_hosts")
            known = paramiko.HostKeys(str(file)) if file.is_file() else paramiko.HostKeys()
            if not known.check(hostname, key):
                raise BadInput(
                    f"the {key.get_name()} key of {hostname} is not in {file}: "
                    "connect to it once with ssh, or add it with ssh-keyscan"
                )

    return KnownHosts()


def _line(error: Exception) -> str:
    if type(error).__name__ == "TooManyRedirects":  # aiohttp says: 0, message=''
        return "the server sends us from one address to the next without end"
    return " ".join(str(error).split())[:300] or type(error).__name__
