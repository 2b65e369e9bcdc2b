"""``samples``."""

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo, plain
from rkstore.evaluation.samples.settings import SamplesSettings


@click.command(cls=Command)
@click.argument("checkpoint", type=PATH)
@options_of(SamplesSettings)
def samples(settings: SamplesSettings, checkpoint: str) -> None:
    """One pass over the store, without the model. The output is complete or absent."""
    from rkstore.evaluation.samples.write import write_samples

    found, out, notes = write_samples(checkpoint, settings)
    for note in notes:
        echo(plain(f"{checkpoint}: {note}"), err=True)
    dead = int((found.fired == 0).sum())
    silent = f", {dead:,} of which never fire" if dead else ""
    echo(
        f"{len(found.row):,} samples of {found.d_sae:,} latents{silent}, on {found.rows:,} rows of "
        f"{found.hook_name}"
    )
    echo(out)
