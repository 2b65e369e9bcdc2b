"""``probe``."""

import click

from rkstore.cli.options import Command, options_of, store_argument
from rkstore.cli.streams import echo
from rkstore.rkcnn.settings import ProbeSettings


@click.command(cls=Command)
@store_argument
@options_of(ProbeSettings)
def probe(settings: ProbeSettings) -> None:
    """The result is a directory, for --directions of train."""
    from rkstore.cli.terminal import describe_probe
    from rkstore.rkcnn.mine import probe as probe_site

    result, path = probe_site(settings)
    echo(describe_probe(result, path))
