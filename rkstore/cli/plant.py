"""``plant``."""

import click

from rkstore.cli.options import Command, options_of
from rkstore.cli.streams import echo
from rkstore.planted.settings import PlantSettings


@click.command(cls=Command)
@options_of(PlantSettings)
def plant(settings: PlantSettings) -> None:
    """No model runs. The directions of the features are in OUT.truth.safetensors. After an
    interruption, the same command continues where it stopped and ends with the same bytes.
    """
    from rkstore.cli.terminal import describe_store
    from rkstore.planted.store import plant as write

    for store in write(settings):
        echo(describe_store(store))
