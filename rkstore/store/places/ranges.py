"""Some bytes of a file at a URL, in one request.

The answer says how long the whole file is and what tells it from one that replaces it, so that
ranges of two files are never taken for one.
"""

import re
from typing import Any, NamedTuple

from rkstore.errors import RkstoreError

OTHER_BYTES = "the server sent other bytes than it was asked for"


class Part(NamedTuple):
    """The answer to a request for some bytes of a file."""

    content: bytes
    total: int
    """Bytes of the whole file."""
    tag: str = ""
    """Of S3, where another one means another file. Elsewhere it may be that of a server."""


class NoRanges(RkstoreError):
    """A server sends whole files only."""


def from_s3(fs: Any, path: str, start: int, stop: int) -> Part:
    """One request: a file that s3fs opens costs two."""
    from fsspec.asyn import sync

    bucket, key, _ = fs.split_path(path)

    async def answer() -> Part:
        asked = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}"}
        found = await fs._call_s3("get_object", **asked)
        async with found["Body"] as body:
            total = _total(found.get("ContentRange", ""), start)
            if found["ContentLength"] > stop - start:
                raise OSError(OTHER_BYTES)
            return Part(await body.read(), total, found.get("ETag", ""))

    part: Part = sync(fs.loop, answer)
    return part


def from_http(fs: Any, url: str, start: int, stop: int) -> Part:
    """Over HTTP; bytes are counted, so they must not be those of a compressed answer."""
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
    # The size is not needed, but fsspec would ask for it.
    with fs.open(url, "rb", block_size=0, size=-1, headers=headers) as file:
        found = file.r.headers
        total = _total(found.get("Content-Range", ""), start)
        content = b""
        while len(content) < stop - start and (block := file.read(stop - start - len(content))):
            content += block
        return Part(content, total)


def from_file(fs: Any, path: str, start: int, stop: int) -> Part:
    """From a disk, or over SFTP."""
    with fs.open(path, "rb") as file:
        total = file.seek(0, 2)
        file.seek(start)
        return Part(file.read(stop - start), total)


def _total(content_range: str, start: int) -> int:
    """The length of the whole file, of an answer that begins at that byte."""
    if not content_range:
        raise NoRanges("the server sends whole files only")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
    if found is None or int(found[1]) != start:
        raise OSError(OTHER_BYTES)
    return int(found[2])
