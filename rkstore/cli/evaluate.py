"""``evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rkstore.cli.options import PATH, Command, is_typed, options_of
from rkstore.cli.streams import echo
from rkstore.errors import BadInput
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.settings import flag_of

if TYPE_CHECKING:
    from rkstore.evaluation.functional import Functional


@click.command(cls=Command)
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(EvaluateSettings)
def evaluate(settings: EvaluateSettings, checkpoints: tuple[str, ...]) -> None:
    """CHECKPOINTS are directories of dictionaries in any layout, or hf://USER/NAME[/SAE_ID].
    Without them, the last one of each run under checkpoints/ that trained on the store
    is measured.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation import results as record
    from rkstore.evaluation.checkpoints import newest, with_controls
    from rkstore.evaluation.evaluate import entry_of, write_results
    from rkstore.evaluation.evaluate import evaluate as evaluate_dictionaries
    from rkstore.evaluation.functional import Functional
    from rkstore.evaluation.report.figures import comparison
    from rkstore.evaluation.report.results import table
    from rkstore.store.open import open_readable

    for name in ("blocks", "each_site", "steer"):
        if is_typed(name) and not settings.runs_model:
            raise BadInput(f"{flag_of(name)} is about runs of the model: use it with --with-model")
    store = open_readable(settings.store, settings.paired_with)
    paths = list(checkpoints) or [str(path) for path in newest(store)]
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        echo(f"{which} {store.where}: {', '.join(paths)}", err=True)

    if settings.controls and (arms := len(with_controls(paths)) - len(paths)):
        paths = with_controls(paths)
        echo(f"with their control arms, {arms} more dictionaries", err=True)
    # Loaded first: another model is refused before anything is measured.
    functional = Functional(paths, settings) if settings.runs_model else None
    results = evaluate_dictionaries(paths, settings)
    for result in results:
        for note in result.notes:
            echo(f"{result.name}: {note}", err=True)
    out = Path(settings.out)
    write_results(results, store, out / "results.json")
    comparison(results, [Path(path) for path in paths], out / "comparison.png")
    echo(table(results))
    for path, result in zip(paths, results, strict=True):
        if settings.record and (why := record.add(path, entry_of(result, store, settings))):
            echo(f"{why}; its result is in {out / 'results.json'}", err=True)
    written = [out / "results.json", out / "comparison.png"]
    if functional:
        written.append(out / "functional.json")
        _run_model(functional, settings.record, written[-1])
    echo("\n" + "\n".join(map(str, written)))


def _run_model(functional: "Functional", to_record: bool, path: Path) -> None:
    """Run the model, print what it predicts with the dictionaries in it, and write the numbers."""
    from rkstore.evaluation import results as record
    from rkstore.evaluation.report.functional import table

    results = functional.run()
    functional.write(results, path)
    for note in dict.fromkeys(note for loaded in functional.models for note in loaded.notes):
        echo(note, err=True)
    echo(f"\n{table(results)}")
    for result in results:
        if to_record and (why := record.add(result.path, functional.entry_of(result))):
            echo(f"{why}; its result is in {path}", err=True)
