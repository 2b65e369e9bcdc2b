"""Every option of every command, once: its name, its default and the reason, its type.

The command line makes its options from these classes and a YAML file is checked
against them, so both know the same names. Importing this module is cheap.
"""

import math
import os
import re
import types
import typing
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from rkstore.errors import BadInput, for_yaml

T = TypeVar("T", bound="Settings")

KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}


# Numbers are handed on to libraries that count in 64 bits.
MOST = 2**63 - 1

# A number as people and programs write it; 1_000, 0x10 and 1:30 are none.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    path: bool = False,
) -> Any:
    """A field with what its option needs to know besides its type.

    Args:
        path: whether it is a path, or may be one: ``~`` is then the home directory.
    """
    metadata = {"help": help, "choices": choices, "least": least, "path": path}
    if isinstance(default, (list, tuple)):
        return field(default_factory=lambda: tuple(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that check themselves.

    A text of a number will do where a number is asked for, and the other way round; a number
    that is whole (1e5) where a whole number is asked for; one text where several may be given.

    Raises:
        BadInput: a value is of the wrong type, too small or not one of the choices.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            given = getattr(self, spec.name)
            kind, optional = value_type(spec.type)
            if given is None and optional:
                continue
            value = read_as(kind, given, path=spec.metadata["path"])
            object.__setattr__(self, spec.name, value)
            self._check(spec, kind, value, given)

    def _check(self, spec: Any, kind: type[Any], value: Any, given: Any) -> None:
        flag, choices, least = flag_of(spec.name), spec.metadata["choices"], spec.metadata["least"]
        texts = value if kind is tuple else ()
        finite = kind is not float or (type(value) is float and math.isfinite(value))
        if type(value) is not kind or not finite or not all(type(text) is str for text in texts):
            shown = list(given) if isinstance(given, tuple) else given
            raise BadInput(f"{flag} takes {KINDS[kind]}, not {shown!r}")
        if kind is int and abs(value) > MOST:
            raise BadInput(f"{flag} is {given}: it must be at most {MOST}")
        if choices and value not in choices:
            raise BadInput(f"{flag} is '{value}': choose one of {', '.join(choices)}")
        if least is not None and value < least:
            raise BadInput(f"{flag} is {value}: it must be at least {least}")


def read_as(kind: type[Any], value: Any, *, path: bool = False) -> Any:
    """What a value says as text, number or tuple of texts; the value itself if it is no such."""
    if kind is tuple:
        several = value if isinstance(value, list | tuple) else (value,)
        return tuple(read_as(str, item, path=path) for item in several)
    if kind is str and path and isinstance(value, str | os.PathLike):
        return expanded(value)
    number = isinstance(value, Real) and not isinstance(value, bool)
    written = isinstance(value, str) and NUMBER.fullmatch(value)
    with suppress(ValueError, OverflowError):  # nan, inf, more digits than a number can have
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


def value_type(annotation: Any) -> tuple[type, bool]:
    """The type behind ``X``, ``X | None`` or ``tuple[X, ...]``, and whether None is allowed."""
    optional = False
    if isinstance(annotation, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        annotation, optional = inner[0], True
    return typing.get_origin(annotation) or annotation, optional


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` as the home directory; a URL or a name on the Hub is as it was.

    ``~nobody``, where there is no such user, is a file of the working directory.
    """
    return os.path.expanduser(os.fspath(path))  # noqa: PTH111 - Path's own refuses ~nobody


class _Loader(yaml.SafeLoader):
    """YAML whose words are texts, null apart: an option knows what it asks for.

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
    names = {spec.name.rstrip("_"): spec for spec in fields(settings)}
    try:
        document = yaml.load(path.read_text("utf-8"), _Loader)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise BadInput(f"{path} must hold 'option: value' lines")
    unknown = [str(key) for key in document if key not in names]
    if unknown:
        raise BadInput(f"{path} has an unknown key '{unknown[0]}': it may have {', '.join(names)}")
    try:
        values = {names[key].name: _word(names[key], value) for key, value in document.items()}
        read = settings(**values)
    except BadInput as error:
        raise BadInput(f"{path}: {for_yaml(error.sentence)}") from None
    return replace(read, **given)


def _word(spec: Any, value: Any) -> Any:
    """What a word of YAML says to an option."""
    kind, _ = value_type(spec.type)
    if kind is bool and isinstance(value, str):
        return yaml.SafeLoader.bool_values.get(value.lower(), value)
    if kind in (int, float) and isinstance(value, str) and re.match("[+-]?0[0-9]", value):
        raise BadInput(f"{flag_of(spec.name)} is {value}: write it without the zero it begins with")
    return value


def flag_of(name: str) -> str:
    """The option of a field; ``from_`` is ``--from``, which no field can be called."""
    return "--" + name.rstrip("_").replace("_", "-")


def default_of(spec: Any) -> Any:
    """The default of a dataclass field."""
    return spec.default if spec.default is not MISSING else spec.default_factory()


CODECS = ("float32", "float16", "bfloat16", "int8", "int6", "int4")
COMPRESSIONS = ("auto", "zstd", "blosc-zstd", "blosc-lz4", "deflate", "none")
COMPRESSION_HELP = (
    "Lossless compression of the stored numbers; auto takes the smallest for the codec. "
    "deflate is HDF5's; none makes float32 a view of the mapped file."
)


def check_device(device: str) -> None:
    """Raise BadInput unless a tensor can be made on that device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"device '{device}' is not to be had: {reason}") from None
