"""``quality``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.evaluation.latents.settings import QualitySettings


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(QualitySettings)
def quality(settings: QualitySettings, checkpoints: tuple[str, ...]) -> None:
    """No language model judges. Without CHECKPOINTS, the last one of each run under checkpoints/
    that trained on the store is judged. Those of the same sites are compared as seeds.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation import results as record
    from rkstore.evaluation.checkpoints import newest
    from rkstore.evaluation.latents.quality import entry_of, judge, write_judged
    from rkstore.evaluation.report.latents import quality_tables
    from rkstore.store.open import open_readable

    store = open_readable(settings.store, settings.paired_with)
    paths = [Path(path) for path in checkpoints] or newest(store)
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    judged = judge(paths, settings)
    for note in judged.notes:
        echo(note, err=True)
    for one in judged.qualities:
        for note in one.notes:
            echo(f"{one.name}: {note}", err=True)
    out = Path(settings.out)
    text = quality_tables(judged)
    write_judged(judged, text, store, settings, out)
    echo(text)
    for path, one in zip(paths, judged.qualities, strict=True):
        entry = entry_of(one, judged, store, settings)
        if settings.record and (why := record.add(path, entry)):
            echo(f"{why}; its result is in {out / 'quality.json'}", err=True)
    echo(f"\n{out / 'quality.json'}\n{out / 'quality.md'}")
