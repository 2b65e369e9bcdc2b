"""``push``, ``pull``, ``import`` and ``export``."""

import click

from rkstore.cli.options import PATH, Command, options_of, store_argument
from rkstore.cli.streams import echo, plain
from rkstore.dictionaries.layouts import LAYOUTS
from rkstore.errors import BadInput
from rkstore.share.settings import ExportSettings, ImportSettings, PullSettings


@click.command(cls=Command)
@click.argument("paths", type=PATH, nargs=-1, metavar="[SOURCE] URL")
@click.option("--store", type=PATH, help="Store to push, instead of SOURCE.")
@click.option("--license", help="Licence of a dictionary, as the Hub names it, for its card.")
@click.option(
    "--evaluation",
    type=PATH,
    help="For the card of a dictionary, a results.json that has it; evaluation/results.json in its "
    "directory by default.",
)
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    help="Which of the dictionaries to push, of a directory that has several layouts.",
)
def push(
    paths: tuple[str, ...],
    store: str | None,
    license: str | None,
    evaluation: str | None,
    layout: str | None,
) -> None:
    """A store goes to any URL, a dictionary to hf://USER/NAME, with a card. Files that are there
    already are not sent again: after an interruption, the same command continues where it stopped.
    """
    from rkstore.share.push import push as push_store
    from rkstore.store.open import find_store

    *sources, url = paths or ("",)
    if not url or len(sources) > 1 or (sources and store is not None):
        raise BadInput("give one store, as SOURCE or with --store, and one URL: push SOURCE URL")
    if sources and _is_dictionary(sources[0]):
        from rkstore.dictionaries.hub.push import push as push_dictionary

        moved = push_dictionary(
            sources[0], url, license=license, evaluation=evaluation, layout=layout
        )
    elif license is not None or evaluation is not None or layout is not None:
        raise BadInput("--license, --evaluation and --layout are for a dictionary: leave them out")
    else:
        moved = push_store(find_store(sources[0] if sources else store), url)
    echo(f"{url}: {moved}")


def _is_dictionary(source: str) -> bool:
    """Whether a directory holds a dictionary and no store."""
    from rkstore.store.files import MANIFEST, named

    root = named(source)
    if not root.is_dir() or (root / MANIFEST).exists():
        return False
    from rkstore.dictionaries.layouts import layouts_of

    return bool(layouts_of(root))


@click.command(cls=Command)
@click.argument("url", type=PATH)
@options_of(PullSettings)
def pull(settings: PullSettings, url: str) -> None:
    """The URL is a directory, s3://, http(s)://, hf:// or sftp://. After an interruption, the same
    command continues where it stopped; with other options it adds to the part.
    """
    from rkstore.cli.terminal import part_line
    from rkstore.share.pull import pull as pull_store

    store, moved = pull_store(url, settings, lambda sentence: echo(plain(sentence), err=True))
    echo(f"{store.root}: {moved}")
    if store.part is not None:
        echo(part_line(store))


@click.command("import", cls=Command)
@click.argument("path", type=PATH)
@options_of(ImportSettings)
def import_(settings: ImportSettings, path: str) -> None:
    """After an interruption, the same command continues where it stopped."""
    from rkstore.cli.terminal import describe_store
    from rkstore.share.exchange.importing import import_store

    store = import_store(path, settings, lambda sentence: echo(plain(sentence), err=True))
    echo(describe_store(store))


@click.command(cls=Command)
@store_argument
@options_of(ExportSettings)
def export(settings: ExportSettings, store: str | None) -> None:
    """The output is complete or absent."""
    from rkstore.share.exchange.exporting import export_store
    from rkstore.store.open import open_store

    echo(export_store(open_store(store), settings))
