"""``train``."""

from collections.abc import Mapping, Sequence
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

# Enough for samples to look at while a dictionary is trained.
SAMPLED_ROWS = 65_536


@click.command(cls=Command)
@store_argument
@click.option(
    "--evaluate-every",
    type=Number(int),
    help="Steps between evaluations on 8,192 held-out rows, whose numbers are tracked; none by "
    "default.",
)
@click.option(
    "--sample-collection-freq",
    type=Number(int),
    help="Steps between collections of what makes each latent fire on about 65,536 rows, as "
    "'rkstore samples' writes it, beside the checkpoints and at the end; none by default.",
)
@options_of(TrainSettings, several=True)
def train(
    settings: list[TrainSettings], evaluate_every: int | None, sample_collection_freq: int | None
) -> None:
    """Several are trained in one pass over the store, whatever each reads and writes of it.

    Without --layer and --hook, where a store has several sites, the one probed last is used. After
    an interruption, the same command resumes from its last checkpoint.
    """
    from rkstore.cli.trained import describe_finals
    from rkstore.training.ignored import unused
    from rkstore.training.seeds import finals
    from rkstore.training.sites import at_probed_site
    from rkstore.training.train import train_all

    callbacks = [] if evaluate_every is None else [_evaluation(evaluate_every)]
    if sample_collection_freq is not None:
        callbacks.append(_samples(sample_collection_freq, settings))
    typed = [name for name in options_in(TrainSettings) if is_typed(name)]
    of_each = [unused(one, typed) for one in settings]
    for name, sentence in of_each[0].items():
        if all(name in others for others in of_each):
            echo(sentence, err=True)
    found = [at_probed_site(one) for one in settings]
    for sentence in dict.fromkeys(said for _, said in found if said is not None):
        echo(sentence)
    paths = train_all([one for one, _ in found], callbacks)
    for path in paths:
        echo(path)
    if any(one.seeds is not None or one.engine != "local" for one in settings):
        echo(f"\n{describe_finals(list(finals(paths)))}")


def _evaluation(every: int) -> "Callback":
    """Evaluates a run on held-out rows every so many steps, and at its end."""
    from rkstore.evaluation.during import HeldOut
    from rkstore.training.average import dictionary_for_use

    if every < 1:
        raise BadInput(f"--evaluate-every is {every}: it must be at least 1")

    held: dict[Run, HeldOut] = {}

    def evaluated(step: int, run: "Run") -> Mapping[str, float] | None:
        if step % every and not run.finished:
            return None
        if run not in held:
            held[run] = HeldOut(run.store, run.settings.special_tokens, run.settings.max_norm)
        return held[run].metrics(run.reading.in_store_units(dictionary_for_use(run)))

    return evaluated


def _samples(every: int, settings: Sequence[TrainSettings]) -> "Callback":
    """Writes samples of a run every so many steps, and at its end."""
    from rkstore.evaluation.samples.settings import SamplesSettings
    from rkstore.evaluation.samples.write import write_during
    from rkstore.store.open import open_readable
    from rkstore.training.average import dictionary_for_use

    if every < 1:
        raise BadInput(f"--sample-collection-freq is {every}: it must be at least 1")
    for one in settings:  # before any of it is trained
        _ = open_readable(one.store, one.paired_with).words

    def sampled(step: int, run: "Run") -> None:
        if step % every and not run.finished:
            return
        chosen = SamplesSettings(
            rows=SAMPLED_ROWS,
            special_tokens=run.settings.special_tokens,
            max_norm=run.settings.max_norm,
            device=run.settings.device,
        )
        dictionary = run.reading.in_store_units(dictionary_for_use(run))
        directory = run.directory(step)
        out = directory.with_name(f"{directory.name}-samples")
        write_during(dictionary, run.store, chosen, out)

    return sampled
