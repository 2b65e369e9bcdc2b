"""``probe``."""

import click

from rkstore.cli.options import Command, is_typed, options_of, store_argument
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import flag_of, unread


@click.command(cls=Command)
@store_argument
@options_of(ProbeSettings)
def probe(settings: ProbeSettings) -> None:
    """The result is a directory, which --directions of train takes."""
    from rkstore.cli.terminal import describe_probe
    from rkstore.rkcnn.mine import probe as probe_site

    for name, family in unread(settings).items():
        if is_typed(name):
            chosen = f"{flag_of(family)} {getattr(settings, family)}"
            click.echo(f"{flag_of(name)} has no part in {chosen}", err=True)
    result, path = probe_site(settings)
    click.echo(describe_probe(result, path))
