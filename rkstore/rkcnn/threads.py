"""The same work for many items, an item on each core."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of any machine: each has working memory of its own.
MOST_THREADS = 8


def one_item_a_core(
    work: Callable[[Item], Result], items: Iterable[Item], device: "torch.device"
) -> Iterator[Result]:
    """What ``work`` returns for each item, in order; several are under way at once.

    On a CPU, torch has many small operations share their work among its threads, which then
    mostly wait for each other. Here each thread does one item alone. Other devices order
    their work themselves and get one item at a time.
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
            torch.set_num_threads(threads)  # threads begun later take the number set last


def _compute_alone() -> None:
    import torch

    torch.set_num_threads(1)
