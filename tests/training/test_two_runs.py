"""Checkpoints when more than one process writes, a disk is full, or a file is damaged."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import tree
from faults import full_at_each_write
from test_train import SITE, train_until

from rkstore.errors import BadInput, RkstoreError
from rkstore.store import files
from rkstore.training import checkpoint
from rkstore.training.checkpoint import STATE, locked_run
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train, train_all

WHOLE = {"cfg.json", "sae_weights.safetensors", "training.json", STATE}


@pytest.fixture
def settings(make_store, tmp_path):
    """Call it for settings of a small run called k."""
    store, _ = make_store(rows=400)

    def make(**given):
        usual = {
            "store": str(store.root),
            "hook": SITE,
            "name": "k",
            "d_sae": 24,
            "k": 4,
            "steps": 40,
            "batch_size": 32,
            "checkpoint_every": 10,
            "out": str(tmp_path / "checkpoints"),
        }
        return TrainSettings(**(usual | given))

    return make


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def command(settings: TrainSettings) -> list[str]:
    """The command line of a run, in a process of its own."""
    words = ["train", settings.store, "--hook", SITE]
    for option in ("name", "d_sae", "k", "steps", "batch_size", "out", "lr"):
        words += [f"--{option.replace('_', '-')}", str(getattr(settings, option))]
    words += ["--checkpoint-every", str(settings.checkpoint_every)]
    return [sys.executable, "-c", "from rkstore.cli import main; main()", *words]


def begun(settings: TrainSettings) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(settings), env=environment, **pipes)


# Two at once.


def test_a_run_that_another_process_trains_is_refused(settings):
    before = train(settings(steps=20))
    found = tree(before.parent)
    with (
        locked_run(prepare(settings(steps=20))),
        pytest.raises(BadInput, match=rf"the run k in .* process {os.getpid()}: wait for it or"),
    ):
        train(settings(steps=20))
    assert tree(before.parent) == found


def test_runs_of_other_names_are_trained_at_once(settings):
    with locked_run(prepare(settings(name="sweep/k"))):
        assert train(settings()).name == "k_40"


def test_of_dictionaries_on_one_reading_each_is_locked(settings):
    with (
        locked_run(prepare(settings(name="other"))),
        pytest.raises(BadInput, match="the run other in"),
    ):
        train_all([settings(), settings(name="other")])
    assert train(settings()).name == "k_40"


def test_a_run_is_locked_before_its_checkpoints_are_read(settings, monkeypatch):
    monkeypatch.setattr(checkpoint, "checkpoints_beside", None)
    with locked_run(prepare(settings())), pytest.raises(BadInput, match="is being written"):
        train(settings())


def test_of_two_commands_at_once_one_trains_and_one_is_refused(settings):
    pair = [settings(lr=lr, steps=100) for lr in (0.001, 0.002)]
    processes = [begun(one) for one in pair]
    said = [process.communicate()[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2], said
    refused = said[0] if processes[0].returncode else said[1]
    assert "is being written by process" in refused or "another run with this name" in refused
    assert "Traceback" not in "".join(said)
    winner = pair[0 if processes[0].returncode == 0 else 1]
    parent = prepare(winner).parent
    assert names(parent) == {f"k_{step}" for step in range(10, 101, 10)}
    for path in parent.glob("k_*"):
        assert json.loads((path / "training.json").read_text())["identity"]["lr"] == winner.lr
        assert json.loads((path / "cfg.json").read_text())["metadata"]["rkstore"]["lr"] == winner.lr


def test_a_run_killed_at_random_times_goes_on_to_the_same_bytes(settings, tmp_path):
    through = train(settings(out=str(tmp_path / "through"), steps=120, checkpoint_every=1))
    chosen = settings(steps=120, checkpoint_every=1)
    parent = prepare(chosen).parent
    chance = random.Random(0)
    for _ in range(3):
        process = begun(chosen)
        while process.poll() is None and not parent.is_dir():
            time.sleep(0.01)
        at = len(names(parent))
        while process.poll() is None and len(names(parent)) <= at + 1:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    path = train(chosen)
    assert tree(path) == tree(through)
    assert names(parent) == {f"k_{step}" for step in range(1, 121)}


def test_what_processes_that_ended_left_aside_is_cleared(settings):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parent = prepare(settings()).parent
    parent.mkdir(parents=True)
    for name in (f".k_5.{ended.pid}.writing", ".k_7.writing", f".k_5_5.{ended.pid}.writing"):
        (parent / name).mkdir()
        (parent / name / STATE).write_bytes(b"half")
    (parent / f".k_6.{os.getppid()}.writing").mkdir()
    train(settings())
    left = {path for path in names(parent) if path.startswith(".")}
    assert left == {f".k_6.{os.getppid()}.writing", f".k_5_5.{ended.pid}.writing"}


def test_a_checkpoint_of_another_run_is_never_replaced(settings, tmp_path, monkeypatch):
    """One that came by other means than ``train``, which the lock does not know of."""
    foreign = train(settings(lr=0.01, out=str(tmp_path / "elsewhere")))
    target = prepare(settings()).directory(40)
    save = checkpoint._write

    def write(run, directory):
        save(run, directory)
        if run.step == 40:
            foreign.rename(target)

    found = tree(foreign)
    monkeypatch.setattr(checkpoint, "_write", write)
    with pytest.raises(BadInput, match="k_40 is another run with this name"):
        train(settings())
    assert tree(target) == found
    assert names(target.parent) == {"k_10", "k_20", "k_30", "k_40"}


# A full disk.


def test_wherever_the_disk_is_full_the_checkpoint_before_is_intact(settings, tmp_path):
    through = train(settings(out=str(tmp_path / "through")))
    train_until(35, [settings()])
    parent = prepare(settings()).parent
    found, count = tree(parent), 0
    for error in full_at_each_write(partial(train, settings())):
        assert isinstance(error, RkstoreError)
        assert "the disk is full" in str(error)
        if not (parent / "k_40").exists():
            assert tree(parent) == found
            count += 1
        assert {"k_30"} < names(parent) <= {"k_10", "k_20", "k_30", "k_40"}
    assert count >= len(WHOLE)
    assert tree(parent / "k_40") == tree(through)


def test_a_full_disk_says_which_checkpoint_is_kept(settings):
    errors = [str(error) for error in full_at_each_write(partial(train, settings()))]
    assert any("nothing was there before, make room and run the same" in one for one in errors)
    train_until(35, [settings(name="l")])
    errors = [str(error) for error in full_at_each_write(partial(train, settings(name="l")))]
    assert any("its checkpoint l_30 is intact, make room and run the same" in one for one in errors)


def test_a_checkpoint_is_on_the_disk_before_the_state_of_another_is_given_up(settings, monkeypatch):
    synced: list[Path] = []
    given_up: list[tuple[Path, list[Path]]] = []
    real = Path.unlink

    def unlink(path, missing_ok=False):
        if path.name == STATE and path.exists():
            given_up.append((path, list(synced)))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(files, "sync", synced.append)
    monkeypatch.setattr(Path, "unlink", unlink)
    path = train(settings(steps=30))
    old, new = path.with_name("k_10"), path.with_name("k_30")
    [before] = [before for file, before in given_up if file == old / STATE]
    aside = path.with_name(f".{new.name}.{os.getpid()}.writing")
    order = [before.index(file) for file in (aside / STATE, aside)]
    assert {aside / name for name in WHOLE} <= set(before)
    assert before[-1] == new.parent
    assert order == sorted(order)


# A damaged checkpoint.


def damages(file: str) -> list[bytes]:
    if file == STATE:
        return [b"", b"\0", b"\xff" * 8, b"\0" * 4000, b"cut"]
    return [b"", b"{", b"[]", b"\xff", b'{"identity": 3}', b'{"identity": {}}', b"[" * 10**5]


DAMAGES = [(file, content) for file in (STATE, "training.json") for content in damages(file)]
IDS = [f"{file}-{content[:14]!r}" for file, content in DAMAGES]


def damage(file: Path, content: bytes) -> None:
    cut = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(cut if content == b"cut" else content)


@pytest.mark.parametrize(("file", "content"), DAMAGES, ids=IDS)
def test_of_a_damaged_checkpoint_the_older_one_is_taken(settings, tmp_path, caplog, file, content):
    through = train(settings(out=str(tmp_path / "through")))
    train_until(35, [settings()])
    damage(prepare(settings()).directory(30) / file, content)
    path = train(settings())
    said = caplog.text
    assert f"cannot resume {path.with_name('k_30')} (" in said
    assert "going on from step 20" in said
    assert tree(path.parent) == tree(through.parent)


@pytest.mark.parametrize(("file", "content"), DAMAGES, ids=IDS)
def test_where_no_checkpoint_is_whole_a_sentence_says_so(settings, file, content):
    path = train(settings())
    damage(path / file, content)
    found = tree(path.parent)
    with pytest.raises(BadInput, match=r"cannot resume .*k_40 \(.+\): remove it to train from"):
        train(settings())
    assert tree(path.parent) == found


def test_the_state_of_another_dictionary_is_damage(settings, tmp_path, caplog):
    other = train(settings(d_sae=32, out=str(tmp_path / "other")))
    train_until(35, [settings()])
    (other / STATE).replace(prepare(settings()).directory(30) / STATE)
    train(settings())
    assert f"{STATE} has no" in caplog.text


def test_states_that_a_kill_left_of_a_finished_run_are_removed(settings):
    train_until(35, [settings()])
    parent = prepare(settings()).parent
    state = (parent / "k_30" / STATE).read_bytes()
    finished = tree(train(settings()).parent)
    (parent / "k_30" / STATE).write_bytes(state)  # as if it had ended before it removed it
    train(settings())
    assert tree(parent) == finished


def test_two_states_are_kept_until_a_run_is_finished(settings):
    train_until(35, [settings()])
    parent = prepare(settings()).parent
    assert {path.parent.name for path in parent.glob(f"*/{STATE}")} == {"k_20", "k_30"}
    train(settings())
    assert {path.parent.name for path in parent.glob(f"*/{STATE}")} == {"k_40"}
