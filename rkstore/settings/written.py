"""Settings as a YAML file has them."""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rkstore.errors import BadInput, for_yaml
from rkstore.settings.base import Settings, options_in, replace
from rkstore.settings.options import Option

T = TypeVar("T", bound=Settings)


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
