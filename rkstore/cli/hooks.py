"""``hooks``."""

import textwrap
from typing import TYPE_CHECKING

import click

from rkstore.cli.options import PATH, Command, options_of
from rkstore.cli.streams import echo
from rkstore.harvest.settings import HooksSettings

if TYPE_CHECKING:
    from rkstore.harvest.listing import Listing

# Columns of a terminal that a table may take.
COLUMNS = 100


@click.command(cls=Command)
@click.argument("model", type=PATH)
@options_of(HooksSettings)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def hooks(settings: HooksSettings, model: str, as_json: bool) -> None:
    """MODEL is a Hub name, a local directory, or demo. Names of the same numbers are found by
    running the model over a few tokens: every bit is the same. Nothing is written.
    """
    from rkstore.harvest.listing import listing
    from rkstore.store.jsontext import to_json

    found = listing(model, settings)
    echo(to_json(as_dict(found), indent=2) if as_json else as_text(found))


def as_text(listing: "Listing") -> str:
    """A line for each tensor, or for the same one of several blocks, and its other names below."""
    model = listing.model
    tensors = sum(len(line.tensors) for line in listing.lines)
    names = sum(1 + len(tensor.others) for line in listing.lines for tensor in line.tensors)
    lines = [f"{model.name}: {tensors} tensors, under {names} names", ""]
    wide = max(len("hook"), *(len(line.hook_name) for line in listing.lines))
    lines.append(f"{'hook':{wide}}  {'width':>6}  what it is")
    for line in listing.lines:
        lines.append(f"{line.hook_name:{wide}}  {line.tensors[0].width:>6}  {line.words}")
        others = f"also {', '.join(line.others)}" if line.others else ""
        lines += textwrap.wrap(
            others,
            COLUMNS,
            initial_indent="    ",
            subsequent_indent="         ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    usual = f"stores {listing.usual}" if listing.usual else "finds no hook: name one with --hook"
    lines += ["", f"harvest without --hook and --pair {usual}"]
    for name, sites in listing.pairs.items():
        told = "is not there" if sites is None else f"stores {sites[0]} → {sites[1]}"
        lines.append(f"harvest --pair {name} {told}")
    return "\n".join(lines)


def as_dict(listing: "Listing") -> dict[str, object]:
    """All tensors one by one."""
    return {
        "model": listing.model.name,
        "tensors": [
            {
                "hook_name": tensor.hook_name,
                "width": tensor.width,
                "heads": tensor.heads,
                "what": line.words,
                "also": list(tensor.others),
            }
            for line in listing.lines
            for tensor in line.tensors
        ],
        "usual": listing.usual,
        "pairs": listing.pairs,
    }
