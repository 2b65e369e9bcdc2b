"""The table of layouts in ``docs/exchange.md``: which dictionaries are read and written.

    python docs/layouts.py          # rewrite the table
    python docs/layouts.py --check  # say whether the page has it

What is written is what a layout does not refuse, tried with every wiring and every select. What is
read is what rkstore reads back of it, and every golden file under ``tests/golden/dictionaries``,
which the program itself wrote.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from rkstore.dictionaries import LAYOUTS, SELECTS, Dictionary, load_dictionary, select_named
from rkstore.dictionaries.disk import save_dictionary
from rkstore.dictionaries.layouts import Layout, layouts_of
from rkstore.dictionaries.wirings import WIRINGS, Wiring
from rkstore.store.sites import Site

ROOT = Path(__file__).parents[1]
PAGE, GOLDEN = ROOT / "docs" / "exchange.md", ROOT / "tests" / "golden" / "dictionaries"
BEGIN, END = "<!-- layouts -->\n", "<!-- end of layouts -->"

NAMES = {
    "sae": "autoencoder",
    "transcoder": "transcoder",
    "skip": "transcoder with a skip",
    "per-layer": "transcoder for each layer",
    "clt": "cross-layer transcoder",
    "crosscoder": "crosscoder",
    "dfc": "dedicated-feature crosscoder",
}

# Layouts whose programs publish dictionaries and no code that writes them.
BY_SCHEMA = {
    "gemma-scope": {"sae": {"jumprelu"}, "transcoder": {"jumprelu"}},
    "gemma-scope-2": {"sae": {"jumprelu"}, "transcoder": {"jumprelu"}, "skip": {"jumprelu"}},
}

# Programs that are known by their repository.
PROGRAMS = {
    "crosscoder": "jkminder/dictionary_learning",
    "dedicated": "dedicated-feature crosscoders",
}

# What opens a dictionary that rkstore wrote and computes the same, in a test.
OPENED_BY = {
    "saelens": "sae-lens 6.54.12",
    "dictionary-learning": "dictionary-learning 0.1.0",
    "sparsify": "sparsify 1.3.3",
    "circuit-tracer": "circuit-tracer 0.5.0",
}

Found = dict[str, dict[str, set[str]]]
"""Selects by layout and wiring."""

Reasons = dict[str, dict[tuple[str, str], str]]
"""Why a layout cannot hold a wiring with a select, by layout."""

READ_ONLY = Layout.refuses(cast(Any, None), cast(Any, None))


def wirings() -> Iterator[tuple[str, Wiring]]:
    """One of each wiring, over sites of two layers or two models."""
    for name, kind in WIRINGS.items():
        models = ("base:", "chat:") if name == "dfc" else ("", "")
        count = 2 if kind.of_several else 1
        read = "mlp.hook_in" if kind.paired else "hook_resid_post"
        written = "hook_mlp_out" if kind.paired else read
        layers = (0, 0) if name == "dfc" else (0, 1)
        reads, writes = (
            [Site(f"{m}blocks.{i}.{hook}", 6) for m, i in zip(models, layers, strict=True)][:count]
            for hook in (read, written)
        )
        yield name, kind().over(reads, writes, 40)
        if name == "transcoder":
            yield "skip", kind(skip=True).over(reads, writes, 40)


def kind_of(wiring: Wiring) -> str:
    """The name of a wiring that was read."""
    banks = wiring.banks
    if any(len(bank.reads) > 1 for bank in banks):
        return "dfc" if len(banks) > 1 else "crosscoder"
    if all(bank.reads == bank.writes for bank in banks):
        return "sae"
    if any(len(bank.writes) > 1 for bank in banks):
        return "clt"
    return "per-layer" if len(banks) > 1 else "skip" if wiring.skip else "transcoder"


def tried() -> tuple[Found, Reasons, Found]:
    """What each layout holds, why not what it does not, and what is read back."""
    held: Found = {name: {} for name in LAYOUTS}
    back: Found = {name: {} for name in LAYOUTS}
    reasons: Reasons = {name: {} for name in LAYOUTS}
    for wired, wiring in wirings():
        for select in SELECTS:
            dictionary = filled(wiring, select)
            for name, layout in LAYOUTS.items():
                if reason := layout().refuses(dictionary):
                    reasons[name][wired, select] = reason
                    continue
                held[name].setdefault(wired, set()).add(select)
                with tempfile.TemporaryDirectory() as directory:
                    save_dictionary(dictionary, Path(directory), {}, name)
                    if layout().found(Path(directory)):
                        note(back[name], load_dictionary(directory, name)[0])
    return held, reasons, back


def filled(wiring: Wiring, select: str) -> Dictionary:
    """A dictionary of weights that are not zero."""
    options = {"k": 2} if "k" in SELECTS[select].model_fields else {}
    dictionary = Dictionary(wiring, select_named(select, options))
    with torch.no_grad():
        for _, parameter in sorted(dictionary.named_parameters()):
            parameter.copy_(torch.linspace(0.1, 1, parameter.numel()).view_as(parameter))
    return dictionary


def note(found: dict[str, set[str]], dictionary: Dictionary) -> None:
    found.setdefault(kind_of(dictionary.wiring), set()).add(dictionary.pools[0].rule.name)


def golden() -> tuple[Found, dict[str, set[str]]]:
    """What of the golden files is read, and the programs that wrote them, by layout."""
    read: Found = {name: {} for name in LAYOUTS}
    by: dict[str, set[str]] = {name: set() for name in LAYOUTS}
    for path in sorted(file.parent for file in GOLDEN.glob("*/made.json")):
        names = [layout.name for layout in layouts_of(path)]
        for name in names:
            try:
                dictionary, _ = load_dictionary(path, name)
            except ValueError:  # it names no sites
                dictionary, _ = load_dictionary(path, name, hook_name="a", hook_name_out="b")
            note(read[name], dictionary)
            made = json.loads((path / "made.json").read_text("utf-8"))
            program = PROGRAMS.get(made["program"], made["program"])
            by[name].add(f"{program} {made.get('version') or made['commit'][:7]}")
    return read, by


def table() -> str:
    """The table, and below it why a layout cannot hold the others."""
    held, reasons, back = tried()
    read, by = golden()
    lines = ["| layout | dictionary | read | written | tested with |", "|---|---|---|---|---|"]
    for name in LAYOUTS:
        for wired, said in NAMES.items():
            selects = read[name].get(wired, set()) | back[name].get(wired, set())
            selects |= BY_SCHEMA.get(name, {}).get(wired, set())
            written = held[name].get(wired, set())
            if selects or written:
                cells = [
                    f"`{name}`",
                    said,
                    listed(selects) or "each layer by itself",
                    listed(written) or f"no: {why(reasons[name], wired)}",
                    tested(name, by, bool(written)),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    below = [line for name in LAYOUTS for line in refusals(name, held[name], reasons[name])]
    return "\n".join([*lines, "", "What a layout cannot hold, and why:", "", *below, ""])


def why(reasons: dict[tuple[str, str], str], wired: str) -> str:
    """Why no select of a wiring is held."""
    found = [reason for (name, _), reason in reasons.items() if name == wired]
    return "it is only read" if READ_ONLY in found else found[0]


def refusals(
    name: str, held: dict[str, set[str]], reasons: dict[tuple[str, str], str]
) -> Iterator[str]:
    """A line for each reason of a layout that is written, with what it is the reason for."""
    anywhere = set().union(*held.values())
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for (wired, select), reason in reasons.items():
        # Of a wiring that it does not have at all, what it says of the selects that it has.
        if wired in held or select in anywhere:
            whats, selects = found.setdefault(reason, ({}, {}))
            whats[NAMES[wired]] = None
            if wired in held:
                selects[select] = None
    for reason, (whats, selects) in found.items():
        having = f" with {', '.join(selects)}" if selects else ""
        yield f"- `{name}`, {', '.join(whats)}{having}: {reason}."


def listed(selects: set[str]) -> str:
    """Selects in the order of their table."""
    return ", ".join(name for name in SELECTS if name in selects)


def tested(name: str, by: dict[str, set[str]], written: bool) -> str:
    if name == "rkstore":
        return "itself"
    if not by[name]:
        return "its definitions, as no program writes it; circuit-tracer 0.5.0 reads the same"
    read = f"files of {', '.join(sorted(by[name]))}"
    if name in OPENED_BY:
        return f"{read}; opened by {OPENED_BY[name]}"
    return f"{read}; schema of what is written" if written else read


def main(arguments: list[str]) -> None:
    """Rewrite the table of the page, or with ``--check`` say whether it is the one of this code."""
    page = PAGE.read_text("utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    made = before + begin + table() + end + after
    if "--check" in arguments:
        sys.exit(0 if made == page else f"{PAGE} has another table: python docs/layouts.py")
    PAGE.write_text(made, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
