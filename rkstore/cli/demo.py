"""``demo``: the whole way once, without a network, on the embedded model."""

import time
from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, Number


@click.command(cls=Command)
@click.option(
    "--out", type=PATH, default="demo", show_default=True, help="Directory of all it writes."
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
def demo(out: str, tokens: int, steps: int, layer: int) -> None:
    """Everything that it writes lies under --out."""
    run(Path(out), tokens=tokens, steps=steps, layer=layer)


def run(out: Path, *, tokens: int, steps: int, layer: int) -> None:
    """Harvest all layers of the demo model, probe one, train dictionaries of it, compare them.

    Besides the usual baseline (``random``) and RkCNN there is ``datapoint``: what RkCNN's
    initialisation does besides choosing directions. Without it the comparison would credit the
    directions with what comes of rows of the data and a tied encoder.
    """
    from rkstore.cli.terminal import describe_probe, describe_store
    from rkstore.evaluation.evaluate import evaluate, write_results
    from rkstore.evaluation.report.figures import comparison, table
    from rkstore.evaluation.settings import EvaluateSettings
    from rkstore.harvest import run as harvest
    from rkstore.harvest.settings import HarvestSettings
    from rkstore.harvest.text.open import PYTHON_CORPUS
    from rkstore.rkcnn.mine import probe
    from rkstore.rkcnn.settings import ProbeSettings
    from rkstore.training.settings import TrainSettings
    from rkstore.training.train import train

    began = time.monotonic()

    def stage(number: int, title: str) -> None:
        click.secho(f"\n[{number}/4] {title}", bold=True)

    stage(1, "harvest: run the model once, store all 12 layers")
    ready = harvest.prepare(
        HarvestSettings(
            model="demo",
            dataset=PYTHON_CORPUS,
            tokens=tokens,
            seed=1,
            out=str(out / "stores" / "demo"),
        )
    )
    store = harvest.run(ready)
    click.echo(describe_store(store))

    stage(2, f"probe: RkCNN directions of layer {layer}, from the store")
    where = str(store.root)
    found, path = probe(ProbeSettings(store=where, layer=layer, out=str(out / "results" / "probe")))
    click.echo(describe_probe(found, path))

    stage(3, "train: three sparse autoencoders, the same but for their beginning")
    checkpoints = [
        train(
            TrainSettings(
                store=where,
                layer=layer,
                init=init,
                expansion=4,
                steps=steps,
                name=f"layer{layer}-{init}",
                out=str(out / "checkpoints"),
            )
        )
        for init in ("random", "datapoint", "rkcnn")
    ]
    click.echo("\n".join(str(path) for path in checkpoints))

    stage(4, "evaluate: on rows that none of them has seen")
    results = evaluate(checkpoints, EvaluateSettings(store=where))
    picture = out / "results" / "comparison.png"
    write_results(results, store, out / "results" / "results.json")
    comparison(results, checkpoints, picture)
    click.echo(table(results))

    click.echo(f"\nFinished in {time.monotonic() - began:.0f} s.")
    click.echo(f"store     {store.root}")
    click.echo(f"results   {out / 'results' / 'results.json'}")
    click.echo(f"picture   {picture}")
