"""What is logged of a training, where, and what callbacks add to it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from stopped import train_until

from rkstore.errors import BadInput
from rkstore.evaluation.samples import Samples
from rkstore.training.settings import TrainSettings
from rkstore.training.tracking import base
from rkstore.training.train import train, train_all

SITE = "blocks.0.mlp.hook_post"
NAMES = {"step", "train_loss", "train_mse", "train_sparsity", "L0", "fvu", "dead_features", "lr"}

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="pip install 'rkstore[tensorboard]'"
)
needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="pip install 'rkstore[wandb]'"
)


@pytest.fixture
def settings(make_store, tmp_path):
    """Call it for a small training of sixty steps."""
    store, _ = make_store()

    def make(**given):
        usual = {"store": str(store.where), "hook": SITE, "d_sae": 24, "k": 3, "steps": 60}
        usual |= {"batch_size": 16, "name": "run", "out": str(tmp_path / "out")}
        return TrainSettings(**(usual | given))

    return make


def lines(tmp_path, name="run"):
    path = tmp_path / f"out/sae/random/{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def history(path):
    return json.loads((path / "training.json").read_text())["history"]


def test_every_training_writes_its_numbers_as_lines_under_the_known_names(settings, tmp_path):
    path = train(settings())
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [20, 40, 60]
    assert all(set(line) == NAMES for line in found)
    for line, entry in zip(found, history(path), strict=True):
        assert (line["fvu"], line["L0"]) == (entry["fvu"], entry["l0"])
        assert line["train_loss"] == pytest.approx(sum(entry["losses"].values()))


def test_the_loss_is_the_sum_of_its_parts(settings, tmp_path):
    train(settings(dictionary="relu", l1=0.5, entropy=0.1, clip=1.0))
    for line in lines(tmp_path):
        assert line["train_sparsity"] > 0
        assert line["grad_norm"] > 0
        parts = ("train_mse", "train_sparsity", "train_entropy")
        assert line["train_loss"] == pytest.approx(sum(line[name] for name in parts))


def test_after_a_stop_the_lines_are_those_of_a_training_in_one_go(settings, tmp_path):
    train(settings(name="whole"))
    stopping = settings(checkpoint_every=20)
    train_until(50, [stopping])
    with (tmp_path / "out/sae/random/run.jsonl").open("a") as file:
        file.write('{"step": 60, "fvu": 9}\n{"step": 4')
    train(stopping)
    assert lines(tmp_path) == lines(tmp_path, "whole")


def test_a_resumed_training_without_its_lines_writes_those_of_its_history(settings, tmp_path):
    stopping = settings(checkpoint_every=20)
    train_until(50, [stopping])
    before = lines(tmp_path)
    (tmp_path / "out/sae/random/run.jsonl").unlink()
    train(stopping)
    assert lines(tmp_path)[:2] == before


def test_a_finished_training_keeps_its_lines(settings, tmp_path):
    train(settings())
    before = lines(tmp_path)
    train(settings())
    assert lines(tmp_path) == before


def test_callbacks_are_called_after_each_step_and_what_they_return_is_tracked(settings, tmp_path):
    seen = []

    def third(step, run):
        seen.append((step, run.step))
        return {"mine": step / 2} if step % 30 == 0 else None

    train(settings(), [third])
    assert seen == [(n, n) for n in range(1, 61)]
    assert {line["step"]: line.get("mine") for line in lines(tmp_path)} == {
        20: None,
        30: 15,
        40: None,
        60: 30,
    }


def test_several_dictionaries_have_a_file_each(settings, tmp_path):
    calls = []
    runs = [settings(name="a"), settings(name="sweep/b", steps=40)]
    train_all(runs, [lambda step, run: calls.append((run.name, step))])
    assert len(lines(tmp_path, "a")) == 3
    assert len(lines(tmp_path, "sweep/b")) == 2
    assert calls.count(("a", 60)) == calls.count(("sweep/b", 40)) == 1
    assert ("sweep/b", 60) not in calls


def test_tracking_does_not_change_what_is_trained_nor_its_name(settings, tmp_path):
    plain = train(settings(name=None))
    tracked = train(settings(name=None, out=str(tmp_path / "b")), [lambda *_: {"x": 1.0}])
    assert plain.name == tracked.name
    for file in ("sae_weights.safetensors", "cfg.json", "training.json"):
        assert (plain / file).read_bytes() == (tracked / file).read_bytes()


def test_a_program_that_is_not_installed_is_refused_before_anything_is_read(
    settings, tmp_path, monkeypatch
):
    real = base.importlib.import_module

    def missing(name):
        if name in ("wandb", "torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(base.importlib, "import_module", missing)
    for name in ("wandb", "tensorboard"):
        with pytest.raises(BadInput, match=rf"pip install 'rkstore\[{name}\]'"):
            train(settings(track=(name,)))
    assert not (tmp_path / "out").exists()


def test_an_unknown_program_is_refused(settings):
    with pytest.raises(BadInput, match="choose one of wandb, tensorboard"):
        settings(track=("mlflow",))


@needs_tensorboard
def test_tensorboard_has_a_curve_of_each_number_also_after_a_stop(settings, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopping = settings(checkpoint_every=20, track=("tensorboard",))
    train_until(50, [stopping])
    train(stopping, [lambda step, _: {"mine": 0.5} if step == 60 else None])
    events = EventAccumulator(str(tmp_path / "out/sae/random/run.tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == NAMES - {"step"} | {"mine"}
    found = lines(tmp_path)
    assert [event.step for event in events.Scalars("fvu")] == [20, 40, 60]
    for event, line in zip(events.Scalars("fvu"), found, strict=True):
        assert event.value == pytest.approx(line["fvu"], rel=1e-6)


@needs_wandb
def test_weights_and_biases_works_offline_for_several_at_once(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    train_all([settings(name=name, track=("wandb",)) for name in ("a", "b")])
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    for run in runs:
        [file] = run.glob("run-*.wandb")
        content = file.read_bytes()
        assert all(name.encode() in content for name in NAMES - {"step"})
        assert str(lines(tmp_path, "a")[-1]["fvu"])[:12].encode() in content


@needs_wandb
def test_weights_and_biases_without_a_login_is_refused(settings, monkeypatch):
    import wandb

    def refused(**_):
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(BadInput, match=r"api_key not configured .*WANDB_MODE=offline"):
        train(settings(track=("wandb",)))


@pytest.mark.parametrize("select", ["topk", "batchtopk"])
def test_the_command_evaluates_in_between(rkstore, settings, tmp_path, select):
    store = settings().store
    words = ["train", store, "--hook", SITE, "--d-sae", 24, "--k", 3, "--steps", 50]
    words += ["--select", select]
    words += ["--batch-size", 16, "--name", "run", "--out", tmp_path / "out"]
    status, _, err = rkstore(*words, "--evaluate-every", 25)
    assert status == 0, err
    evaluated = {line["step"]: line for line in lines(tmp_path) if "val_fvu" in line}
    assert sorted(evaluated) == [25, 50]
    status, _, err = rkstore("evaluate", tmp_path / "out/sae/random/run_50", "--store", store)
    assert status == 0, err
    [result] = json.loads((tmp_path / "results/evaluate/results.json").read_text())["results"]
    assert evaluated[50]["val_fvu"] == pytest.approx(result["fvu"])
    assert evaluated[50]["val_L0"] == pytest.approx(result["l0"])
    status, _, err = rkstore(*words[:-4], "--evaluate-every", 0)
    assert (status, "--evaluate-every is 0" in err) == (2, True)


def test_the_command_collects_samples_in_between(rkstore, harvested, tmp_path):
    words = ["train", harvested.root, "--layer", 0, "--hook", "mlp.hook_post", "--d-sae", 96]
    words += [
        "--k",
        4,
        "--steps",
        6,
        "--batch-size",
        16,
        "--name",
        "run",
        "--out",
        tmp_path / "out",
    ]
    status, out, err = rkstore(*words, "--sample-collection-freq", 4)
    assert status == 0, err
    last = Path(out.splitlines()[-1])
    found = sorted(path.name for path in last.parent.glob("*-samples"))
    assert found == ["run_4-samples", "run_6-samples"]
    status, _, err = rkstore(
        "samples", last, "--store", harvested.root, "--out", "again", "--rows", 65_536
    )
    assert status == 0, err
    own, again = (Samples.load(path) for path in (f"{last}-samples", tmp_path / "again"))
    assert np.array_equal(own.row, again.row)
    np.testing.assert_allclose(own.value, again.value, rtol=1e-4)


def test_samples_of_a_store_without_words_are_refused_before_the_training(
    rkstore, settings, tmp_path
):
    words = ["train", settings().store, "--hook", SITE, "--out", tmp_path / "out"]
    status, _, err = rkstore(*words, "--sample-collection-freq", 5)
    assert (status, "has no tokenizer" in err) == (2, True)
    assert not (tmp_path / "out").exists()
