"""``train``."""

import click

from rkstore.cli.options import Command, is_typed, options_of, store_argument
from rkstore.cli.streams import echo
from rkstore.settings import options_in
from rkstore.training.settings import TrainSettings


@click.command(cls=Command)
@store_argument
@options_of(TrainSettings, several=True)
def train(settings: list[TrainSettings]) -> None:
    """Several are trained in one pass over the store, whatever each reads and writes of it.

    Without --layer and --hook, where a store has several sites, the one probed last is used. After
    an interruption, the same command resumes from its last checkpoint.
    """
    from rkstore.training.ignored import unused
    from rkstore.training.sites import at_probed_site
    from rkstore.training.train import train_all

    typed = [name for name in options_in(TrainSettings) if is_typed(name)]
    of_each = [unused(one, typed) for one in settings]
    for name, sentence in of_each[0].items():
        if all(name in others for others in of_each):
            echo(sentence, err=True)
    found = [at_probed_site(one) for one in settings]
    for sentence in dict.fromkeys(said for _, said in found if said is not None):
        echo(sentence)
    for path in train_all([one for one, _ in found]):
        echo(path)
