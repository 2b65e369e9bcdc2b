"""Retries after temporary failures: a broken connection, a busy server."""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TypeVar

from rkstore.errors import BadInput, DamagedStore, RkstoreError

T = TypeVar("T")

# Seconds before the second, the third and the last try.
WAITS = (0.5, 1.0, 2.0)

# What arrives damaged is fetched this many times more before the copy there is blamed.
AGAIN = 3

# A server that was asked too often says how many seconds to wait; more than this is ignored.
LONGEST_WAIT = 300.0

# Statuses below 500 worth a retry: request timeout, too early, too many requests.
PASSING = (408, 429)

# Every backend has its own exceptions, so these are the ones that a retry will not change.
LASTING = (
    AttributeError,
    FileExistsError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    LookupError,
    NotADirectoryError,
    PermissionError,
    RkstoreError,
    TypeError,
    ValueError,
)

# And those of libraries that need not be installed: who asks is not known.
UNKNOWN = ("AuthenticationException", "NoCredentialsError", "PartialCredentialsError")


def patiently(work: Callable[[], T], mend: Callable[[], object] = lambda: None) -> T:
    """Do the work; retry a few times if the failure may be temporary.

    Args:
        work: what to do; its result is returned, its last error raised.
        mend: called before each retry.
    """

    def again() -> T:
        mend()
        return work()

    attempt = work
    for wait in WAITS:
        try:
            return attempt()
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(max(wait, _asked_to_wait(error)))
        attempt = again
    return again()


def until_whole(work: Callable[[], T]) -> T:
    """Do the work; if what arrived cannot be used, a few times more: the line may have failed."""
    for _ in range(AGAIN):
        with suppress(DamagedStore, BadInput):
            return work()
    return work()


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception stands for."""
    if type(error.__cause__).__module__ == "aiohttp.http_exceptions":
        return None  # the answer was none: the status is aiohttp's own
    status: int | None = getattr(error, "status", None)
    return status


def _may_pass(error: Exception) -> bool:
    status = status_of(error)
    if status is None:
        return not isinstance(error, LASTING) and type(error).__name__ not in UNKNOWN
    return status in PASSING or status >= 500


def _asked_to_wait(error: Exception) -> float:
    """Seconds that a server wants us to wait, if it was asked too often."""
    headers: Mapping[str, str] = getattr(error, "headers", None) or {}
    after = headers.get("Retry-After", "")
    found = re.fullmatch(r"(\d{1,9})", after)
    # The Hub's way to say so: RateLimit: "resolvers";r=0;t=42
    found = found or re.search(r"r=0;t=(\d{1,9})", headers.get("RateLimit", ""))
    seconds = float(found[1]) if found else 0.0
    with suppress(ValueError):  # unless it is a date
        seconds = seconds or parsedate_to_datetime(after).timestamp() - time.time()
    return min(seconds, LONGEST_WAIT)
