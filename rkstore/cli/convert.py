"""``convert``."""

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.dictionaries.settings import ConvertSettings


@click.command(cls=Command)
@click.argument("source", type=PATH, metavar="DICTIONARY")
@options_of(ConvertSettings)
def convert(settings: ConvertSettings, source: str) -> None:
    """DICTIONARY is a directory or hf://USER/NAME[/SAE_ID]. The output is complete or absent."""
    from rkstore.dictionaries.convert import convert as convert_dictionary

    echo(convert_dictionary(source, settings))
