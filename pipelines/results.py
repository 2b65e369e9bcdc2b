"""What a pipeline leaves behind: every run in one JSON file, tables, pictures; and how it fails."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from rkstore.cli import fail, streams
from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import write_together as write_together

Row = dict[str, Any]


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


@dataclass
class Runs:
    """The runs of a pipeline that are finished. Their file is whole after each of them."""

    path: Path
    identity: Row
    """What all of them have in common: a file of other runs is not added to."""
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up the runs that are in the file already.

        Raises:
            BadInput: it holds something else, or runs with other settings.
        """
        if not self.path.exists():
            return
        try:
            document = json.loads(self.path.read_text("utf-8"))
            before, self.rows = document["settings"], document["runs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"cannot take up {self.path} ({error}): remove it or choose another --out"
            ) from None
        for key, value in json.loads(json.dumps(self.identity, allow_nan=False)).items():
            if before.get(key) != value:
                raise BadInput(
                    f"{self.path} holds runs with other settings ({key} was {before.get(key)}, "
                    f"is {value}): choose another --out"
                )

    def find(self, **key: Any) -> list[Row]:
        """The runs that have these values, in the order in which they were made."""
        return [row for row in self.rows if all(row.get(k) == v for k, v in key.items())]

    def add(self, rows: Sequence[Row]) -> None:
        """Note runs that have just finished."""
        self.rows += rows
        self.write()

    def write(self, **more: Any) -> None:
        """Write the runs, and whatever else belongs beside them."""
        document = {"settings": self.identity, "runs": self.rows} | more
        write_together({self.path: as_json(document)})


def as_json(document: Row) -> bytes:
    """The content of a JSON file."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; all but the first are of numbers."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
        return "| " + " | ".join([first, *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = (
        "|"
        + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation, of a sample; None of fewer than two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(spread**0.5)
