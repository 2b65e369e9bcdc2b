"""Several transfers at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def each(work: Callable[[str], None], paths: Iterable[str], at_once: int) -> None:
    """Do the work for every path, several at once; the first failure ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        for _ in pool.map(work, paths):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
