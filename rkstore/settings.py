"""How options are declared, checked and read from YAML: each has one name everywhere.

The command line makes its options from the same classes that a YAML file is checked against.
"""

import math
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from rkstore.errors import BadInput, for_yaml

T = TypeVar("T", bound="Settings")

KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTS = {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}

# Numbers are passed to libraries with 64-bit integers.
MOST = 2**63 - 1

# A number in decimal notation; 1_000, 0x10 and 1:30 are not numbers.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


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


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass

    class _Model(ModelMetaclass):
        """Keeps a type checker from making constructors of fields: members bring more of them."""
else:
    _Model = type(BaseModel)


class Settings(BaseModel, metaclass=_Model):
    """Settings that check themselves.

    A text of a number is accepted as a number, and the reverse; a whole number may be written as
    1e5; a single value is accepted where several may be given.

    Raises:
        BadInput: a value is of the wrong type, too small or not one of the choices, or there is
            no option of a name.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    brought: ClassVar[Mapping[str, tuple[tuple[str, str], ...]]] = {}
    """The ``(family, member)`` pairs that add an option to those of the class."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _in_our_words(type(self), error, values) from None

    def options(self, member: type[T]) -> T:
        """The options of one member out of these."""
        return member(**{name: getattr(self, name) for name in options_in(member)})

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: Any) -> Any:
        return options_in(cls)[info.field_name].read(value)

    @field_validator("*")
    @classmethod
    def _check(cls, value: Any, info: Any) -> Any:
        option = options_in(cls)[info.field_name]
        for item in value or () if option.several else (value,):
            if item is not None:
                option.check(item)
        return value


def _in_our_words(
    settings: type[Settings], error: ValidationError, given: Mapping[str, Any]
) -> BadInput:
    """The first of pydantic's errors as our sentence."""
    first = error.errors(include_url=False)[0]
    said = first.get("ctx", {}).get("error")
    if isinstance(said, BadInput):
        return said
    known, name = options_in(settings), str(first["loc"][0])
    if name not in known:
        flags = ", ".join(option.flag for option in known.values())
        return BadInput(f"there is no {flag_of(name)}: choose among {flags}")
    value = given.get(name, first["input"])
    shown = list(value) if isinstance(value, tuple) else value
    return BadInput(f"{flag_of(name)} takes {known[name].takes}, not {shown!r}")


@cache
def options_in(settings: type[Settings]) -> dict[str, Option]:
    """The options of some settings, by the names of their fields."""
    found = {}
    for name, info in settings.model_fields.items():
        kind, several, optional = _value_type(info.annotation)
        more: Any = info.json_schema_extra
        help = info.description or ""
        found[name] = Option(name, kind, several, optional, info.default, help, **more)
    return found


def _value_type(annotation: Any) -> tuple[type[Any], bool, bool]:
    """The type in ``X`` or ``tuple[X, ...]``, ``| None``; if several; if None is allowed."""
    optional = isinstance(annotation, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    several = typing.get_origin(annotation) is tuple
    return typing.get_args(annotation)[0] if several else annotation, several, optional


def combined(**families: Mapping[str, type[Settings]]) -> Callable[[type[T]], type[T]]:
    """Give settings the options of all members of some families, as one flat record.

    Args:
        families: tables of a name → the member, whose fields are its options, each under the field
            that chooses the member; under any other name, all members of the table have a part in
            everything.

    Raises:
        TypeError: two options of one name differ in more than their help.
    """

    def decorate(own: type[T]) -> type[T]:
        known = dict(options_in(own))
        fields: dict[str, Any] = {}
        brought: dict[str, tuple[tuple[str, str], ...]] = {}
        for family, members in families.items():
            for member, options in members.items():
                for name, option in options_in(options).items():
                    if known.setdefault(name, option) != option:
                        raise TypeError(f"{option.flag} of {family} {member} differs from another")
                    if name not in own.model_fields:
                        info = options.model_fields[name]
                        fields[name] = (info.annotation, copy(info))
                        brought[name] = (*brought.get(name, ()), (family, member))
        made = create_model(
            own.__name__, __base__=own, __doc__=own.__doc__, __module__=own.__module__, **fields
        )
        made.brought = {**own.brought, **brought}
        return made

    return decorate


def member_named(
    family: str, members: Mapping[str, type[T]], name: str | T, options: Mapping[str, Any]
) -> T:
    """The member of that name, made with those of the options that are its own.

    A member that is made already is returned as it is.

    Raises:
        BadInput: no member has that name, or an option is out of bounds.
    """
    if not isinstance(name, str):
        return name
    if name not in members:
        raise BadInput(f"unknown {family} '{name}': choose one of {', '.join(members)}")
    member = members[name]
    return member(**{key: options[key] for key in options_in(member) if key in options})


def unread(settings: Settings) -> dict[str, str]:
    """The options that only members bring which are not chosen, each with its family."""
    return {
        name: members[0][0]
        for name, members in settings.brought.items()
        if not any(getattr(settings, family, member) == member for family, member in members)
    }


def identity_of(settings: Settings) -> dict[str, Any]:
    """The identity of a run: all options except those that may change on resuming.

    Newer ones only where they are not at their default.
    """
    return {
        name: value
        for name, option in options_in(type(settings)).items()
        for value in [getattr(settings, name)]
        if option.identity and not (option.newer and value == option.default)
    }


def replace(settings: T, **changes: Any) -> T:
    """The same settings with some changed, checked like any others."""
    return type(settings)(**{**dict(settings), **changes})


def read_as(kind: type[Any], value: Any, *, path: bool = False) -> Any:
    """A value as text or number; the value itself if it is neither."""
    if kind is str and path and isinstance(value, str | os.PathLike):
        return expanded(value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    written = isinstance(value, str) and NUMBER.fullmatch(value)
    with suppress(ValueError, OverflowError):  # nan, inf, too many digits
        if kind is str and number and math.isfinite(value):
            return str(value)
        if kind is float and (number or written):
            return float(value)
        if kind is int and (number or written):
            return _whole(value)
    return value


def _whole(number: Any) -> Any:
    """The number as ``int``; itself if it is not whole."""
    if isinstance(number, Integral):
        return int(number)
    exact = Fraction(number if isinstance(number, str) else float(number))
    return int(exact) if exact.denominator == 1 else number


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` as the home directory; a URL or a name on the Hub is as it was.

    ``~nobody``, if that user does not exist, is a file in the working directory.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - Path's own refuses ~nobody


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are texts, except null: an option knows its type.

    YAML itself reads ``10:50`` as 650, ``010`` as 8, ``no`` as false and ``1e5`` as a text, and
    keeps the last of two values of one key.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in known if tag == "tag:yaml.org,2002:null"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise BadInput(f"'{key}' is given twice: give it once")
        return super().construct_mapping(node, deep)


def from_yaml(settings: type[T], path: Path, given: dict[str, Any]) -> T:
    """Settings from a YAML file of option names, overridden by what was ``given``.

    Raises:
        BadInput: the file cannot be read, or has an unknown key, a key twice or a value of the
            wrong type.
    """
    names = {option.key: option for option in options_in(settings).values()}
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise BadInput(f"{path} must contain 'option: value' lines")
    unknown = [str(key) for key in document if key not in names]
    if unknown:
        raise BadInput(f"{path} has an unknown key '{unknown[0]}': it may have {', '.join(names)}")
    try:
        values = {names[key].name: _word(names[key], value) for key, value in document.items()}
        read = settings(**values)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    return replace(read, **given)


def _word(option: Option, value: Any) -> Any:
    """The value of a YAML scalar for an option."""
    if option.kind is bool and isinstance(value, str):
        return yaml.SafeLoader.bool_values.get(value.lower(), value)
    if option.kind in (int, float) and isinstance(value, str) and re.match("[+-]?0[0-9]", value):
        raise BadInput(f"{option.flag} is {value}: write it without the leading zero")
    return value


def flag_of(name: str) -> str:
    """The option of a field; ``from_`` is ``--from``, which is a Python keyword."""
    return "--" + name.rstrip("_").replace("_", "-")


def check_distinct(flag: str, given: tuple[str, ...]) -> None:
    """Raise BadInput if an option names the same thing twice."""
    for name in given:
        if given.count(name) > 1:
            raise BadInput(f"{flag} {name} is given {given.count(name)} times: give each once")


def check_device(device: str) -> None:
    """Raise BadInput unless a tensor of numbers can be made on that device."""
    import torch

    try:
        there = torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"device '{device}' is not available: {reason}") from None
    if there.is_meta:
        raise BadInput("the device meta has no numbers: it is for 'rkstore plan' alone")
