"""``info`` and ``verify``."""

from typing import TYPE_CHECKING

import click

from rkstore.cli import fail
from rkstore.cli.options import PATH, Command, store_argument
from rkstore.cli.streams import echo, plain
from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.store.verify import Problem


@click.command(cls=Command)
@store_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(store: str | None, as_json: bool) -> None:
    """For a store at a URL, only the metadata is fetched."""
    from rkstore.cli.terminal import describe_store
    from rkstore.store.facts import store_facts
    from rkstore.store.jsontext import to_json
    from rkstore.store.open import open_store

    opened = open_store(store)
    echo(to_json(store_facts(opened), indent=2) if as_json else describe_store(opened))


@click.command(cls=Command)
@store_argument
@click.option(
    "--repair-from", type=PATH, metavar="URL", help="Fetch damaged and missing files from a copy."
)
def verify(store: str | None, repair_from: str | None) -> None:
    """The exit status is 1 if a file is missing or not as it was written."""
    from tqdm import tqdm

    from rkstore.cli.terminal import describe_verified
    from rkstore.store.open import find_store
    from rkstore.store.store import Store
    from rkstore.store.verify import verify as verify_store
    from rkstore.store.writing.lock import writer_of

    if "://" in str(store):
        if repair_from:
            raise BadInput(f"{store} is a URL, which is not repaired: push a whole copy there")
        _verify_at_url(str(store))
        return
    opened = Store(find_store(store))
    if writer := writer_of(opened.root):
        echo(
            f"{opened.root} is being written by {writer}: its {len(opened.records)} recorded "
            "shards are checked, the one in progress is not",
            err=True,
        )
    with tqdm(
        total=opened.stored_bytes(), unit="B", unit_scale=True, desc="verify", disable=None
    ) as bar:
        problems = list(verify_store(opened, bar.update))
    _say_problems(problems)
    if problems and repair_from:
        from rkstore.share.repair import repair

        found, problems = len(problems), repair(opened, problems, repair_from)
        echo(f"{found - len(problems)} files repaired from {repair_from}", err=True)
    if problems:
        fail(f"rkstore: {len(problems)} files of {opened.root} are not as recorded", 1)
    echo(describe_verified(opened))


def _verify_at_url(url: str) -> None:
    from tqdm import tqdm

    from rkstore.cli.terminal import describe_verified
    from rkstore.store.places.remote import RemoteStore
    from rkstore.store.verify import verify_at_url

    opened = RemoteStore(url)
    total = opened.stored_bytes()
    with tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None) as bar:
        problems = list(verify_at_url(opened, bar.update))
    _say_problems(problems)
    if problems:
        fail(f"rkstore: {len(problems)} files of {opened.where} are not as recorded", 1)
    echo(describe_verified(opened))


def _say_problems(problems: "list[Problem]") -> None:
    for problem in problems:
        echo(plain(f"{problem.path} {problem.what}"), err=True)
