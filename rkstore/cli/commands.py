"""The command line: each command makes its options from its settings and calls one function."""

import functools
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import rkstore
from rkstore.cli import streams
from rkstore.errors import BadInput, RkstoreError
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import (
    KINDS,
    Option,
    Settings,
    expanded,
    from_yaml,
    options_in,
    read_as,
)
from rkstore.share.settings import ExportSettings, ImportSettings, PullSettings
from rkstore.store.jsontext import to_json
from rkstore.training.settings import TrainSettings

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.ParamType):  # type: ignore[type-arg] # older clicks know no argument
    """A number as all settings read it: ``1e5`` is a whole one."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.name = "integer" if kind is int else "float"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = read_as(self.kind, value)
        if type(number) is not self.kind:
            self.fail(f"'{value}' is not {KINDS[self.kind]}.", param, ctx)
        return number


class PathOrName(click.ParamType):  # type: ignore[type-arg]
    """A path, or what may be one: a URL, a name on the Hub. ``~`` is the home directory."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:  # noqa: ARG002 - click calls it
        return expanded(value)


PATH = PathOrName()


class Command(click.Command):
    """A command that refuses an option given twice, where click would keep the last value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option in given:
            if isinstance(option, click.Option) and given.count(option) > 1 and _has_one(option):
                names = " or ".join(option.opts + option.secondary_opts)
                raise BadInput(f"{names} is given twice: give it once")
        return super().parse_args(ctx, args)


def _has_one(option: click.Option) -> bool:
    """Whether an option has one value; a flag that has no opposite says the same again."""
    harmless = option.is_flag and not option.secondary_opts
    return not (option.multiple or option.count or harmless)


class Commands(click.Group):
    """The commands of rkstore."""

    command_class = Command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(rkstore.__version__)
def cli() -> None:
    """Run a language model once, keep its activations, train every dictionary from disk."""


def main() -> None:
    """Run the command line. Every foreseen failure is one sentence on stderr."""
    streams.prepare()
    try:
        cli(standalone_mode=False)
    except RkstoreError as error:
        fail(f"rkstore: {error.sentence}", error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(
            "rkstore: stopped; what was recorded is kept, run the same command again to go on", 130
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"rkstore: {error.strerror or error}{where}", 1)
    except MemoryError:
        fail(
            "rkstore: there is not enough memory: lower --batch-size; what was recorded is kept, "
            "run the same command again to go on",
            1,
        )


def fail(sentence: str, status: int) -> typing.NoReturn:
    """Print one sentence on stderr and leave."""
    click.echo(sentence, err=True)
    sys.exit(status)


def options_of(settings: type[Settings], *, several: bool = False) -> Callable[[F], F]:
    """Give a command the options of its settings and ``--config``; it is called with the settings.

    What is typed overrides the file, the file overrides the defaults.

    Args:
        several: whether ``--config`` may be given more than once; the command is then called
            with a list of settings, one a file.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(config: tuple[str, ...], **values: Any) -> Any:
            names = options_in(settings)
            rest = {key: value for key, value in values.items() if key not in names}
            given = {k: v for k, v in values.items() if k in names and _typed(k)}
            chosen = [from_yaml(settings, Path(file), given) for file in config]
            if not several and len(chosen) > 1:
                raise BadInput(f"--config is given {len(chosen)} times: give one file")
            chosen = chosen or [settings(**given)]
            return command(chosen if several else chosen[0], **rest)

        help = "YAML file of options."
        if several:
            help += " Given again, one more is made, all on one reading of the store."
        decorated = click.option("--config", type=PATH, multiple=True, help=help)(wrapped)
        for option in reversed(options_in(settings).values()):
            decorated = _option(option)(decorated)
        return typing.cast(F, decorated)

    return decorate


def _typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def _option(option: Option) -> Callable[[F], F]:
    shown: dict[str, Any] = {"help": option.help, "default": option.default}
    shown["show_default"] = not option.optional and option.default != ()
    if option.kind is bool:
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, **shown)
    if option.several:
        shown |= {"multiple": True, "metavar": "NAME"}
    return click.option(option.flag, option.name, type=_param_type(option), **shown)


def _param_type(option: Option) -> Any:
    if option.choices:
        return click.Choice(option.choices)
    if option.kind in (int, float):
        return Number(option.kind)
    return PATH if option.path else click.STRING


@cli.command()
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@options_of(HarvestSettings)
def harvest(settings: HarvestSettings, dry_run: bool) -> None:
    """Run a model over text once and store the activations of its sites.

    Run again after an interruption, the same command goes on where it stopped and ends
    with the same bytes.
    """
    from rkstore.cli.terminal import describe_cost, describe_harvest, describe_store
    from rkstore.harvest import run as harvesting
    from rkstore.harvest.cost import plan as make_plan
    from rkstore.store.codecs import CODECS

    ready = harvesting.prepare(settings)
    click.echo(describe_harvest(ready), err=not dry_run)
    costs = make_plan(ready)
    if not costs.fits:  # then it is worth a moment to find out what would
        costs = make_plan(ready, list(CODECS))
    click.echo(describe_cost(costs), err=not dry_run)
    costs.check()
    if not dry_run:
        click.echo(describe_store(harvesting.run(ready)))


@cli.command()
@options_of(HarvestSettings)
def plan(settings: HarvestSettings) -> None:
    """Say what a harvest would cost with each codec, measured on a sample. Writes nothing."""
    from rkstore.cli.terminal import describe_harvest, describe_plan
    from rkstore.harvest import run as harvesting
    from rkstore.harvest.cost import plan as make_plan
    from rkstore.store.codecs import CODECS

    ready = harvesting.prepare(settings)
    costs = make_plan(ready, list(CODECS))
    click.echo(f"{describe_harvest(ready)}\n{describe_plan(costs)}")
    costs.check()


@cli.command()
@click.argument("store", type=PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def info(store: str | None, as_json: bool) -> None:
    """Show what a store holds and where it came from."""
    from rkstore.cli.terminal import describe_store
    from rkstore.store.facts import store_facts
    from rkstore.store.open import open_store

    opened = open_store(store)
    click.echo(to_json(store_facts(opened), indent=2) if as_json else describe_store(opened))


@cli.command()
@click.argument("store", type=PATH, required=False)
@click.option(
    "--repair-from", type=PATH, metavar="URL", help="Fetch damaged and missing files from a copy."
)
def verify(store: str | None, repair_from: str | None) -> None:
    """Compare every file of a store with the digest recorded when it was written."""
    from tqdm import tqdm

    from rkstore.cli.terminal import part_line
    from rkstore.store.open import find_store
    from rkstore.store.store import Store
    from rkstore.store.verify import verify as verify_store

    opened = Store(find_store(store))
    with tqdm(
        total=opened.stored_bytes(), unit="B", unit_scale=True, desc="verify", disable=None
    ) as bar:
        problems = list(verify_store(opened, bar.update))
    for problem in problems:
        click.echo(f"{problem.path} {problem.what}", err=True)
    if problems and repair_from:
        from rkstore.share import repair

        left = repair(opened, problems, repair_from)
        click.echo(f"{len(problems) - len(left)} files mended from {repair_from}", err=True)
        problems = left
    if problems:
        fail(f"rkstore: {len(problems)} files of {opened.root} are not as recorded", 1)
    files = len(opened.files())
    click.echo(f"{opened.root}: {files} files in {len(opened.shards)} shards are as recorded")
    if opened.part is not None:
        click.echo(part_line(opened))
    elif not opened.complete:
        shards = opened.manifest.shards
        click.echo(f"{len(opened.records)} of {shards} shards are there: harvest again to go on")


@cli.command()
@click.argument("store", type=PATH)
@click.argument("url", type=PATH)
def push(store: str, url: str) -> None:
    """Copy a store to a directory, s3:// or sftp://, as far as it is not there yet.

    Run again after an interruption, the same command goes on where it stopped.
    """
    from rkstore.share import push as push_store

    click.echo(f"{url}: {push_store(store, url)}")


@cli.command()
@click.argument("url", type=PATH)
@options_of(PullSettings)
def pull(settings: PullSettings, url: str) -> None:
    """Bring a store here from a directory, s3://, http(s)://, hf:// or sftp://, or a part of it.

    Run again after an interruption, the same command goes on where it stopped; with other
    options it adds to what is there.
    """
    from rkstore.cli.terminal import part_line
    from rkstore.share import pull as pull_store

    store, moved = pull_store(url, settings, lambda sentence: click.echo(sentence, err=True))
    click.echo(f"{store.root}: {moved}")
    if store.part is not None:
        click.echo(part_line(store))


@cli.command()
@options_of(ProbeSettings)
def probe(settings: ProbeSettings) -> None:
    """Mine directions of a site with RkCNN: score random subsets, keep the best."""
    from rkstore.cli.terminal import describe_probe
    from rkstore.rkcnn.mine import probe as probe_site

    result, path = probe_site(settings)
    click.echo(describe_probe(result, path))


@cli.command()
@options_of(TrainSettings, several=True)
def train(settings: list[TrainSettings]) -> None:
    """Train a dictionary from a store, without the model; or several, on one reading of it.

    Without --layer and --hook, where a store has several sites, the one probed last is taken.
    Run again after an interruption, the same command goes on from its last checkpoint.
    """
    from rkstore.training.sites import at_probed_site
    from rkstore.training.train import train_all
    from rkstore.training.unused import unused

    typed = [name for name in options_in(TrainSettings) if _typed(name)]
    of_each = [unused(one, typed) for one in settings]
    for name, sentence in of_each[0].items():
        if all(name in others for others in of_each):
            click.echo(sentence, err=True)
    found = [at_probed_site(one) for one in settings]
    for sentence in dict.fromkeys(said for _, said in found if said is not None):
        click.echo(sentence)
    for path in train_all([one for one, _ in found]):
        click.echo(path)


@cli.command()
@click.argument("checkpoints", type=PATH, nargs=-1)
@options_of(EvaluateSettings)
def evaluate(settings: EvaluateSettings, checkpoints: tuple[str, ...]) -> None:
    """Measure dictionaries on held-out rows; several give one table and one picture.

    Without CHECKPOINTS, the last one of each run under checkpoints/ that trained on the store.
    """
    from rkstore.dictionaries.disk import CHECKPOINTS
    from rkstore.evaluation.checkpoints import newest
    from rkstore.evaluation.evaluate import evaluate as evaluate_dictionaries
    from rkstore.evaluation.evaluate import write_results
    from rkstore.evaluation.report.figures import comparison, table
    from rkstore.store.open import open_store

    store = open_store(settings.store)
    paths = [Path(path) for path in checkpoints] or newest(store)
    if not checkpoints:
        which = f"the last checkpoint of each run under {CHECKPOINTS}/ that trained on"
        click.echo(f"{which} {store.where}: {', '.join(map(str, paths))}", err=True)
    results = evaluate_dictionaries(paths, settings)
    for result in results:
        for note in result.notes:
            click.echo(f"{result.name}: {note}", err=True)
    out = Path(settings.out)
    write_results(results, store, out / "results.json")
    comparison(results, paths, out / "comparison.png")
    click.echo(table(results))
    click.echo(f"\n{out / 'results.json'}\n{out / 'comparison.png'}")


@cli.command("import")
@click.argument("path", type=PATH)
@options_of(ImportSettings)
def import_(settings: ImportSettings, path: str) -> None:
    """Store activations that another program wrote, without running a model.

    Run again after an interruption, the same command goes on where it stopped.
    """
    from rkstore.cli.terminal import describe_store
    from rkstore.share.exchange.importing import import_store

    store = import_store(path, settings, lambda sentence: click.echo(sentence, err=True))
    click.echo(describe_store(store))


@cli.command()
@click.argument("store", type=PATH, required=False)
@options_of(ExportSettings)
def export(settings: ExportSettings, store: str | None) -> None:
    """Write the activations of a store for another program."""
    from rkstore.share.exchange.exporting import export_store
    from rkstore.store.open import find_store
    from rkstore.store.store import Store

    click.echo(export_store(Store(find_store(store)), settings))


@cli.command()
@click.option(
    "--out",
    type=PATH,
    default="demo",
    show_default=True,
    help="Directory of everything it writes.",
)
@click.option(
    "--tokens", type=Number(int), default=65_536, show_default=True, help="Rows to store."
)
@click.option(
    "--steps", type=Number(int), default=500, show_default=True, help="Steps for each dictionary."
)
@click.option(
    "--layer", type=Number(int), default=6, show_default=True, help="Block to probe and train on."
)
def demo(out: str, tokens: int, steps: int, layer: int) -> None:
    """Go the whole way once, without a network: harvest, probe, train, evaluate, compare."""
    from rkstore.cli.demo import run

    run(Path(out), tokens=tokens, steps=steps, layer=layer)


if __name__ == "__main__":
    main()
