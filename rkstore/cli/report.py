"""``report``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.evaluation.report.settings import ReportSettings


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(ReportSettings)
def report(settings: ReportSettings, checkpoints: tuple[str, ...]) -> None:
    """All CHECKPOINTS are compared, and the latents of the first are shown. Without any, the last
    one of each run under checkpoints/ that trained on the store.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation.checkpoints import newest
    from rkstore.evaluation.report.page.write import write_report
    from rkstore.store.open import open_readable

    paths = [Path(path) for path in checkpoints]
    if not checkpoints:
        store = open_readable(settings.store, settings.paired_with)
        paths = newest(store)
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    echo(str(write_report(paths, settings)))
