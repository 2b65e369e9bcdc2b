"""``merge``."""

import click

from rkstore.cli.options import PATH, Command
from rkstore.cli.streams import echo, plain


@click.command(cls=Command)
@click.argument("pieces", type=PATH, nargs=-1, required=True, metavar="PIECE...")
@click.option("--out", type=PATH, required=True, help="Directory of the store, or a URL.")
def merge(pieces: tuple[str, ...], out: str) -> None:
    """A piece is what 'rkstore harvest --shards' wrote, in a directory or at a URL. The store has
    the same bytes as one that was harvested at once. After an interruption, the same command
    continues where it stopped.
    """
    from rkstore.cli.terminal import describe_store
    from rkstore.share.merge import merge as merge_pieces

    store = merge_pieces(pieces, out, lambda sentence: echo(plain(sentence), err=True))
    echo(describe_store(store))
