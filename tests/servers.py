"""Servers on loopback, and lines to them that break, as fixtures."""

import hashlib
import http.client
import http.server
import itertools
import os
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

import pytest


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges; every body it sends is counted by path."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body):
        path = self.path.lstrip("/")
        file = self.server.root / path
        if self.server.failures:
            self.send_error(self.server.failures.pop())
            return
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        start, stop, status = 0, len(content), 200
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        asked = self.headers.get("Range", "")
        same = self.headers.get("If-Range", tag) == tag
        if asked.startswith("bytes=") and self.server.ranges and same:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(int(last or stop - 1) + 1, stop), 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(stop - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if body:
            with self.server.lock:
                self.server.served.append((path, stop - start))
            with suppress(OSError):  # the line may have been cut
                self.wfile.write(content[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """An HTTP server of the files under ``tmp_path``; ``served`` is what it sent.

    It answers with the statuses in ``failures`` first, and without ``ranges`` sends whole files.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.served, server.lock = tmp_path, [], threading.Lock()
    server.failures, server.ranges = [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def s3_server():
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with pytest.MonkeyPatch.context() as patch:
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield server
        server.stop()


@pytest.fixture
def bucket(s3_server, tmp_path):  # noqa: ARG001
    """The URL of a new, empty place in S3."""
    import s3fs

    name = f"bucket-{abs(hash(tmp_path)) % 10**9}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/stores/one"


@pytest.fixture
def fetched_from():
    """Call it with a URL in S3 for every file there, by path."""
    import s3fs

    def fetch(url):
        fs, root = s3fs.S3FileSystem(skip_instance_cache=True), url.removeprefix("s3://")
        return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in sorted(fs.find(root))}

    return fetch


@pytest.fixture
def sftp(tmp_path, monkeypatch):
    """The URL of a directory behind an SFTP server whose key is known."""
    paramiko = pytest.importorskip("paramiko", reason="paramiko is not installed")
    from sftp_server import serve

    key = paramiko.ECDSAKey.generate()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    entry = f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n"
    (home / ".ssh" / "known_hosts").write_text(entry)
    monkeypatch.setenv("HOME", str(home))
    threading.Thread(target=serve, args=(listening, key), daemon=True).start()
    yield f"sftp://me:secret@127.0.0.1:{port}{tmp_path}/remote"
    listening.close()


@pytest.fixture
def bad_line():
    """Call it for a port that leads to another, over a line that is cut twice amid a file."""
    lines = []

    def make(port, cuts=2, after=2**20):
        listening = socket.create_server(("127.0.0.1", 0))
        line = BadLine(listening, port, cuts, after)
        lines.append(line)
        threading.Thread(target=line.serve, daemon=True).start()
        return listening.getsockname()[1], line

    yield make
    for line in lines:
        line.listening.close()


class BadLine:
    def __init__(self, listening, port, cuts, after):
        self.listening, self.port, self.cuts, self.after = listening, port, cuts, after

    def serve(self):
        with suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self.carry, args=(near, far), daemon=True).start()
                threading.Thread(target=self.carry_back, args=(far, near), daemon=True).start()

    def carry(self, near, far):
        with suppress(OSError):
            while data := near.recv(2**16):
                far.sendall(data)

    def carry_back(self, far, near):
        carried = 0
        with suppress(OSError):
            while data := far.recv(2**16):
                near.sendall(data)
                carried += len(data)
                if carried > self.after and self.cuts:
                    self.cuts -= 1
                    break
        for end in (near, far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


class Dropping(http.server.BaseHTTPRequestHandler):
    """Passes requests on to another server; one in twenty answers is refused or cut amid a body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        with server.lock:
            server.count += 1
            fault = next(server.faults) if server.count % 20 == 0 else ""
        if fault == "busy":
            self.answer(503, [("Content-Type", "application/xml")], SLOW_DOWN, len(SLOW_DOWN))
            return
        far = http.client.HTTPConnection("127.0.0.1", server.port)
        far.request(self.command, self.path, headers=dict(self.headers))
        found = far.getresponse()
        body = found.read()
        left = ("Connection", "Content-Length")
        kept = [pair for pair in found.getheaders() if pair[0] not in left]
        size = found.headers.get("Content-Length", str(len(body)))
        self.answer(found.status, kept, body, size, cut=fault == "cut")
        far.close()

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, headers, body, size, *, cut=False):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut or self.close_connection

    def log_message(self, *_):
        pass


@pytest.fixture
def dropping(bucket, monkeypatch):
    """A server between us and S3 that drops one request in twenty; ``url`` is the bucket's."""
    import s3fs

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dropping)
    server.port = urlsplit(os.environ["AWS_ENDPOINT_URL"]).port
    server.lock, server.count, server.faults = threading.Lock(), 0, itertools.cycle(["busy", "cut"])
    server.url = bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3fs.S3FileSystem.clear_instance_cache()  # those that have the other address
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
