"""Options of commands, made from settings."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from rkstore.cli import COMMANDS
from rkstore.cli.streams import echo
from rkstore.errors import BadInput
from rkstore.settings import (
    KINDS,
    Option,
    Settings,
    expanded,
    flag_of,
    from_yaml,
    options_in,
    read_as,
    unread,
)
from rkstore.store.sites import STORE_HELP

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.ParamType):  # type: ignore[type-arg] # not generic in older clicks
    """A number as all settings read it: ``1e5`` is a whole number."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.name = "integer" if kind is int else "float"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = read_as(self.kind, value)
        if type(number) is not self.kind:
            self.fail(f"'{value}' is not {KINDS[self.kind]}.", param, ctx)
        return number


class Numbers(Number):
    """Numbers with commas between them."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(super(Numbers, self).convert(part, param, ctx) for part in parts)


class PathOrName(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL or Hub name in its place. ``~`` is the home directory."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:  # noqa: ARG002 - click calls it
        return expanded(value)


PATH = PathOrName()


class OfMembers(click.Option):
    """An option that members of a family add; ``members`` are their names."""

    def __init__(self, *args: Any, members: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.members = members


class Command(click.Command):
    """A command whose help groups options by the members that add them.

    Its help begins with its sentence in ``COMMANDS``. It refuses an option given twice, where
    click would keep the last value.
    """

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.name in COMMANDS:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(COMMANDS[self.name][1])
        super().format_help_text(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option in given:
            if isinstance(option, click.Option) and given.count(option) > 1 and _has_one(option):
                names = " or ".join(option.opts + option.secondary_opts)
                raise BadInput(f"{names} is given twice: give it once")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                groups.setdefault(getattr(param, "members", ()), []).append(record)
        for members, records in groups.items():
            with formatter.section(f"Options of {', '.join(members)}" if members else "Options"):
                formatter.write_dl(records)


def _has_one(option: click.Option) -> bool:
    """Whether an option has one value; repeating a flag without an opposite changes nothing."""
    harmless = option.is_flag and not option.secondary_opts
    return not (option.multiple or option.count or harmless)


def options_of(settings: type[Settings], *, several: bool = False) -> Callable[[F], F]:
    """Give a command the options of its settings and ``--config``; it is called with the settings.

    What is typed overrides the file, the file overrides the defaults.

    Args:
        several: whether ``--config`` may be given more than once; the command is then called
            with a list of settings, one a file.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(config: tuple[str, ...], **values: Any) -> Any:
            names = options_in(settings)
            rest = {key: value for key, value in values.items() if key not in names}
            given = {k: v for k, v in values.items() if k in names and is_typed(k)}
            if "store" in names and values["store"] is not None:  # maybe as the argument
                given["store"] = values["store"]
            chosen = [from_yaml(settings, Path(file), given) for file in config]
            if not several and len(chosen) > 1:
                raise BadInput(f"--config is given {len(chosen)} times: give one file")
            chosen = chosen or [settings(**given)]
            if several:
                return command(chosen, **rest)
            _say_unread(chosen[0])
            return command(chosen[0], **rest)

        help = "YAML file of options."
        if several:
            help += " If repeated, one is trained for each, all in one pass over the store."
        decorated = click.option("--config", type=PATH, multiple=True, help=help)(wrapped)
        for option in reversed(options_in(settings).values()):
            members = tuple(member for _, member in settings.brought.get(option.name, ()))
            decorated = _option(option, members)(decorated)
        return cast(F, decorated)

    return decorate


def store_argument(command: F) -> F:
    """Allow a command's store as an argument, as well as with ``--store``."""

    @functools.wraps(command)
    def wrapped(at: str | None, store: str | None, **values: Any) -> Any:
        if at is not None and store is not None:
            raise BadInput(f"--store is {store}, and the argument {at}: leave out one of them")
        return command(store=store if at is None else at, **values)

    decorated: Any = wrapped
    if not any(param.name == "store" for param in getattr(wrapped, "__click_params__", ())):
        decorated = click.option("--store", type=PATH, help=STORE_HELP)(decorated)
    argument = click.argument("at", type=PATH, required=False, metavar="[STORE]")
    return cast(F, argument(decorated))


def _say_unread(settings: Settings) -> None:
    """Report options on the command line that only unchosen members use."""
    for name, family in unread(settings).items():
        chosen = getattr(settings, family)
        if chosen is not None and is_typed(name):
            said = f"{flag_of(name)} has no effect with {flag_of(family)} {chosen}"
            echo(said, err=True)


def is_typed(name: str) -> bool:
    """Whether the option of a field is on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def _option(option: Option, members: tuple[str, ...]) -> Callable[[F], F]:
    shown: dict[str, Any] = {"help": option.help, "default": option.default}
    shown["show_default"] = not option.optional and option.default != ()
    shown |= {"cls": OfMembers, "members": members}
    if option.kind is bool:
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, **shown)
    if option.several and option.kind is not str:
        default = ",".join(f"{x:g}" for x in option.default) or None
        shown |= {"default": default, "metavar": "NUMBERS"}
    elif option.several:
        shown |= {"multiple": True, "metavar": "NAME"}
    flags = [option.flag] + ([flag_of(option.also)] if option.also else [])
    return click.option(*flags, option.name, type=_param_type(option), **shown)


def _param_type(option: Option) -> Any:
    if option.choices:
        return click.Choice(tuple(option.choices))
    if option.kind in (int, float):
        return (Numbers if option.several else Number)(option.kind)
    return PATH if option.path else click.STRING
