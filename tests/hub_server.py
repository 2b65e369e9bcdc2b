"""A Hugging Face Hub on loopback: repositories whose files can be read, and committed to."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "org/acts"

# Larger files lie elsewhere, as those in LFS do: the Hub says where.
LARGE = 1000


# Every branch or tag of a repository is its last commit.
REVISION = r"(?:main|v1|[0-9a-f]{40})"

# With it any repository may be written to.
WRITES = "hf_writes"


class Hub(ThreadingHTTPServer):
    """It serves directories as repositories and tells what it sent.

    Args:
        repositories: by kind and name, ``datasets/org/acts`` or ``models/gpt2``.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.repositories = repositories
        self.token: str | None = None
        """What a private repository is read with; None for a public one."""
        self.asked: list[str] = []
        """The path of every request."""
        self.served: dict[str, int] = {}
        """Bytes that were sent of each file."""
        self.told_elsewhere: list[str] = []
        """Tokens that were sent to where large files lie, which is another host."""
        self.commit = COMMIT
        """The last commit."""
        self.commits: list[list[str]] = []
        """The paths that each commit added."""
        self.uploaded: dict[str, bytes] = {}
        """Large files, committed or not, by their SHA-256."""
        self.uploads = 0
        """How often a large file was sent."""
        self.ignored: set[str] = set()
        """Files that a ``.gitignore`` names."""
        self.rival = False
        """Whether someone else commits while files are uploaded."""
        self.full = False
        """Whether large files are refused."""
        self.home: Path | None = None
        """Where repositories are created."""
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}/elsewhere"


class Requests(BaseHTTPRequestHandler):
    """The requests for files and for lists of them.

    ``resolve`` answers with a file, or with the way to it; ``api`` tells what there is.
    """

    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        found = re.fullmatch(
            r"/api/(repos/create|validate-yaml)"
            r"|/api/(.+)/(preupload|commit)/[^/]+|/(.+)\.git/info/lfs/objects/batch",
            path,
        )
        if found is None:
            self.answer(body)
            return
        with self.server.lock:
            self.server.asked.append(self.path)
        if self.headers.get("Authorization", "") != f"Bearer {WRITES}":
            self.send(401, {"X-Error-Message": "Invalid username or password."})
        elif found[1] == "validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif found[1]:
            self.create(json.loads(body))
        elif found[3] == "preupload":
            self.preupload(json.loads(body)["files"])
        elif found[3]:
            self.commit(found[2], [json.loads(line) for line in body.splitlines()])
        else:
            self.batch(json.loads(body)["objects"])

    def do_PUT(self) -> None:
        """A large file, sent to where the batch said."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rpartition("/")[2]
        if self.server.full or hashlib.sha256(content).hexdigest() != name:
            self.send(400, {})
            return
        with self.server.lock:
            self.server.uploaded[name] = content
            self.server.uploads += 1
        self.send(200, {})

    def create(self, asked: dict[str, str]) -> None:
        kind = asked.get("type", "model")
        name = f"{kind}s/{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            told = json.dumps({"url": f"{self.server.url}/{name}"}).encode()
            self.send(409, {"X-Error-Message": "You already created this repo"}, told)
            return
        assert self.server.home is not None
        self.server.repositories[name] = self.server.home / asked["name"]
        self.server.repositories[name].mkdir(parents=True)
        (self.server.repositories[name] / ".gitattributes").write_text("*.bin filter=lfs\n")
        self.send_json({"url": f"{self.server.url}/{name}", "private": asked.get("visibility")})

    def preupload(self, files: list[dict[str, object]]) -> None:
        """Which files are sent apart, as large ones are."""
        if self.server.rival:
            self.server.commit = "f" * 40
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if int(str(file["size"])) >= LARGE else "regular",
                "shouldIgnore": file["path"] in self.server.ignored,
                "oid": None,
            }
            for file in files
        ]
        self.send_json({"files": modes})

    def batch(self, objects: list[dict[str, object]]) -> None:
        told = []
        for one in objects:
            there = str(one["oid"]) in self.server.uploaded
            way = {"upload": {"href": f"{self.server.elsewhere}/{one['oid']}"}}
            told.append(one | ({} if there else {"actions": way}))
        self.send_json({"transfer": "basic", "objects": told})

    def commit(self, name: str, lines: list[dict[str, dict[str, str]]]) -> None:
        header, *operations = lines
        with self.server.lock:
            if header["value"].get("parentCommit", self.server.commit) != self.server.commit:
                self.send(412, {"X-Error-Message": "A commit has happened since."})
                return
            root, added = self.server.repositories[name], []
            for operation in operations:
                value = operation["value"]
                path = root / value["path"]
                if str(operation["key"]) == "deletedFile":
                    path.unlink()
                    continue
                large = str(operation["key"]) == "lfsFile"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(
                    self.server.uploaded[value["oid"]]
                    if large
                    else base64.b64decode(value["content"])
                )
                added.append(value["path"])
            self.server.commits.append(added)
            self.server.commit = hashlib.sha1(repr(self.server.commits).encode()).hexdigest()
        self.send_json({"commitUrl": f"{self.server.url}/{name}", "commitOid": self.server.commit})

    def send_json(self, shown: object) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(shown).encode())

    def answer(self, body: bytes = b"") -> None:
        with self.server.lock:
            self.server.asked.append(self.path)
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path.startswith("/elsewhere/"):
            if token:
                self.server.told_elsewhere.append(token)
            self.send_file(path.removeprefix("/elsewhere/"))
            return
        found = re.fullmatch(rf"/(.+)/resolve/{REVISION}/(.+)", path)
        listed = re.fullmatch(
            rf"/api/(.+?)(?:/(revision|tree|paths-info)/{REVISION}(?:/(.*))?)?", path
        )
        name = listed[1] if listed else self.repository(found[1]) if found else ""
        known = (WRITES, self.server.token or token)
        if name not in self.server.repositories or token not in known:
            # A repository that is not there and one that is private look the same.
            self.send(401, {"X-Error-Message": "Invalid username or password."})
        elif listed:
            self.send_list(name, listed[2], listed[3] or "", body)
        elif found:
            self.send_way(name, found[2])

    def repository(self, name: str) -> str:
        return name if name.startswith("datasets/") else f"models/{name}"

    def send_way(self, name: str, path: str) -> None:
        """A file, or where it lies."""
        file = self.server.repositories[name] / path
        if not file.is_file():
            self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.server.commit})
        elif file.stat().st_size < LARGE:
            self.send_file(f"{name}/{path}")
        else:
            linked = {
                "X-Linked-Size": str(file.stat().st_size),
                "X-Linked-ETag": f'"{digest(file)}"',
                "X-Repo-Commit": self.server.commit,
            }
            self.send(302, linked | {"Location": f"{self.server.elsewhere}/{name}/{path}"})

    def send_list(self, name: str, what: str | None, under: str, body: bytes) -> None:
        """What a repository is, or what lies in a directory of it, or the files asked for."""
        root = self.server.repositories[name]
        shown: object
        if what == "tree":
            recursive = "recursive=true" in self.path.lower()
            found = (root / under).rglob("*") if recursive else (root / under).glob("*")
            shown = [entry(root, path) for path in sorted(found)]
        elif what == "paths-info":
            asked = parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
            shown = [entry(root, root / path) for path in asked if (root / path).exists()]
        else:
            files = [path for path in sorted(root.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": path.relative_to(root).as_posix()} for path in files]
            shown = {"id": name.split("/", 1)[1], "sha": self.server.commit, "siblings": siblings}
        self.send(200, {"Content-Type": "application/json"}, json.dumps(shown).encode())

    def send_file(self, path: str) -> None:
        name = next(n for n in self.server.repositories if path.startswith(f"{n}/"))
        path = path.removeprefix(f"{name}/")
        file = self.server.repositories[name] / path
        content = file.read_bytes()
        headers = {"ETag": f'"{digest(file)}"', "X-Repo-Commit": self.server.commit}
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
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def entry(root: Path, path: Path) -> dict[str, object]:
    """What a list says of a file or directory."""
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": COMMIT}
    content = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    told: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if len(content) < LARGE:
        return told
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return told | {"lfs": lfs}


@contextmanager
def serving(root: Path | dict[str, Path]) -> Iterator[Hub]:
    """Serve a directory as ``REPOSITORY``, or several by kind and name, until the block ends."""
    hub = Hub(root if isinstance(root, dict) else {f"datasets/{REPOSITORY}": root})
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
