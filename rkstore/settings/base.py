"""Settings: options that are read and checked together."""

import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from rkstore.errors import BadInput
from rkstore.settings.options import Option, flag_of

T = TypeVar("T", bound="Settings")


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
