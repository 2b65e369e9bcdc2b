"""Keys of a configuration of another program: each is obeyed, or refused by name."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from rkstore.errors import BadInput


def check_known(config: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    """Raise BadInput if there is another key.

    Args:
        where: of which part the keys are, such as ``trainer.``.
    """
    for key in sorted(str(key) for key in config if key not in known):
        raise BadInput(
            f"{where}{key} is {config.get(key)!r}, whose effect is not known: remove the key if it "
            "has none"
        )


def choice(config: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    """The value of a key; the first of the choices where it is not there.

    Raises:
        BadInput: it is none of the choices.
    """
    value = config.get(key, choices[0])
    if not any(type(value) is type(known) and value == known for known in choices):
        known = ", ".join(str(known) for known in choices)
        raise BadInput(f"{key} is {value!r}: rkstore reads {known}")
    return value


def required(config: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    """The value of a key that its program has no default for.

    Raises:
        BadInput: it is none of the choices, or not there.
    """
    if key not in config:
        raise BadInput(f"{key} is not there, without which its numbers are not known")
    return choice(config, key, choices)


def size(config: Mapping[str, Any], key: str) -> int:
    """A positive whole number.

    Raises:
        BadInput: it is none, or not there.
    """
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise BadInput(f"{key} is {value!r}, not a positive whole number")
    return value


def part(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object in a configuration; an empty one where it is not there.

    Raises:
        BadInput: it is something else.
    """
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise BadInput(f"{key} is {found!r}, not an object")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that contains an object.

    Raises:
        BadInput: it contains something else, or is no YAML.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError:
        raise BadInput(f"{path.name} is no YAML") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path.name} is not an object")
    return found
