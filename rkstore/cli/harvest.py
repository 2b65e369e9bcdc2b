"""``harvest`` and ``plan``."""

import click

from rkstore.cli.options import Command, options_of
from rkstore.cli.streams import echo
from rkstore.harvest.settings import HarvestSettings


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@options_of(HarvestSettings)
def harvest(settings: HarvestSettings, dry_run: bool) -> None:
    """After an interruption, the same command continues where it stopped and ends with the same
    bytes.
    """
    from rkstore.cli.terminal import (
        describe_cost,
        describe_harvest,
        describe_piece,
        describe_store,
    )
    from rkstore.harvest import run as harvesting
    from rkstore.harvest.cost import plan as make_plan
    from rkstore.store.codecs import CODECS

    ready = harvesting.prepare(settings)
    echo(describe_harvest(ready), err=not dry_run)
    costs = make_plan(ready)
    if not costs.fits:  # then measure which codecs would
        costs = make_plan(ready, list(CODECS))
    echo(describe_cost(costs), err=not dry_run)
    costs.check()
    if dry_run:
        return
    if settings.shards is None:
        echo(describe_store(harvesting.run(ready)))
    else:
        harvesting.write(ready)
        echo(describe_piece(ready))


@click.command(cls=Command)
@options_of(HarvestSettings)
def plan(settings: HarvestSettings) -> None:
    """Nothing is written. With --device meta, the configuration of a model is enough."""
    from rkstore.cli.terminal import describe_harvest, describe_outline, describe_plan
    from rkstore.harvest import run as harvesting
    from rkstore.harvest.cost import plan as make_plan
    from rkstore.harvest.outline import outline
    from rkstore.store.codecs import CODECS

    if settings.device == "meta":
        echo(describe_outline(outline(settings)))
        return
    ready = harvesting.prepare(settings)
    costs = make_plan(ready, list(CODECS))
    echo(f"{describe_harvest(ready)}\n{describe_plan(costs)}")
    costs.check()
