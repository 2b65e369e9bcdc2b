"""A repository of the Hugging Face Hub that is written to.

Files are uploaded some at a time and become part of the repository with the next commit.
Each commit names the one that it follows, so of two pushes at once the Hub refuses one.
"""

import hashlib
import posixpath
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rkstore.errors import BadInput, RkstoreError, one_line
from rkstore.store.files import JOURNAL, FileRecord, is_recorded
from rkstore.store.places.hub import repository_of, with_status, without_bars
from rkstore.store.writing.destination import Destination, Listed

# Files of a repository that are no store's: how git keeps large files, and the card.
ATTRIBUTES, CARD = ".gitattributes", "README.md"

# Statuses of a token that is missing or wrong or may not write, and of a commit that came too late.
NOT_ALLOWED, LATE = (401, 403), (409, 412)

# Files that are uploaded together: each upload costs requests, of which the Hub counts so many.
BATCH_FILES, BATCH_BYTES = 100, 2**28

T = TypeVar("T")


class HubDestination(Destination):
    """A directory of a repository, or all of it: of a dataset with a store, of a model with a
    dictionary."""

    # The Hub allows about a hundred commits an hour.
    journal_seconds = 300.0

    def __init__(
        self,
        url: str | Path,
        kind: str = "dataset",
        *,
        token: str | None = None,
        private: bool = True,
        message: str = "Activations of a language model (rkstore)",
    ) -> None:
        """As for a :class:`Location`.

        Args:
            kind: of the repository, ``dataset`` or ``model``.
            token: that may write there; the one of ``hf auth login`` or ``$HF_TOKEN`` if None.
            private: whether a repository that is created is private.
            message: of each commit.

        Raises:
            BadInput: the URL names no repository of that kind.
        """
        place = repository_of(url)
        if place is None or place.kind != kind:
            form = "hf://USER/NAME" if kind == "model" else "hf://datasets/USER/NAME"
            raise BadInput(f"{url} is no {kind}: push to {form}")
        super().__init__(url)
        from huggingface_hub import HfApi

        self._api = HfApi(token=token)
        self._kind, self._repository, self._revision, self._under = place
        self._private, self._message = private, message
        self._head = ""
        """The commit that the next one follows."""
        self._pending: dict[str, Any] = {}
        """What the next commit adds, by path; None removes the file."""
        self._waiting: list[Any] = []
        """Those of them that are not uploaded yet."""
        self._adding = threading.Lock()

    @contextmanager
    def writing(self, store: str) -> Iterator[set[str]]:  # noqa: ARG002 - a commit is the claim
        """Write to the directory; yields the path of every file in it.

        A repository that does not exist is created.

        Raises:
            BadInput: the token is missing, or may not write there.
        """
        if self._revision == "main":
            self._ask(
                lambda: self._api.create_repo(
                    self._repository, repo_type=self._kind, private=self._private, exist_ok=True
                )
            )
        found = self._list()
        with without_bars():
            yield found

    def has(self, path: str, recorded: FileRecord, source: Path) -> bool:
        """Whether the file there is what was recorded: the Hub states a digest of each file."""
        listed = self._listed.get(path)
        if listed is None or listed.bytes != recorded.bytes:
            return False
        if listed.tag == recorded.sha256:
            return True
        return is_recorded(source, recorded) and listed.tag == _blob(source.read_bytes())

    def has_bytes(self, path: str, content: bytes) -> bool:
        """Whether a small file there has that content."""
        listed = self._listed.get(path)
        return listed is not None and listed.tag in _digests(content)

    def put(self, path: str, source: Path) -> None:
        """Upload a local file, for the next commit, which the journal makes."""
        self._add(path, str(source))

    def put_bytes(self, path: str, content: bytes) -> None:
        """The same for a small file."""
        self._add(path, content)

    def remove(self, path: str) -> None:
        """Remove a file, with the next commit."""
        self._pending[path] = None

    def check_written(self) -> None:
        """Commit what was put, and look whether it is there: a ``.gitignore`` may have kept it off.

        Raises:
            BadInput: someone else committed meanwhile.
            RkstoreError: a file is not there.
        """
        self._commit()
        written, self._written = self._written, {}
        self._list()
        for path, sent in written.items():
            if path.startswith("/"):  # the card
                continue
            listed = self._listed.get(path)
            if listed is None or listed.bytes != sent.bytes:
                raise RkstoreError(
                    f"{path} was written to {self.url}, and it is not there: see whether a "
                    ".gitignore of the repository names it, and run the same command again"
                )

    def put_card(self, text: str, mark: str | None = None) -> None:
        """Write the card of the repository with the next commit, unless it has one.

        Args:
            mark: a line of ours: a card that has it is replaced.
        """
        there = self._card()
        if there is None or (mark is not None and mark in there and there != text):
            self._add(f"/{CARD}", text.encode())

    def _card(self) -> str | None:
        """The text of the card that the repository has, if it has one."""
        from huggingface_hub.errors import EntryNotFoundError

        def get() -> str | None:
            try:
                path = self._api.hf_hub_download(
                    self._repository, CARD, repo_type=self._kind, revision=self._head
                )
            except EntryNotFoundError:
                return None
            return Path(path).read_text("utf-8", errors="replace")

        return self._ask(get)

    def _add(self, path: str, content: str | bytes) -> None:
        from huggingface_hub import CommitOperationAdd

        added = CommitOperationAdd(self._path(path), content)
        with self._adding:
            self._pending[path] = added
            self._waiting.append(added)
            full = sum(one.upload_info.size for one in self._waiting) >= BATCH_BYTES
        if path == JOURNAL:
            self._commit()
        elif full or len(self._waiting) >= BATCH_FILES:
            self._upload()

    def _upload(self) -> None:
        """Upload what waits; small files travel in the commit itself."""
        with self._adding:
            waiting, self._waiting = self._waiting, []
        self._ask(
            lambda: self._api.preupload_lfs_files(
                self._repository,
                waiting,
                repo_type=self._kind,
                revision=self._revision,
                free_memory=False,
            )
        )

    def _commit(self) -> None:
        """One commit of all that is pending."""
        from huggingface_hub import CommitOperationDelete

        self._upload()
        with self._adding:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        operations = [
            CommitOperationDelete(self._path(path)) if added is None else added
            for path, added in pending.items()
        ]
        done = self._ask(
            lambda: self._api.create_commit(
                self._repository,
                operations,
                commit_message=self._message,
                repo_type=self._kind,
                revision=self._revision,
                parent_commit=self._head,
            ),
            # If its answer is lost, a commit may have been made: tried again, it would be refused.
            again=False,
        )
        self._head = done.oid
        for path, added in pending.items():
            if added is not None:
                self._written[path] = Listed(added.upload_info.size, "")

    def _list(self) -> set[str]:
        info = self._ask(
            lambda: self._api.repo_info(
                self._repository, repo_type=self._kind, revision=self._revision
            )
        )
        self._head = str(info.sha)
        entries = self._ask(
            lambda: list(
                self._api.list_repo_tree(
                    self._repository, recursive=True, repo_type=self._kind, revision=self._head
                )
            )
        )
        begin = f"{self._under}/" if self._under else ""
        self._listed = {
            entry.path.removeprefix(begin): Listed(
                entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id
            )
            for entry in entries
            if hasattr(entry, "size") and entry.path.startswith(begin)
        }
        return self._listed.keys() - {ATTRIBUTES, CARD}

    def _path(self, path: str) -> str:
        """The path in the repository; one with a slash in front is not below the directory."""
        return path[1:] if path.startswith("/") else posixpath.join(self._under, path)

    def _ask(self, work: Callable[[], T], again: bool = True) -> T:
        """Do what asks the Hub, with one sentence if it refuses."""
        try:
            return self._patiently(lambda: with_status(work)) if again else with_status(work)
        except Exception as error:
            status = getattr(error, "status", None)
            if status in NOT_ALLOWED or type(error).__name__ == "LocalTokenNotFoundError":
                raise BadInput(
                    f"you may not write to {self.url}: log in with 'hf auth login', or set "
                    "HF_TOKEN to a token that may write there"
                ) from None
            if status in LATE:
                raise BadInput(
                    f"{self.url} was changed by another commit meanwhile: run the same command "
                    "again, which sends what is missing"
                ) from None
            raise RkstoreError(
                f"cannot write to {self.url}: {one_line(error)}; what is there is kept, "
                "run the same command again to continue"
            ) from None


def _digests(content: bytes) -> tuple[str, str]:
    """What the Hub states of a file with that content: of a large one, and of a small one."""
    return hashlib.sha256(content).hexdigest(), _blob(content)


def _blob(content: bytes) -> str:
    """Git's name of a file."""
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
