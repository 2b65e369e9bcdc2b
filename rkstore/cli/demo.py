"""``demo``: every stage once, without a network, on the bundled model."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rkstore.cli.options import PATH, Command, Number
from rkstore.cli.streams import echo

if TYPE_CHECKING:
    from rkstore.store.store import Store


@click.command(cls=Command)
@click.option(
    "--out", type=PATH, default="demo", show_default=True, help="Directory for all output."
)
@click.option(
    "--tokens", type=Number(int), default=65_536, show_default=True, help="Rows to store."
)
@click.option(
    "--steps", type=Number(int), default=500, show_default=True, help="Steps for each dictionary."
)
@click.option(
    "--layer", type=Number(int), default=6, show_default=True, help="Block to probe and train on."
)
@click.option(
    "--zoo", is_flag=True, help="Instead, train one dictionary of each wiring and compare them."
)
def demo(out: str, tokens: int, steps: int, layer: int, zoo: bool) -> None:
    """All output is written under --out."""
    # Before torch is loaded: its threads sleep while they wait for each other. Spinning, as they do
    # otherwise, they take the cores from threads that read and encode, and from other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if zoo:
        from rkstore.cli.zoo import run as run_zoo

        run_zoo(Path(out), tokens=tokens, steps=steps, layer=layer)
    else:
        run(Path(out), tokens=tokens, steps=steps, layer=layer)


def run(out: Path, *, tokens: int, steps: int, layer: int) -> None:
    """Harvest all layers of the demo model, probe one, train dictionaries on it, compare them."""
    from rkstore.cli.terminal import describe_probe, describe_store
    from rkstore.evaluation.evaluate import evaluate, write_results
    from rkstore.evaluation.report.figures import comparison
    from rkstore.evaluation.report.page.write import write_report
    from rkstore.evaluation.report.results import table
    from rkstore.evaluation.report.settings import ReportSettings
    from rkstore.evaluation.settings import EvaluateSettings
    from rkstore.rkcnn.mine import probe
    from rkstore.rkcnn.settings import ProbeSettings

    began = time.monotonic()
    _stage(1, "harvest: run the model once, store all 12 layers")
    store = _harvested(out / "stores" / "demo", tokens)
    echo(describe_store(store))

    _stage(2, f"probe: RkCNN directions of layer {layer}, from the store")
    where, results = str(store.root), out / "results"
    echo(describe_probe(*probe(ProbeSettings(store=where, layer=layer, out=results / "probe"))))

    _stage(3, "train: three sparse autoencoders that differ only in initialisation")
    checkpoints = _trained(where, out / "checkpoints", layer, steps)
    echo("\n".join(str(path) for path in checkpoints))

    _stage(4, "evaluate: on held-out rows")
    found = evaluate(checkpoints, EvaluateSettings(store=where))
    write_results(found, store, results / "results.json")
    comparison(found, checkpoints, results / "comparison.png")
    echo(table(found))

    _stage(5, "report: pages to look at")
    settings = ReportSettings(store=where, probe=results / "probe", out=results / "report")
    # The latents shown are those of the first: of the dictionary that began with the directions.
    page = write_report(checkpoints[::-1], settings, replaces=True)

    echo(f"\nFinished in {time.monotonic() - began:.0f} s.")
    echo(f"store     {store.root}")
    echo(f"results   {results / 'results.json'}")
    echo(f"picture   {results / 'comparison.png'}")
    echo(f"report    {page}")


def _stage(number: int, title: str) -> None:
    click.secho(f"\n[{number}/5] {title}", bold=True)


def _harvested(out: Path, tokens: int) -> "Store":
    from rkstore.harvest import run as harvest
    from rkstore.harvest.settings import HarvestSettings
    from rkstore.harvest.text.python import PYTHON_CORPUS

    return harvest.run(
        harvest.prepare(
            HarvestSettings(model="demo", dataset=PYTHON_CORPUS, tokens=tokens, seed=1, out=out)
        )
    )


def _trained(store: str, out: Path, layer: int, steps: int) -> list[Path]:
    """Train with the usual baseline, ``random``, with ``rkcnn``, and with ``datapoint``.

    The last is RkCNN's initialisation without its directions. Otherwise the comparison would
    credit the directions with the effect of rows of the data and a tied encoder.
    """
    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train_all

    shared = {"store": store, "layer": layer, "expansion": 4, "steps": steps, "out": out}
    inits = ("random", "datapoint", "rkcnn")
    return train_all(
        [TrainSettings(init=init, name=f"layer{layer}-{init}", **shared) for init in inits]
    )
