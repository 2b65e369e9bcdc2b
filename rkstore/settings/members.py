"""Settings that have the options of families: those of every member, in one flat record."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, TypeVar

from pydantic import create_model

from rkstore.errors import BadInput
from rkstore.settings.base import Settings, options_in

T = TypeVar("T", bound=Settings)


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
