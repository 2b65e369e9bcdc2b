"""Shards as tasks of Ray: workers on this machine or on a cluster, each with a model of its own.

Ray starts the workers, and starts one again that died, with the shard it was at. This process
records what they made, in order. A worker writes in a directory of its attempt alone, so what one
makes in vain, or too late, changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput, warn
from rkstore.harvest.engines.base import Engine, Shards
from rkstore.harvest.filling import fill
from rkstore.settings import replace
from rkstore.workers import RETRIES, cluster, how_many, library, one_sentence, which_cluster

if TYPE_CHECKING:
    from rkstore.harvest.model import Model
    from rkstore.harvest.run import Harvest
    from rkstore.harvest.settings import HarvestSettings
    from rkstore.harvest.tokens import BlockBatch
    from rkstore.store.writing.base import Writer
    from rkstore.store.writing.making import Attempts, Made
    from rkstore.store.writing.whole import Advance

# Shards of each worker that may be made and not yet recorded: a slow one holds up nobody for long,
# and what is made twice after an interruption stays small.
AHEAD = 4


class Ray(Engine):
    """Workers of Ray."""

    name = "ray"
    workers: int = how_many("a model of its own")
    address: str | None = which_cluster()

    def check(self) -> None:
        """As of every engine."""
        library()

    @property
    def at_once(self) -> int:
        """As of every engine."""
        return self.workers

    def describe(self) -> str:
        """As of every engine."""
        where = "" if self.address is None else f", cluster {self.address}"
        return f"{self.workers} {'worker' if self.workers == 1 else 'workers'} of Ray{where}"

    def shards(self, harvest: Harvest, writer: Writer, advance: Advance) -> Shards:
        """As of every engine."""
        if not writer.missing:
            return
        import torch

        ray, threads = library(), torch.get_num_threads()
        with cluster(self.workers, threads, self.address), one_sentence():
            self._say_if_short(threads)
            # The model was needed here for what the manifest says of it: which hooks give the
            # same, and the digest that each worker's must have.
            harvest.model.unload()
            attempts = writer.attempts()
            workers = [_worker(harvest, attempts, threads) for _ in range(self.workers)]
            try:
                for made in _in_order(harvest, writer, workers):
                    writer.record(made.record, made.attempt)
                    first, last = harvest.manifest.rows_of_shard(made.record.shard)
                    advance(last - first)
                    yield made.record.shard
            finally:
                with redirect_stdout(StringIO()):  # that they end is no news
                    for worker in workers:
                        ray.kill(worker)

    def _say_if_short(self, threads: int) -> None:
        """Say it if not all workers find room in the cluster: the harvest goes on with the rest."""
        cores = library().cluster_resources().get("CPU", 0)
        if self.workers * threads > cores:
            warn(
                f"the cluster has {cores:g} CPUs, and {self.workers} workers of {threads} threads "
                f"need {self.workers * threads}: some will wait"
            )


class Worker:
    """One worker, in a process of its own."""

    def __init__(
        self, harvest: dict[str, Any], settings: HarvestSettings, attempts: Attempts, threads: int
    ) -> None:
        """It loads nothing yet: what goes wrong then is told as the error of a task.

        Args:
            harvest: the ``source`` of the manifest, which its own model and libraries must match.
            threads: of torch; the last bits of a value depend on them.
        """
        self._source, self._settings = harvest, settings
        self._attempts, self._threads = attempts, threads
        self._model: Model | None = None

    def ready(self) -> Model:
        """Load the model, if it is not yet, and make sure that it is the one of the harvest."""
        import torch

        from rkstore.harvest.run import libraries, load

        if self._model is None:
            torch.set_num_threads(self._threads)
            self._check({"libraries": libraries(self._settings.capture)})
            model = load(self._settings)
            self._check(model.describe())
            self._model = model
        return self._model

    def _check(self, here: Mapping[str, Any]) -> None:
        for name, found in here.items():
            if found != self._source[name]:
                raise BadInput(
                    f"a worker has another {name} than this machine ({found}, not "
                    f"{self._source[name]}): install and copy the same on both"
                )

    def start(self) -> None:
        """Do what a first shard would wait for."""
        self.ready()

    def make(self, shard: int, batches: Sequence[BlockBatch]) -> Made:
        """Make the files of a shard. Batches that are cut are computed by both neighbours."""
        manifest, model = self._attempts.manifest, self.ready()
        return self._attempts.make(shard, lambda rows: fill(rows, batches, model, manifest, {}))


def _worker(harvest: Harvest, attempts: Attempts, threads: int) -> Any:
    """A worker that Ray starts, and starts again if it dies."""
    settings = harvest.settings
    if Path(settings.model).is_dir():  # workers have directories of their own
        settings = replace(settings, model=str(Path(settings.model).absolute()))
    if settings.tokenizer and Path(settings.tokenizer).is_dir():
        settings = replace(settings, tokenizer=str(Path(settings.tokenizer).absolute()))
    kind = (
        library()
        .remote(Worker)
        .options(
            num_cpus=threads,
            num_gpus=int(settings.device == "cuda"),
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )
    )
    source = harvest.manifest.source
    return kind.remote(source, settings, attempts, threads)


def _in_order(harvest: Harvest, writer: Writer, workers: Sequence[Any]) -> Iterator[Made]:
    """The missing shards as they are made, in order; each is recorded before the next comes.

    A worker takes the next shard as soon as it is free, so that one that finds no room in the
    cluster, or starts again, holds up nobody.
    """
    from ray import get, wait

    running = {worker.start.remote(): worker for worker in workers}
    idle, todo, made = list[Any](), deque(writer.missing), dict[int, "Made"]()
    while writer.missing:
        patience = 0 if writer.next_shard in made else None
        for done in wait([*running], timeout=patience)[0] if running else ():
            idle.append(running.pop(done))
            if (one := get(done)) is not None:
                made[one.record.shard] = one
        while idle and todo and todo[0] < writer.next_shard + AHEAD * len(workers):
            worker, shard = idle.pop(), todo.popleft()
            running[worker.make.remote(shard, list(harvest.batches(shard)))] = worker
        if writer.next_shard in made:
            yield made.pop(writer.next_shard)
