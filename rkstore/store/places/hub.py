"""The Hugging Face Hub: which commit its cache holds, and what to do without a network."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


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
