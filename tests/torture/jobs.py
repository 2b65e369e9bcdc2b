"""What is done over bad lines: pulls, reads and pushes, and what is right and wrong after them."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import numpy as np
from conftest import make_manifest, make_values, write_store
from hub_server import REPOSITORY
from line import Bytes, Line
from web_faults import SILENCE, Web
from works import HOOK, Files, differences, placed

from rkstore.errors import RkstoreError
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.settings import PullSettings
from rkstore.store.places import retry, url
from rkstore.store.places.remote import RemoteStore

BUCKET = "place"


@dataclass(frozen=True)
class Job:
    """Something that is done over a line."""

    name: str
    line: Line
    begin: Callable[[Path], object]
    """What is done before, while the line is good."""
    attempt: Callable[[Path], object]
    """Do it, in a directory."""
    wrong: Callable[[Path, bool], str | None]
    """What is wrong in the directory, and whether it was done."""
    right: Callable[[Path], str | None]
    """What is not as it should be in the end."""
    writes: bool = False


class Network:
    """Stores behind bad lines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.web, self.hub, self.s3, self.sftp = Web(), Web(), Web(), Bytes()
        self.store, self.older, self.large = (root / "web" / n for n in ("store", "older", "large"))
        shape = {"codec": "float32", "sites": {HOOK: 40}, "shard_rows": 32}
        manifest = make_manifest(rows=96, **shape)  # type: ignore[arg-type]
        self.values = make_values(manifest)
        write_store(self.store, manifest, self.values)
        write_store(self.older, manifest, self.values, shards=2)
        large = make_manifest(rows=32 * 12, **shape)  # type: ignore[arg-type]
        write_store(self.large, large, make_values(large))
        self.rights = [placed(self.store), placed(self.older)]

    @contextmanager
    def served(self, with_s3: bool) -> Iterator[None]:
        """The servers, each in a process of its own, and how they are reached."""
        home = self.root / "home"
        with ExitStack() as stack:
            for line, server in (
                (self.web, apart.web(self.root / "web")),
                (self.hub, apart.hub(self.root / "web", f"http://127.0.0.1:{self.hub.port}")),
                *([(self.s3, apart.s3())] if with_s3 else []),
                (self.sftp, apart.sftp(home, self.sftp.port)),
            ):
                line.to = stack.enter_context(server)
                stack.callback(line.close)
            environment = apart.s3_environment(self.s3.port) | {"HOME": home}
            environment["RKSTORE_CACHE"] = self.root / "cache"
            stack.enter_context(_set(environment, f"http://127.0.0.1:{self.hub.port}"))
            if with_s3:
                apart.make_bucket(BUCKET, environment)
                push(self.store, f"s3://{BUCKET}/store")
                push(self.older, f"s3://{BUCKET}/older")
            yield

    def jobs(self) -> list[Job]:
        """Everything that is done."""
        web = f"http://127.0.0.1:{self.web.port}/store"
        sftp = f"sftp://me:secret@127.0.0.1:{self.sftp.port}{self.root}"
        s3 = f"s3://{BUCKET}"
        return [
            self._pull("pull over HTTP", self.web, web),
            self._read("read over HTTP", self.web, web),
            self._pull("pull from the Hub", self.hub, f"hf://datasets/{REPOSITORY}/store"),
            self._pull("pull from S3", self.s3, f"{s3}/store"),
            self._read("read from S3", self.s3, f"{s3}/store"),
            self._push("push to S3", self.s3, s3),
            self._pull("pull over SFTP", self.sftp, f"{sftp}/web/store"),
            self._push("push over SFTP", self.sftp, f"{sftp}/pushed"),
        ]

    def mixed(self) -> Job:
        """A pull of a store of more files, which must be whole in the end."""
        at, right = f"http://127.0.0.1:{self.web.port}/large", placed(self.large)

        def attempt(here: Path) -> None:
            pull(at, PullSettings(out=str(here / "out")))

        def differs(here: Path) -> str | None:
            found = placed(here / "out")
            return None if found == right else differences(found, right)

        wrong = lambda here, done: differs(here) if done else None  # noqa: E731
        return Job("pull", self.web, lambda _: None, attempt, wrong, differs)

    def _pull(self, name: str, line: Line, at: str) -> Job:
        def attempt(here: Path) -> None:
            pull(at, PullSettings(out=str(here / "out")))

        return Job(
            name,
            line,
            lambda _: None,
            attempt,
            lambda here, done: self._wrong(placed(here / "out"), done),
            lambda here: self._differs(placed(here / "out")),
        )

    def _wrong(self, files: Files, done: bool) -> str | None:
        """A store that is shorter by whole shards is right: it says so itself."""
        if done and files not in self.rights:
            return f"it ended well with {differences(files, self.rights[0])}"
        known = {p for right in self.rights for p in right}
        for path in sorted(files.keys() & known):
            right = [files.get(path) for files in self.rights]
            if files[path] not in right and not path.endswith("zarr.json"):
                return f"{path} has wrong bytes"
        return None

    def _differs(self, files: Files) -> str | None:
        same = files == self.rights[0]
        return None if same else f"in the end there are {differences(files, self.rights[0])}"

    def _read(self, name: str, line: Line, at: str) -> Job:
        found: dict[Path, Any] = {}

        def attempt(here: Path) -> None:
            store = RemoteStore(at, here / "cache")
            found[here] = {HOOK: store.read(HOOK), "token_id": store.column("token_id")}

        def wrong(here: Path, done: bool) -> str | None:
            for name, array in found.get(here, {}).items() if done else ():
                if not np.array_equal(array, self.values[name][: len(array)]):
                    return f"{name} has wrong numbers"
            return None

        def right(here: Path) -> str | None:
            return None if len(found.pop(here)[HOOK]) == 96 else "rows are missing"

        return Job(name, line, lambda _: None, attempt, wrong, right)

    def _push(self, name: str, line: Line, at: str) -> Job:
        """Push over an older state of the store, which must stay readable."""

        def attempt(here: Path) -> None:
            push(self.store, f"{at}/{here.name}")

        def pulled(here: Path) -> Files:
            shutil.rmtree(here / "copy", ignore_errors=True)
            pull(f"{at}/{here.name}", PullSettings(out=str(here / "copy")))
            return placed(here / "copy")

        def wrong(here: Path, done: bool) -> str | None:
            try:
                return self._differs(pulled(here)) if done else self._wrong(pulled(here), True)
            except RkstoreError as error:
                return f"what is there cannot be pulled: {error}"

        def right(here: Path) -> str | None:
            return self._differs(pulled(here))

        def begin(here: Path) -> None:
            push(self.older, f"{at}/{here.name}")

        return Job(name, line, begin, attempt, wrong, right, writes=True)


@contextmanager
def _set(environment: dict[str, object], endpoint: str) -> Iterator[None]:
    """These variables and this Hub, small blocks and short waits, in this process."""
    import huggingface_hub.constants as hub

    before, waits = dict(os.environ), (retry.WAITS, url.SILENT_SECONDS, url.BLOCK_BYTES)
    hubs, hub.ENDPOINT = hub.ENDPOINT, endpoint
    os.environ |= {name: str(value) for name, value in environment.items()}
    for chatty in ("paramiko", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL + 1)
    retry.WAITS, url.SILENT_SECONDS = (0.02, 0.05, 0.2), SILENCE / 2  # type: ignore[assignment]
    url.BLOCK_BYTES = 1024  # so that a small file arrives in pieces
    try:
        yield
    finally:
        retry.WAITS, url.SILENT_SECONDS, url.BLOCK_BYTES = waits
        hub.ENDPOINT = hubs
        os.environ.clear()
        os.environ |= before
