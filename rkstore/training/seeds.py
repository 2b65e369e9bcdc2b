"""Several seeds of a training, and what they came to, beside one another."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import TRAINING
from rkstore.errors import BadInput
from rkstore.settings import replace
from rkstore.training.settings import TrainSettings

SPAN = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def one_a_seed(settings: TrainSettings) -> list[TrainSettings]:
    """Settings for each listed seed, in the order given; without a list, only these.

    A name becomes a directory of runs, each named after its seed.

    Raises:
        BadInput: it is no such list, or one seed is given as well.
    """
    if settings.seeds is None:
        return [settings]
    if settings.seed:
        raise BadInput("--seeds trains one dictionary for each seed: leave out --seed")
    name = settings.name
    return [
        replace(
            settings, seeds=None, seed=seed, name=None if name is None else f"{name}/seed-{seed}"
        )
        for seed in _listed(settings.seeds)
    ]


def _listed(asked: str) -> list[int]:
    """The numbers that a list such as ``0-3,8`` names, each once."""
    found = dict[int, None]()
    for part in asked.split(","):
        span = SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if last < first:
            raise BadInput(f"--seeds is '{asked}': give a list such as 0-7 or 0,3,5")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def by_order(settings: Sequence[TrainSettings]) -> list[list[TrainSettings]]:
    """Those that see the rows in the same order, which can share a pass, together."""
    found: dict[int, list[TrainSettings]] = {}
    for one in settings:
        found.setdefault(one.seed if one.data_seed is None else one.data_seed, []).append(one)
    return list(found.values())


@dataclass(frozen=True)
class Final:
    """What a training came to: the numbers of its last batch.

    Args:
        hook_name: what it reads, and after an arrow what it writes if that is something else.
        options: what else identifies it, but the seeds.
        dead: latents that count as dead.
    """

    hook_name: str
    options: Mapping[str, Any]
    seed: int
    fvu: float | None
    l0: float
    dead: int


def finals(paths: Sequence[Path]) -> Iterator[Final]:
    """What is on record of finished trainings, by the directories of their last checkpoints."""
    for path in paths:
        report = json.loads((path / TRAINING).read_text("utf-8"))
        identity, last = report["identity"], report["history"][-1]
        apart = ("hook", "hook_out", "seed", "data_seed")
        yield Final(
            " → ".join(identity[key] for key in ("hook", "hook_out") if key in identity),
            {key: value for key, value in identity.items() if key not in apart},
            identity["seed"],
            last["fvu"],
            last["l0"],
            last["dead"],
        )
