"""``train``."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import click

from rkstore.cli.options import Command, Number, is_typed, options_of, store_argument
from rkstore.cli.streams import echo
from rkstore.errors import BadInput
from rkstore.settings import options_in
from rkstore.training.settings import TrainSettings

if TYPE_CHECKING:
    from rkstore.training.run import Run
    from rkstore.training.tracking.base import Callback


@click.command(cls=Command)
@store_argument
@click.option(
    "--evaluate-every",
    type=Number(int),
    help="Steps between evaluations on 8,192 held-out rows, whose numbers are tracked; none by "
    "default.",
)
@options_of(TrainSettings, several=True)
def train(settings: list[TrainSettings], evaluate_every: int | None) -> None:
    """Several are trained in one pass over the store, whatever each reads and writes of it.

    Without --layer and --hook, where a store has several sites, the one probed last is used. After
    an interruption, the same command resumes from its last checkpoint.
    """
    from rkstore.training.ignored import unused
    from rkstore.training.sites import at_probed_site
    from rkstore.training.train import train_all

    callbacks = [] if evaluate_every is None else [_evaluation(evaluate_every)]
    typed = [name for name in options_in(TrainSettings) if is_typed(name)]
    of_each = [unused(one, typed) for one in settings]
    for name, sentence in of_each[0].items():
        if all(name in others for others in of_each):
            echo(sentence, err=True)
    found = [at_probed_site(one) for one in settings]
    for sentence in dict.fromkeys(said for _, said in found if said is not None):
        echo(sentence)
    for path in train_all([one for one, _ in found], callbacks):
        echo(path)


def _evaluation(every: int) -> "Callback":
    """Evaluates a run on held-out rows every so many steps, and at its end."""
    from rkstore.evaluation.during import HeldOut
    from rkstore.training.average import dictionary_for_use

    if every < 1:
        raise BadInput(f"--evaluate-every is {every}: it must be at least 1")

    @cache
    def rows_of(run: "Run") -> HeldOut:
        return HeldOut(run.store, run.settings.special_tokens, run.settings.max_norm)

    def evaluated(step: int, run: "Run") -> Mapping[str, float] | None:
        if step % every and not run.finished:
            return None
        return rows_of(run).metrics(run.reading.in_store_units(dictionary_for_use(run)))

    return evaluated
