"""``evaluate``."""

from pathlib import Path

import click

from rkstore.cli.options import PATH, Command, is_typed, options_of
from rkstore.cli.streams import echo
from rkstore.errors import BadInput
from rkstore.evaluation.settings import EvaluateSettings


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(EvaluateSettings)
def evaluate(settings: EvaluateSettings, checkpoints: tuple[str, ...]) -> None:
    """Without CHECKPOINTS, the last one of each run under checkpoints/ that trained on the store
    is measured.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation.checkpoints import newest
    from rkstore.evaluation.evaluate import evaluate as evaluate_dictionaries
    from rkstore.evaluation.evaluate import write_results
    from rkstore.evaluation.functional import Functional
    from rkstore.evaluation.report.figures import comparison
    from rkstore.evaluation.report.functional import table as functional_table
    from rkstore.evaluation.report.results import table
    from rkstore.store.open import open_readable

    if is_typed("blocks") and not settings.runs_model:
        raise BadInput("--blocks are those that the model runs on: use it with --with-model")
    store = open_readable(settings.store, settings.paired_with)
    paths = [Path(path) for path in checkpoints] or newest(store)
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    # Loaded first: another model is refused before anything is measured.
    functional = Functional(paths, settings) if settings.runs_model else None
    results = evaluate_dictionaries(paths, settings)
    for result in results:
        for note in result.notes:
            echo(f"{result.name}: {note}", err=True)
    out = Path(settings.out)
    write_results(results, store, out / "results.json")
    comparison(results, paths, out / "comparison.png")
    echo(table(results))
    written = [out / "results.json", out / "comparison.png"]
    if functional:
        of_model = functional.run()
        written.append(out / "functional.json")
        functional.write(of_model, written[-1])
        echo(f"\n{functional_table(of_model)}")
    echo("\n" + "\n".join(map(str, written)))
