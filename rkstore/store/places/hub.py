"""The Hugging Face Hub: what a URL names there, what its cache holds, what its errors mean."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

T = TypeVar("T")


class Repository(NamedTuple):
    """A repository of the Hub, and a directory in it."""

    kind: str
    """``model`` or ``dataset``."""
    name: str
    """``USER/NAME``."""
    revision: str = "main"
    under: str = ""
    """The directory; empty for all of it."""

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://{kind}{self.name}{at}" + (f"/{self.under}" if self.under else "")


def repository_of(url: object) -> Repository | None:
    """What ``hf://[datasets/]USER/NAME[@REVISION][/DIRECTORY]`` names; None for any other text."""
    form = r"hf://(datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?"
    found = re.fullmatch(form, str(url).rstrip("/"), re.IGNORECASE)
    if found is None or found[2].startswith("datasets/"):
        return None
    kind = "dataset" if found[1] else "model"
    return Repository(kind, found[2], unquote(found[3] or "main"), unquote(found[4] or ""))


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of a model in the Hub's cache, or None: a branch does not say what was loaded."""
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision or "main")
    # The cache lays each commit out as <model>/snapshots/<commit>/.
    return Path(path).parent.name if isinstance(path, str) else None


def fail_fast() -> None:
    """Make the Hub's libraries use only their cache if the Hub's name cannot be resolved.

    Without this they try for half a minute before they report that there is no network.
    Call it before ``transformers`` or ``datasets`` is imported: they read the variable once.
    """
    if "HF_HUB_OFFLINE" in os.environ or any(name in os.environ for name in PROXIES):
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def with_status(work: Callable[[], T]) -> T:
    """Do the work; an error of the Hub gets the ``status`` by which retries are decided."""
    try:
        return work()
    except Exception as error:
        response = getattr(error, "response", None)
        if response is not None:
            error.status = response.status_code  # type: ignore[attr-defined]
        raise


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of the Hub's library."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
