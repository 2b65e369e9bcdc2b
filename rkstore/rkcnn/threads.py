"""The same work for many items, one item per core."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# A limit on any machine: each thread has its own working memory.
MOST_THREADS = 8


def one_item_a_core(
    work: Callable[[Item], Result], items: Iterable[Item], device: "torch.device"
) -> Iterator[Result]:
    """The results of ``work`` for each item, in order; several run in parallel.

    On a CPU, torch splits small operations among its threads, which then mostly wait for each
    other. Here each thread processes one item alone. Other devices schedule their own work and get
    one item at a time.
    """
    import torch

    if device.type != "cpu":
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(min(threads, MOST_THREADS), initializer=_compute_alone) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # new threads use the number set last


def _compute_alone() -> None:
    import torch

    torch.set_num_threads(1)
