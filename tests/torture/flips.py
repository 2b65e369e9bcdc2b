"""One random bit of one file is changed.

``verify`` must find it, and no reader may return a wrong number.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

from conftest import tree
from readings import examine, truth
from small_stores import KINDS, replace_file, small_store


@dataclass
class Flips:
    """Bits that were changed, one at a time, and what became of them."""

    done: int = 0
    files: int = 0
    """Files that were met."""
    refused: int = 0
    """Readings that were refused; the others had nothing to do with the bit."""
    answered: int = 0
    missed: list[str] = field(default_factory=list)
    """Flips that neither opening nor verifying noticed."""
    wrong: list[str] = field(default_factory=list)
    """Flips behind which a reader returned another number, or an exception of another kind."""


def flips(root: Path, wanted: int, seed: int = 0) -> Flips:
    """Flip single random bits of stores of every kind; every file is as likely as another."""
    rng, found = random.Random(seed), Flips()
    met = set()
    stores = []
    for kind in KINDS:
        at = root / f"flips-{'-'.join(kind)}"
        small_store(at, kind)
        stores.append((at, tree(at), truth(root, kind)))
    for n in range(wanted):
        at, files, right = stores[n % len(stores)]
        path = rng.choice(sorted(files))
        bit = rng.randrange(8 * len(files[path]))
        changed = bytearray(files[path])
        changed[bit // 8] ^= 1 << bit % 8
        replace_file(at / path, bytes(changed))
        outcome = examine(at, right)
        replace_file(at / path, files[path])
        met.add((at, path))
        where = f"{at.name}/{path}, bit {bit}"
        if not outcome.found:
            found.missed.append(where)
        if outcome.other or outcome.wrong:
            found.wrong.append(f"{where}: {outcome.other or outcome.wrong}")
        found.refused += outcome.refused
        found.answered += outcome.answered
        found.done += 1
    found.files = len(met)
    return found
