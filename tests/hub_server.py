"""A Hugging Face Hub on loopback with one dataset repository whose files can be read."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "org/acts"

# Larger files lie elsewhere, as those in LFS do: the Hub says where.
LARGE = 1000


class Hub(ThreadingHTTPServer):
    """It serves a directory as the repository, be it ``main`` or ``v1``, and tells what it sent."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.root = root
        self.token: str | None = None
        """What a private repository is read with; None for a public one."""
        self.asked: list[str] = []
        """The path of every request."""
        self.served: dict[str, int] = {}
        """Bytes that were sent of each file."""
        self.told_elsewhere: list[str] = []
        """Tokens that were sent to where large files lie, which is another host."""
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}/elsewhere"


class Requests(BaseHTTPRequestHandler):
    """The requests for a file: ``resolve`` answers with it, or with the way to it."""

    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        with self.server.lock:
            self.server.asked.append(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path.startswith("/elsewhere/"):
            if token:
                self.server.told_elsewhere.append(token)
            self.send_file(self.path.removeprefix("/elsewhere/"))
            return
        found = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/(?:main|v1)/(.+)", self.path)
        if found is None or found[1] != REPOSITORY or token != (self.server.token or token):
            # A repository that is not there and one that is private look the same.
            self.send(401, {"X-Error-Message": "Invalid username or password."})
        elif not (self.server.root / found[2]).is_file():
            self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif (self.server.root / found[2]).stat().st_size < LARGE:
            self.send_file(found[2])
        else:
            size = (self.server.root / found[2]).stat().st_size
            linked = {"X-Linked-Size": str(size), "X-Repo-Commit": COMMIT}
            self.send(302, linked | {"Location": f"{self.server.elsewhere}/{found[2]}"})

    def send_file(self, path: str) -> None:
        content = (self.server.root / path).read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, stop = int(asked[1]), int(asked[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status, content = 206, content[start:stop]
        if self.command == "GET":
            with self.server.lock:
                self.server.served[path] = self.server.served.get(path, 0) + len(content)
        self.send(status, headers, content)

    def send(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serve that directory until the block ends."""
    hub = Hub(root)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
