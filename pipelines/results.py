"""How a pipeline starts, how it fails, and how it shows what came out."""

import sys
from pathlib import Path
from typing import Any

import click

from rkstore.cli import fail, streams
from rkstore.errors import RkstoreError
from rkstore.evaluation.record import Row, as_json
from rkstore.evaluation.report.figures import png
from rkstore.store.files import write_together


def start(command: click.Command) -> None:
    """Run the command of a pipeline. Every foreseen failure is one sentence on stderr."""
    streams.prepare()
    try:
        command(standalone_mode=False)
    except RkstoreError as error:
        fail(f"{command.name}: {error.sentence}", error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(f"{command.name}: stopped; run the same command again to go on", 130)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{command.name}: {error.strerror or error}{where}", 1)


def show(text: str, record: Path, figure: Any, document: Row | None = None) -> None:
    """Print the results, and write their figure beside the record.

    Args:
        document: what to write to the record together with the figure, if it is not there yet.
    """
    picture = record.with_suffix(".png")
    files = {picture: png(figure)}
    write_together(files if document is None else {record: as_json(document)} | files)
    click.echo(f"{text}\n\n{record}\n{picture}")
