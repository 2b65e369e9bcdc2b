"""The command line: each command makes its options from its settings and calls one function.

A command's file is loaded when the command is called: ``rkstore --help`` waits for no library.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from keyword import iskeyword
from typing import NoReturn

import click

import rkstore
from rkstore.cli import streams
from rkstore.errors import BadInput, RkstoreError

# Each command's file in this directory, and the first sentence of its help.
COMMANDS = {
    "demo": ("demo", "Run everything once, without a network: harvest, probe, train, compare."),
    "hooks": ("hooks", "List what can be harvested of a model: names, widths, what is the same."),
    "plan": ("harvest", "Estimate what a harvest would cost with each codec, from a sample."),
    "harvest": ("harvest", "Run a model over text once and store the activations of its sites."),
    "merge": ("merge", "Put the pieces of a harvest together that several machines computed."),
    "plant": ("plant", "Make a store whose features are known, to see what a dictionary finds."),
    "info": ("store", "Show what a store contains and where it came from."),
    "verify": ("store", "Compare every file of a store with the digest recorded for it."),
    "show": ("show", "Show rows of a store in their context: text, document, activations."),
    "probe": ("probe", "Mine directions of a site with RkCNN: score subsets, keep the best."),
    "train": ("train", "Train dictionaries from a store, without the model."),
    "evaluate": ("evaluate", "Measure dictionaries on held-out rows: one table and one picture."),
    "quality": ("quality", "Judge latents without a model: probes, absorption, seeds, spread."),
    "compare": ("compare", "Compare recorded results of dictionaries, paired by seed."),
    "samples": ("samples", "Collect what makes each latent of a dictionary fire, in its text."),
    "latents": ("samples", "Describe latents: samples, similar ones, groups, another's beside."),
    "report": ("report", "Write pages to look at: runs compared, what each latent fires on."),
    "push": ("share", "Copy a store to a directory or URL, or a dictionary to the Hub (hf://)."),
    "pull": ("share", "Fetch a store, or a part of one, from a directory or a URL."),
    "import": ("share", "Store activations that another program wrote, without a model."),
    "export": ("share", "Write the activations of a store for another program."),
    "convert": ("convert", "Write a dictionary of any program in the layout of another."),
}

AGAIN = "what was recorded is kept, run the same command again to continue"


class Loading(Mapping[str, click.Command]):
    """The commands by name, each loaded when it is called."""

    def __getitem__(self, name: str) -> click.Command:
        file, _ = COMMANDS[name]
        module = importlib.import_module(f"rkstore.cli.{file}")
        command: click.Command = getattr(module, name + "_" if iskeyword(name) else name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(click.Group):
    """A group whose help loads none of its commands."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


@click.group(
    cls=Commands,
    commands=Loading(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(rkstore.__version__)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run a language model once, keep its activations, train every dictionary from disk."""
    if not streams.alone() and ctx.invoked_subcommand != "train":
        raise BadInput(
            f"rkstore {ctx.invoked_subcommand} was started several times by a launcher "
            "(WORLD_SIZE): processes work together in rkstore train alone, start it once"
        )


def main() -> None:
    """Run the command line."""
    run(cli, "rkstore")


def run(command: click.Command, name: str) -> None:
    """Run a command. Every expected failure is one sentence on stderr, after the program's name."""
    streams.prepare()
    try:
        command(prog_name=name, standalone_mode=False)
    except RkstoreError as error:
        fail(f"{name}: {error.sentence}", error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(f"{name}: stopped; {AGAIN}", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{name}: {error.strerror or error}{where}", 1)
    except MemoryError:
        fail(f"{name}: there is not enough memory: lower --batch-size; {AGAIN}", 1)


def fail(sentence: str, status: int) -> NoReturn:
    """Print one sentence on stderr and exit."""
    if not streams.speaks():
        time.sleep(1)  # a launcher ends the others with the first that ends: let that be the other
    streams.echo(streams.plain(sentence), err=True)
    sys.exit(status)
