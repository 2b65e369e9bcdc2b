"""Names of runs, and the paths of their checkpoints: ``<out>/<tree>/<model>/<name>_<step>``.

The tree is sae, transcoder (also for per-layer and clt) or crosscoder (also for dfc). A name is
literal text, never a pattern; the number after the last ``_`` is the step, so no two names share a
checkpoint.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rkstore.dictionaries.disk import TRAINING
from rkstore.dictionaries.wirings import Wires
from rkstore.errors import BadInput
from rkstore.store.files import named
from rkstore.store.sites import briefly

# The longest path component on common file systems, minus room for a step and a temporary name.
LONGEST = 255 - 40


def check_name(name: str) -> None:
    """Raise BadInput unless the name is a path below its directory."""
    for part in name.split("/"):
        if reason := _unfit(part):
            raise BadInput(
                f"--name is {name!r}, of which {reason}: give a name such as k8 or sweep/k8"
            )


def tree_of(wires: type[Wires]) -> str:
    """The directory for dictionaries of that kind."""
    return "transcoder" if wires.paired else "crosscoder" if wires.of_several else "sae"


def parent_of(out: str | Path, model: str | None, tree: str = "sae") -> Path:
    """The directory for the runs on a model, by the last part of its name."""
    last = str(model or "").rstrip("/").split("/")[-1]
    return named(out) / tree / ("unknown" if _unfit(last) else last)


def default_name(identity: Mapping[str, Any]) -> str:
    """A name that describes the run, different for different runs."""
    digest = hashlib.sha256(
        json.dumps(identity, sort_keys=True, allow_nan=False).encode()
    ).hexdigest()
    told = ("wiring", "dictionary", "init", "control")
    words = [identity[key] for key in told if key in identity]
    end = "-".join(["", *words, digest[:8]])
    site = briefly(identity["hook"].split(",")).encode()[: LONGEST - len(end)]
    return site.decode(errors="ignore") + end


def checkpoint_of(parent: Path, name: str, step: int) -> Path:
    """Where the checkpoint of a step is written."""
    return parent / f"{name}_{step}"


def checkpoints_beside(checkpoint: Path) -> list[tuple[int, Path]]:
    """The checkpoints of the run that a path belongs to: step and directory, by step."""
    name = checkpoint.name.rpartition("_")[0]
    return sorted(found for found in _steps(checkpoint.parent, name) if is_checkpoint(found[1]))


def is_checkpoint(path: Path) -> bool:
    """Whether a run wrote a checkpoint there."""
    return (path / TRAINING).is_file()


def check_free(parent: Path, name: str) -> None:
    """Raise BadInput if something else is where a run of that name would write."""
    target = checkpoint_of(parent, name, 0)
    for above in target.parents:
        if above == parent:
            break
        if is_checkpoint(above) or (above.exists() and not above.is_dir()):
            raise BadInput(f"{above} is no directory of runs: choose another --name than {name!r}")
    for _, path in _steps(target.parent, target.name.rpartition("_")[0]):
        if not is_checkpoint(path):
            raise BadInput(f"{path} is in the way, no checkpoint: choose another --name")


def _steps(parent: Path, name: str) -> Iterator[tuple[int, Path]]:
    for path in parent.iterdir() if parent.is_dir() else ():
        begin, _, step = path.name.rpartition("_")
        if begin == name and step.isascii() and step.isdigit() and str(int(step)) == step:
            yield int(step), path


def _unfit(part: str) -> str | None:
    """Why a part of a name cannot be a directory's, or None."""
    if not part:
        return "a part is empty"
    if part.startswith("."):
        return f"the part {part!r} begins with a dot"
    if "\0" in part:
        return f"the part {part!r} has a zero byte"
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        return f"the part {part!r} is no text"
    return f"a part is longer than {LONGEST} bytes" if size > LONGEST else None
