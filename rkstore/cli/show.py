"""``show``."""

from typing import Any

import click

from rkstore.cli.options import PATH, Command, Number, is_typed, store_argument
from rkstore.cli.streams import echo, plain
from rkstore.errors import BadInput
from rkstore.store.sites import PAIRED_HELP


@click.command(cls=Command)
@store_argument
@click.option("--paired-with", type=PATH, help=PAIRED_HELP)
@click.option("--row", "rows", type=Number(int), multiple=True, help="Row; may be repeated.")
@click.option("--find", type=click.STRING, help="Show rows of this token: ' def', not 'def'.")
@click.option("--spaced", is_flag=True, help="With --find, also the token with a space before it.")
@click.option(
    "--limit", type=Number(int), default=5, show_default=True, help="With --find, the most rows."
)
@click.option("--layer", "--layers", help="Block of the site whose activations are shown.")
@click.option("--hook", help="Hook of that site: the part after the block, or a full name.")
@click.option(
    "--window", type=Number(int), default=20, show_default=True, help="Tokens on either side."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(
    store: str | None,
    paired_with: str | None,
    rows: tuple[int, ...],
    find: str | None,
    spaced: bool,
    limit: int,
    layer: str | None,
    hook: str | None,
    window: int,
    as_json: bool,
) -> None:
    """Without --layer and --hook, activations are shown if the store has one site."""
    from rkstore.store.context import row_facts
    from rkstore.store.jsontext import to_json
    from rkstore.store.open import open_readable

    if bool(rows) == (find is not None):
        raise BadInput("say which rows to show, with either --row or --find")
    if find is None and (spaced or is_typed("limit")):
        raise BadInput("--spaced and --limit are for --find: leave them out")
    opened = open_readable(store, paired_with)
    site = None
    if layer is not None or hook is not None or len(opened.hook_names) == 1:
        site = opened.site(layer, hook)
    chosen = rows if find is None else opened.find(find, spaced=spaced, limit=limit).tolist()
    if not chosen:
        hint = "" if spaced else ": with --spaced a space may be before it"
        raise BadInput(f"no row of {opened.where} has the token {find!r}{hint}")
    facts = [row_facts(opened, row, site, window) for row in chosen]
    echo(to_json(facts, indent=2) if as_json else "\n\n".join(map(_described, facts)))


def _described(facts: dict[str, Any]) -> str:
    """A row on a terminal: what it is, its text, its activations."""
    word = "" if facts["token"] is None else f" {facts['token']!r}"
    source = "" if facts["source"] is None else f" ({facts['source']})"
    lines = [
        plain(
            f"row {facts['row']:,}  token {facts['token_id']}{word}, document {facts['document']}"
            f"{source}, position {facts['position']} of block {facts['block']:,}"
        ),
        "  no tokenizer in the store" if facts["text"] is None else plain(f"  {facts['text']}"),
    ]
    if "site" in facts:
        site = facts["site"]
        kind = {True: ", massive", False: ", not massive", None: ""}[site["massive"]]
        lines += [
            f"  {site['hook_name']}: norm {site['norm']:.4g}{kind}",
            f"  {'dimension':>9}{'value':>10}{'mean':>10}{'std':>10}",
        ]
        for one in site["largest"]:
            numbers = (f"{one[name]:>10.4g}" for name in ("value", "mean", "std"))
            lines.append(f"  {one['dimension']:>9}{''.join(numbers)}")
    return "\n".join(lines)
