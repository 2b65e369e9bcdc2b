"""The commands that are disturbed: what each writes, and what of it must never be lost."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from conftest import make_manifest, make_values, tree, write_store
from processes import Command

from rkstore.store.files import ASIDE, JOURNAL, LOCK, MANIFEST, PART

HOOK = "blocks.0.mlp.hook_post"
STATE = "training_state.safetensors"

# Derived from the journal or from what is there so far, and renewed as that grows.
RENEWED = ("zarr.json", PART)

Files = dict[str, bytes]


@dataclass
class Work:
    """A command, run in an empty directory or on what earlier runs of it left."""

    name: str
    words: Sequence[object]
    out: str
    """What it writes, relative to where it runs."""
    before: Files = field(default_factory=dict)
    """What is there at first."""
    once: bool = False
    """Whether it refuses to write again what is there already."""
    expected: Files = field(default_factory=dict)
    """What it leaves if nobody disturbs it."""

    def begin(self, here: Path) -> None:
        """Make the directory in which it runs."""
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        for path, content in self.before.items():
            (here / path).parent.mkdir(parents=True, exist_ok=True)
            (here / path).write_bytes(content)

    def start(self, here: Path, first: Callable[[], object] = lambda: None) -> Command:
        """Run it there, in a child that does something else first."""
        return Command(self.words, here, first)

    def learn(self, here: Path) -> None:
        """Run it undisturbed."""
        self.begin(here)
        done = self.start(here)
        assert done.wait() == 0, f"{self.name} fails undisturbed: {done.said}"
        self.expected = self.left(here)

    def left(self, here: Path) -> Files:
        """Every file that is there, but locks and what waits aside."""
        return placed(here)

    def wrong(self, files: Files) -> list[str]:
        """Files in place that are neither what they were before nor what they will be."""
        return [
            path
            for path, content in files.items()
            if path in self.expected
            and content not in (self.expected[path], self.before.get(path))
            and not path.endswith(RENEWED)
            and not (path.endswith(JOURNAL) and self.expected[path].startswith(content))
        ]

    def finish(self, here: Path) -> str | None:
        """Run it again, undisturbed; what is then not as it should be, if anything."""
        command = self.start(here)
        status, files = command.wait(), self.left(here)
        if files != self.expected:
            return f"run again it leaves {differences(files, self.expected)}"
        if status and not self.once:
            return f"run again it ends with {status}: {command.said[-500:]}"
        return None

    def lost(self, before: Files, after: Files) -> list[str]:
        """What was recorded before, and is gone or another thing after a run."""
        gone = [path for path in self._recorded(before) if path not in after]
        journal = f"{self.out}/{JOURNAL}"
        lines = before.get(journal, b"")
        if not after.get(journal, b"").startswith(lines[: lines.rfind(b"\n") + 1]):
            gone.append(f"lines of {journal}")
        return gone

    def _recorded(self, files: Files) -> list[str]:
        manifest, journal = f"{self.out}/{MANIFEST}", f"{self.out}/{JOURNAL}"
        if manifest in self.expected:
            lines = files.get(journal, b"").splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
            listed = [f"{self.out}/{path}" for line in whole for path in line["files"]]
            kept = [manifest, journal] * bool(listed)
            return [path for path in kept + listed if path in files]
        return [path for path in files if not path.endswith(STATE)]


def placed(root: Path) -> Files:
    """Every file under a directory, but locks and what waits aside."""
    found = tree(root)
    return {
        path: content
        for path, content in found.items()
        if LOCK not in path.split("/")[-1] and ASIDE not in path
    }


def differences(found: Files, expected: Files) -> str:
    """In which files two trees differ, in short."""
    names = sorted(found.keys() | expected.keys())
    other = [name for name in names if found.get(name) != expected.get(name)]
    return f"{len(other)} other files ({', '.join(other[:3])})"


def works(root: Path) -> list[Work]:
    """Harvest (of the model that kills made), import, pull, push, export, train and evaluate.

    Each is small, and learned undisturbed.
    """
    manifest = make_manifest(codec="int8", rows=128, shard_rows=32, sites={HOOK: 12})
    values = make_values(manifest)
    write_store(root / "store", manifest, values)
    np.save(root / "acts.npy", values[HOOK])
    store, url = str(root / "store"), (root / "store").as_uri()
    train = ["train", "--store", store, "--layer", 0, "--d-sae", 24, "--k", 4, "--warmup", 2]
    train += ["--steps", 12, "--batch-size", 16, "--checkpoint-every", 4, "--name", "x"]
    brought = ["import", root / "acts.npy", "--from", "npy", "--context-size", 8]
    named = ["--hook-name", HOOK, "--shard-rows", 32, "--out", "out"]
    made = [
        Work("import", [*brought, *named], "out"),
        Work("pull", ["pull", url, "--out", "out"], "out"),
        Work("push to a directory", ["push", store, "out"], "out"),
        Work("export", ["export", store, "--to", "npy", "--out", "out"], "out", once=True),
        Work("train", train, "checkpoints"),
    ]
    if (root / "model").is_dir():  # kills made it
        words = ["harvest", "--model", root / "model", "--text", root / "story.txt"]
        words += ["--layers", "all", "--tokens", 384, "--context-size", 16, "--shard-rows", 64]
        made.insert(0, Work("harvest", [*words, "--batch-size", 3, "--out", "out"], "out"))
    for work in made:
        work.learn(root / "learn")
    # In the end there is what another dictionary was measured to be.
    (run,) = (root / "learn").glob("checkpoints/*/*")
    shutil.copytree(run, root / "run")
    measured = ["evaluate", "--store", store, "--out", "out"]
    old = Work("evaluate", [*measured, root / "run" / "x_4"], "out")
    old.learn(root / "learn")
    new = Work("evaluate", [*measured, root / "run" / "x_12"], "out", before=old.expected)
    new.learn(root / "learn")
    return [*made, new]
