"""How a pipeline starts, and how it shows what came out."""

import sys
from pathlib import Path
from typing import Any

import click

from rkstore.cli import run
from rkstore.errors import BadInput
from rkstore.evaluation.record import Row, as_json
from rkstore.evaluation.report.figures import png
from rkstore.store.files import write_together


def start(command: click.Command) -> None:
    """Run the command of a pipeline, which fails as the commands of rkstore do."""
    run(command, Path(sys.argv[0]).name)


def put(page: Path, begin: str, end: str, table: str) -> None:
    """Write a table between two markers of a page.

    Raises:
        BadInput: the page lacks them.
    """
    text = page.read_text("utf-8")
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise BadInput(
            f"{page} lacks the markers {begin} and {end}: put them where the table is to be"
        )
    write_together({page: f"{before}{begin}\n{table}\n{end}{after}".encode()})


def show(text: str, record: Path, figure: Any, document: Row | None = None) -> None:
    """Print the results, and write their figure beside the record.

    Args:
        document: what to write to the record together with the figure, if it is not there yet.
    """
    picture = record.with_suffix(".png")
    files = {picture: png(figure)}
    write_together(files if document is None else {record: as_json(document)} | files)
    click.echo(f"{text}\n\n{record}\n{picture}")
