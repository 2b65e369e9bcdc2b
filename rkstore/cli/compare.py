"""``compare``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.evaluation.settings import DEFAULT_METRICS, CompareSettings


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(CompareSettings)
def compare(settings: CompareSettings, checkpoints: tuple[str, ...]) -> None:
    """The numbers are those that 'rkstore evaluate' left in each checkpoint. Dictionaries that
    differ only in their seed are one row; the first given is what the others are compared with.
    """
    from rkstore.evaluation.compare import compared
    from rkstore.evaluation.report.comparing import FORMATS
    from rkstore.store.files import write_together
    from rkstore.store.open import open_readable

    fingerprint = None
    if settings.store is not None or settings.paired_with is not None:
        store = open_readable(settings.store, settings.paired_with)
        fingerprint = store.manifest.fingerprint
    metrics = settings.metric or DEFAULT_METRICS
    text = FORMATS[settings.format](compared(checkpoints, metrics, fingerprint, settings.rows))
    if settings.out is None:
        echo(text)
        return
    write_together({Path(settings.out): (text + "\n").encode()})
    echo(settings.out)
