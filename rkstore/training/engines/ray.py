"""Jobs as tasks of Ray: workers on this machine or on a cluster.

Ray starts the workers, and gives the job of one that died to another. Workers need the store and
the directory of the checkpoints under the same paths as here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rkstore.errors import BadInput
from rkstore.training.engines.base import Engine, R
from rkstore.workers import RETRIES, cluster, how_many, library, one_sentence, which_cluster


class Ray(Engine):
    """Workers of Ray."""

    name = "ray"
    workers: int = how_many("one pass over the store at a time")
    address: str | None = which_cluster()

    def check(self) -> None:
        """As of every engine."""
        library()

    def each(self, jobs: Sequence[Callable[[], R]], device: str) -> list[R]:
        """As of every engine; jobs are sent pickled."""
        import torch

        ray, threads = library(), torch.get_num_threads()
        gpus = int(device.startswith("cuda"))
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(_in_worker)
        found, going = dict[int, R](), dict[Any, int]()
        with (
            cluster(self.workers, threads, self.address),
            one_sentence(),
            tqdm(total=len(jobs), unit="pass", desc=f"{self.workers} workers", disable=None) as bar,
        ):
            try:
                for number, job in enumerate(jobs):
                    if len(going) == self.workers:
                        _take_one(going, found)
                        bar.update()
                    going[task.remote(job, threads, str(Path.cwd()))] = number
                while going:
                    _take_one(going, found)
                    bar.update()
            finally:
                for left in going:
                    ray.cancel(left, force=True)
        return [found[number] for number in range(len(jobs))]


def _take_one(going: dict[Any, int], found: dict[int, R]) -> None:
    """Wait for one of the tasks to be done."""
    ray = library()
    [task], _ = ray.wait([*going], num_returns=1)
    number = going.pop(task)
    found[number] = ray.get(task)


def _in_worker(job: Callable[[], R], threads: int, directory: str) -> R:
    """Do a job as this machine would.

    Args:
        threads: of torch; the last bits of a value depend on them.
        directory: that relative paths are from.
    """
    import torch

    torch.set_num_threads(threads)
    try:
        os.chdir(directory)
    except OSError:
        raise BadInput(
            f"a worker has no {directory}: start it where the store and --out are, or share them"
        ) from None
    return job()
