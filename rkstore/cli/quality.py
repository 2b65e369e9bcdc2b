"""``quality``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.errors import BadInput
from rkstore.evaluation.latents.settings import QualitySettings

if TYPE_CHECKING:
    from rkstore.evaluation.latents.quality import Labelled
    from rkstore.store.readable import Readable


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(QualitySettings)
def quality(settings: QualitySettings, checkpoints: tuple[str, ...]) -> None:
    """No language model judges. Without CHECKPOINTS, the last one of each run under checkpoints/
    that trained on the store is judged. Those of the same sites are compared as seeds.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation.checkpoints import newest
    from rkstore.evaluation.latents.quality import judge, write_judged
    from rkstore.evaluation.report.latents import quality_tables
    from rkstore.store.open import open_readable

    store = open_readable(settings.store, settings.paired_with)
    paths = [Path(path) for path in checkpoints] or newest(store)
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    judged = judge(paths, settings, _planted(store, settings.classes))
    for note in judged.notes:
        echo(note, err=True)
    for one in judged.qualities:
        for note in one.notes:
            echo(f"{one.name}: {note}", err=True)
    out = Path(settings.out)
    text = quality_tables(judged)
    write_judged(judged, text, store, settings, out)
    echo(f"{text}\n\n{out / 'quality.json'}\n{out / 'quality.md'}")


def _planted(store: "Readable", classes: str | None) -> "Labelled | None":
    """The classes of a planted store; None if its tokens have others.

    Raises:
        BadInput: planted classes are asked for, and the store was not planted.
    """
    from rkstore.planted.classes import planted_classes
    from rkstore.planted.truth import planted_in
    from rkstore.store.store import Store

    if classes not in (None, "planted"):
        return None
    if not isinstance(store, Store):
        if classes is None:
            return None
        raise BadInput("--classes planted is for one store: leave out --paired-with")
    if classes is None and "planted" not in store.manifest.source:
        return None
    truth = planted_in(store)
    return lambda chosen: planted_classes(truth, chosen.rows)
