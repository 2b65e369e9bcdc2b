"""``evaluate``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.evaluation.settings import EvaluateSettings


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(EvaluateSettings)
def evaluate(settings: EvaluateSettings, checkpoints: tuple[str, ...]) -> None:
    """Without CHECKPOINTS, the last one of each run under checkpoints/ that trained on the store
    is measured.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation import results as record
    from rkstore.evaluation.checkpoints import newest, with_controls
    from rkstore.evaluation.evaluate import entry_of, write_results
    from rkstore.evaluation.evaluate import evaluate as evaluate_dictionaries
    from rkstore.evaluation.report.figures import comparison
    from rkstore.evaluation.report.results import table
    from rkstore.store.open import open_readable

    store = open_readable(settings.store, settings.paired_with)
    paths = [Path(path) for path in checkpoints] or newest(store)
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    if settings.controls and (arms := len(with_controls(paths)) - len(paths)):
        paths = with_controls(paths)
        echo(f"with their control arms, {arms} more dictionaries", err=True)
    results = evaluate_dictionaries(paths, settings)
    for result in results:
        for note in result.notes:
            echo(f"{result.name}: {note}", err=True)
    out = Path(settings.out)
    write_results(results, store, out / "results.json")
    comparison(results, paths, out / "comparison.png")
    echo(table(results))
    for path, result in zip(paths, results, strict=True):
        if settings.record and (why := record.add(path, entry_of(result, store, settings))):
            echo(f"{why}; its result is in {out / 'results.json'}", err=True)
    echo(f"\n{out / 'results.json'}\n{out / 'comparison.png'}")
