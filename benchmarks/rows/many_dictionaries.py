"""How much of a store is decoded for eight dictionaries: on one reading, and one by one."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.row import Bench, Row, Sides, Target

DICTIONARIES, STEPS = 8, 12


@contextmanager
def sides(bench: Bench) -> Iterator[Sides]:
    import shutil
    import time

    from harness import synthetic
    from harness.reads import counted

    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train, train_all

    out = bench.work / "many"
    runs = [
        TrainSettings(
            store=str(synthetic.store(bench, width=768)),
            init="tied",
            d_sae=512,
            k=8,
            steps=bench.size(STEPS, 4),
            seed=seed,
            data_seed=0,
            name=str(seed),
            out=str(out),
        )
        for seed in range(DICTIONARIES)
    ]
    seconds = []

    def together() -> float:
        began = time.perf_counter()
        with counted() as chunks:
            train_all(runs)
        seconds.append(time.perf_counter() - began)
        shutil.rmtree(out)
        return chunks()

    def apart() -> float:
        began = time.perf_counter()
        with counted() as chunks:
            for run in runs:
                train(run)
        seconds.append(time.perf_counter() - began)
        shutil.rmtree(out)
        return chunks()

    def notes() -> list[str]:
        return [f"Together they took {seconds[0]:.1f} s, one by one {seconds[1]:.1f} s."]

    yield Sides(together, apart, notes)


ROW = Row(
    name="many_dictionaries",
    what="Chunks read for eight dictionaries with seeds of their own, trained on one reading",
    against="The same eight, trained one by one to the same bytes",
    unit="chunks",
    target=Target("at most", 1 / 8),
    how="Counted, once: every chunk that the store hands out. Begun tied, which looks at no rows; "
    "datapoint reads four rows a latent besides, before training begins.",
    floor="One reading instead of eight is an eighth.",
    sides=sides,
    repetitions=1,
)
