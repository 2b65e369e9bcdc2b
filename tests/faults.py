"""A disk that fills up at any of the writes of some work, one after another."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

NO_SPACE = "No space left on device"

# Where what the product writes reaches the disk, each as it fails there.
WRITES: tuple[tuple[Any, str], ...] = (
    (Path, "mkdir"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (Path, "replace"),
    (os, "fsync"),
    (safetensors.torch, "serialize_file"),
)


def full_at_each_write(work: Callable[[], object]) -> Iterator[Exception]:
    """Do the work with the disk full at its first write, its second, …, until it is done.

    Yields:
        What it raised each time. Of a file that was being written, the first half is there.
    """
    for write in range(1000):
        with pytest.MonkeyPatch.context() as patch:
            failed = fill(patch, write)
            try:
                work()
            except Exception as error:
                assert failed, "it fails without a full disk"
                raised = error
            else:
                assert not failed, "a full disk was not noticed"
                assert write > 0, "it wrote nothing"
                return
        yield raised


def fill(patch: pytest.MonkeyPatch, after: int) -> list[str]:
    """Let the disk be full after so many writes; the list has the one that failed."""
    failed: list[str] = []
    left = [after]

    def patched(where: Any, name: str) -> None:
        real = getattr(where, name)

        def write(*args: Any, **kwargs: Any) -> Any:
            if left[0] > 0:
                left[0] -= 1
                return real(*args, **kwargs)
            failed.append(name)
            if name in ("write_bytes", "write_text"):
                real(args[0], args[1][: len(args[1]) // 2], *args[2:], **kwargs)
            if name == "serialize_file":
                Path(args[1]).write_bytes(b"half")
                raise safetensors.SafetensorError(f"I/O error: {NO_SPACE} (os error 28)")
            raise OSError(errno.ENOSPC, NO_SPACE)

        patch.setattr(where, name, write)

    for where, name in WRITES:
        patched(where, name)
    return failed
