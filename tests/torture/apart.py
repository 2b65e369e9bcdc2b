"""The servers of the tests, each in a process of its own."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hub_server
from line import Bytes, Connection
from processes import in_child, served, wait_for


@contextmanager
def s3() -> Iterator[int]:
    """The port of a server that speaks S3."""

    def serve(told: int) -> None:
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        os.write(told, f"{server.get_host_and_port()[1]}\n".encode())

    with served(serve) as port:
        yield port


def s3_environment(port: int) -> dict[str, object]:
    """The variables with which that server is found, and tried once by botocore."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_MAX_ATTEMPTS": 1,
    }


def make_bucket(name: str, environment: dict[str, object]) -> None:
    """Make a bucket, in a child: what speaks S3 has threads, which no later child may inherit."""

    def make() -> None:
        import s3fs

        os.environ |= {key: str(value) for key, value in environment.items()}
        s3fs.S3FileSystem().mkdir(name)

    assert wait_for(in_child(make)) == 0


@contextmanager
def sftp(home: Path, *fronts: int) -> Iterator[int]:
    """The port of an SFTP server, whose key is known at home.

    Args:
        fronts: ports of lines that lead to it.
    """
    import paramiko
    from sftp_server import serve as answer

    key = paramiko.ECDSAKey.generate()
    name = f"{key.get_name()} {key.get_base64()}"

    def serve(told: int) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        os.write(told, f"{listening.getsockname()[1]}\n".encode())
        answer(listening, key)

    with served(serve) as port:
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        known = "".join(f"[127.0.0.1]:{known} {name}\n" for known in (port, *fronts))
        (home / ".ssh" / "known_hosts").write_text(known)
        yield port


@contextmanager
def slow(to: int, seconds: float) -> Iterator[int]:
    """The port of a line to another on which everything comes so much later."""

    def later(data: bytes, _: Connection) -> bytes:
        time.sleep(seconds)
        return data

    def serve(told: int) -> None:
        line = Bytes()
        line.to, line.left = to, 10**9
        line.fault = later
        os.write(told, f"{line.port}\n".encode())

    with served(serve) as port:
        yield port


@contextmanager
def web(root: Path) -> Iterator[int]:
    """The port of an HTTP server of the files under a directory."""

    def serve(told: int) -> None:
        import http.server

        from servers import Handler

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.root, server.served, server.lock = root, [], threading.Lock()  # type: ignore[attr-defined]
        server.failures, server.ranges = [], True  # type: ignore[attr-defined]
        os.write(told, f"{server.server_port}\n".encode())
        server.serve_forever()

    with served(serve) as port:
        yield port


@contextmanager
def hub(root: Path, front: str) -> Iterator[int]:
    """The port of a Hub with one repository.

    Args:
        front: the address at which large files are said to lie.
    """

    def serve(told: int) -> None:
        server = hub_server.Hub({f"datasets/{hub_server.REPOSITORY}": root})
        server.elsewhere = f"{front}/elsewhere"
        os.write(told, f"{server.server_port}\n".encode())
        server.serve_forever()

    with served(serve) as port:
        yield port
