"""An option: its name everywhere, its type, its bounds and its help."""

import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from rkstore.errors import BadInput
from rkstore.settings.values import read_as

KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTS = {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}

# Numbers are passed to libraries with 64-bit integers.
MOST = 2**63 - 1


def option(
    default: Any,
    help: str,
    *,
    choices: Collection[str] = (),
    least: float | None = None,
    path: bool = False,
    identity: bool = True,
    newer: bool = False,
    also: str | None = None,
) -> Any:
    """A field with what its option needs besides its type.

    Args:
        choices: the values allowed: a tuple, or the table of a family.
        least: the smallest number allowed, also for each element of a list.
        path: whether it is a path, or may be one: ``~`` is then the home directory.
        identity: whether it distinguishes runs; False for what may change when a run is resumed,
        such as the output directory.
        newer: whether there were runs before it. At its default it then distinguishes nothing, so
        that those runs keep their names and can be resumed.
        also: another name on the command line.
    """
    more = {"choices": choices, "least": least, "path": path, "also": also}
    more |= {"identity": identity, "newer": newer}
    default = tuple(default) if isinstance(default, list) else default
    return Field(default, description=help, json_schema_extra=typing.cast(Any, more))


@dataclass(frozen=True)
class Option:
    """An option of some settings: its type, and what :func:`option` was given.

    Two are equal if they differ only in their help.
    """

    name: str
    kind: type[Any]
    several: bool
    optional: bool
    default: Any
    help: str = field(compare=False)
    choices: Collection[str]
    least: float | None
    path: bool
    identity: bool
    newer: bool
    also: str | None

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def key(self) -> str:
        """Its name in a YAML file."""
        return self.name.rstrip("_")

    @property
    def takes(self) -> str:
        """What it takes, for a sentence."""
        return LISTS[self.kind] if self.several else KINDS[self.kind]

    def read(self, value: Any) -> Any:
        """A value as this type; the value itself if it cannot be converted."""
        if value is None and self.optional:
            return None
        if value is None and self.several:
            return ()  # how older settings wrote an option without values
        if not self.several:
            return read_as(self.kind, value, path=self.path)
        if isinstance(value, str) and self.kind is not str:
            value = value.split(",")
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(read_as(self.kind, item, path=self.path) for item in several)

    def check(self, value: Any) -> None:
        """Raise BadInput if a value of the right type is out of bounds."""
        if self.kind is int and abs(value) > MOST:
            raise BadInput(f"{self.flag} is {value}: it must be at most {MOST}")
        if self.choices and value not in self.choices:
            raise BadInput(f"{self.flag} is '{value}': choose one of {', '.join(self.choices)}")
        if self.least is not None and value < self.least:
            raise BadInput(f"{self.flag} is {value}: it must be at least {self.least}")


def flag_of(name: str) -> str:
    """The option of a field; ``from_`` is ``--from``, which is a Python keyword."""
    return "--" + name.rstrip("_").replace("_", "-")
