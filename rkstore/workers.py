"""Workers of Ray: their options, the cluster started or joined, its errors as sentences."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from rkstore.errors import BadInput, RkstoreError, one_line
from rkstore.settings import option

# How often Ray tries again what a worker died of, before it gives up.
RETRIES = 3

# Memory for what Ray carries between processes, never activations. Ray's least.
CARRIED_BYTES = 100 * 2**20


def how_many(each: str) -> Any:
    """The option of how many workers; ``each`` says what one of them has."""
    return option(2, f"Workers, each with {each}.", least=1, identity=False, newer=True)


def which_cluster() -> Any:
    """The option of the cluster that they are in."""
    return option(
        None,
        "Ray cluster to join, HOST:PORT or auto; without it, workers are started on this machine.",
        identity=False,
        newer=True,
    )


def check_no_number(device: str) -> None:
    """Raise BadInput if a certain device of a machine is asked for: workers are given theirs."""
    if ":" in device:
        raise BadInput(
            "each worker has a device of its own: give --device without a number, such as cuda"
        )


def library() -> Any:
    """Ray.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise BadInput("--engine ray needs Ray: pip install 'rkstore[ray]'") from None
    return ray


@contextmanager
def cluster(workers: int, threads: int, address: str | None) -> Iterator[None]:
    """Be connected to a cluster; leave one that this process has joined already.

    Ray prints what it tells of a worker that died, where this program prints its results: it goes
    to stderr.

    Args:
        address: of one that is running; without it one is started here, with room for so many
            workers of so many threads.

    Raises:
        BadInput: it cannot be joined, or started.
    """
    ray = library()
    if ray.is_initialized():
        with redirect_stdout(sys.stderr):
            yield
        return
    options: dict[str, Any] = {"address": address}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"address": "local", "num_cpus": workers * threads, "include_dashboard": False}
        options |= {"object_store_memory": CARRIED_BYTES}
    try:
        # What workers print stays in Ray's own logs.
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        where = "start on this machine" if address is None else f"join {address}"
        raise BadInput(f"Ray cannot {where}: {one_line(error)}") from None
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with redirect_stdout(StringIO()):
            ray.shutdown()


@contextmanager
def one_sentence() -> Iterator[None]:
    """Give an error of a worker as it is, and one of Ray as a sentence."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, RkstoreError):
            raise error.cause from None
        raise RkstoreError(f"a worker failed: {one_line(error.cause)}") from None
    except RayError as error:
        raise RkstoreError(
            f"a worker of Ray died, and {RETRIES} more in its place ({one_line(error)}): what was "
            "recorded is kept, run the same command again to continue"
        ) from None
