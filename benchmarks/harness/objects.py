"""A store behind a server that speaks S3, in a process of its own on loopback."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from sys import executable
from unittest import mock

from harness.row import NotMeasured
from rkstore.share.push import push

SERVER = "import sys; from moto.server import main; main(sys.argv[1:])"
BUCKET = "benchmark"
SECONDS = 30


@contextmanager
def in_s3(root: Path, cache_bytes: int) -> Iterator[str]:
    """The URL of a copy of a store in S3; the cache is empty, and at most that large.

    Raises:
        NotMeasured: moto or s3fs is not installed.
    """
    if find_spec("moto") is None or find_spec("s3fs") is None:
        raise NotMeasured("moto[server] or s3fs is not installed")
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryDirectory(dir=root.parent) as cache:
        environment = {
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "RKSTORE_CACHE": cache,
            "RKSTORE_CACHE_BYTES": str(cache_bytes),
        }
        with mock.patch.dict(os.environ, environment), _started(command) as server:
            try:
                _wait_for(port)
                s3fs.S3FileSystem().mkdir(BUCKET)
                url = f"s3://{BUCKET}/{root.name}"
                push(root, url)
                yield url
            finally:
                server.terminate()
                s3fs.S3FileSystem.clear_instance_cache()  # those that have this address


def _started(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(port: int) -> None:
    until = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise NotMeasured("the S3 server did not start") from None
            time.sleep(0.1)
