"""Many trainings: several seeds, engines that carry them out, and a table of what they came to."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import make_manifest, make_values, tree, write_store

from rkstore.cli import cli
from rkstore.cli.trained import describe_finals
from rkstore.errors import BadInput
from rkstore.training import train as module
from rkstore.training.ignored import unused
from rkstore.training.seeds import Final, finals, one_a_seed
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train, train_all

SITES = {"blocks.0.mlp.hook_post": 12, "blocks.1.mlp.hook_post": 12}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with a small store of two layers."""
    root = tmp_path_factory.mktemp("many")
    manifest = make_manifest(rows=400, sites=SITES)
    write_store(root / "store", manifest, make_values(manifest))
    return root


def of(root, out, **given):
    usual = {"d_sae": 24, "k": 4, "steps": 30, "batch_size": 32, "checkpoint_every": 10}
    usual |= {"store": str(root / "store"), "out": str(root / out), "name": "k"}
    return TrainSettings(**(usual | given))


def passes(monkeypatch, settings):
    """The seeds and sites of each pass over the store that training these would make."""
    made = []
    monkeypatch.setattr(
        module,
        "_train_together",
        lambda one_pass, _: made.append([(one.seed, *one.hook) for one in one_pass]) or [],
    )
    train_all(settings)
    return made


# Seeds.


@pytest.mark.parametrize(
    ("asked", "seeds"), [("0-3", [0, 1, 2, 3]), ("0,3,5", [0, 3, 5]), ("7, 1-2,1", [7, 1, 2])]
)
def test_a_list_of_seeds_is_a_training_for_each(root, asked, seeds):
    found = one_a_seed(of(root, "no", seeds=asked))
    assert [one.seed for one in found] == seeds
    assert [one.name for one in found] == [f"k/seed-{seed}" for seed in seeds]
    assert all(one.seeds is None for one in found)


@pytest.mark.parametrize("asked", ["", "3-1", "a", "1-", "-1", "1;2"])
def test_what_is_no_list_of_seeds_is_refused(root, asked):
    with pytest.raises(BadInput, match="give a list such as 0-7 or 0,3,5"):
        one_a_seed(of(root, "no", seeds=asked))


def test_a_seed_beside_the_list_is_refused(root):
    with pytest.raises(BadInput, match="leave out seed"):
        one_a_seed(of(root, "no", seeds="0-3", seed=2))


def test_one_training_takes_no_list(root):
    with pytest.raises(BadInput, match=r"use train_all\(\), or seed"):
        train(of(root, "no", hook="blocks.0.mlp.hook_post", seeds="0-3"))


def test_seeds_share_a_pass_if_they_see_the_same_rows(root, monkeypatch):
    lower, upper = SITES
    both = of(root, "no", layers="all", seeds="0-1", data_seed=5)
    expected = [[(0, lower), (1, lower)], [(0, upper), (1, upper)]]
    assert passes(monkeypatch, [both]) == expected


def test_seeds_with_rows_of_their_own_have_passes_of_their_own(root, monkeypatch):
    lower, upper = SITES
    both = of(root, "no", layers="all", seeds="0-1")
    expected = [[(0, lower)], [(1, lower)], [(0, upper)], [(1, upper)]]
    assert passes(monkeypatch, [both]) == expected


def test_a_seed_of_a_list_trains_as_it_would_alone(root):
    lower = next(iter(SITES))
    paths = train_all([of(root, "list", hook=lower, seeds="2,4")])
    alone = train(of(root, "alone", hook=lower, seed=4))
    assert [path.name for path in paths] == ["seed-2_30", "seed-4_30"]
    assert tree(paths[1]) == tree(alone)


def test_the_command_prints_the_checkpoints_and_then_the_table(root):
    words = ["train", root / "store", "--layer", "0", "--seeds", "0-1", "--d-sae", "24", "--k", "4"]
    words += ["--steps", "20", "--name", "told", "--out", root / "told"]
    lines = CliRunner().invoke(cli, list(map(str, words))).output.splitlines()
    parent = root / "told" / "sae" / "random" / "told"
    assert lines[:3] == [str(parent / "seed-0_20"), str(parent / "seed-1_20"), ""]
    assert [line.split()[2] for line in lines[3:]] == ["seed", "0", "1", "mean"]


def test_options_of_workers_have_no_effect_without_them(root):
    found = unused(of(root, "no", workers=3), ["workers"])
    assert found == {"workers": "--workers has no effect with --engine local"}


# The table.


def test_a_table_has_a_line_for_each_training_and_the_mean_over_seeds():
    options = {"dictionary": "topk", "k": 4}
    table = describe_finals(
        [
            Final("a", options, seed, fvu, 4.0, dead)
            for seed, fvu, dead in [(1, 0.3, 2), (0, 0.1, 4)]
        ]
        + [Final("b", options, 0, None, 4.0, 0)]
    )
    lines = [" ".join(line.split()) for line in table.split("\n")]
    assert lines == [
        "site kind seed fvu l0 dead",
        "a topk 0 0.1000 4.0 4",
        "a topk 1 0.3000 4.0 2",
        "a topk mean ± sd 0.2000 ± 0.1414 4.0 ± 0.0 3.0 ± 1.4",
        "b topk 0 – 4.0 0",
    ]


def test_trainings_that_differ_in_an_option_are_not_averaged():
    table = describe_finals(
        [Final("a", {"dictionary": "topk", "k": k}, 0, 0.1, float(k), 0) for k in (4, 8)]
    )
    assert "mean" not in table
    assert "topk k=4" in table
    assert "topk k=8" in table


def test_the_numbers_are_those_on_record(root):
    path = train(of(root, "record", hook=next(iter(SITES)), seed=3))
    [final] = finals([path])
    assert (final.hook_name, final.seed, final.l0) == (next(iter(SITES)), 3, 4.0)
    assert final.options["dictionary"] == "topk"
    assert 0 < final.fvu < 1


# Workers of Ray.


@dataclass
class Killing:
    """Kills the process that has come to a step, once."""

    mark: Path
    step: int

    def __call__(self, step, run):
        if step == self.step and run.settings.seed == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_workers_of_ray_train_the_same_even_if_one_dies(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # a worker reads this file
    given = {"layers": "all", "seeds": "0-1", "steps": 30}
    paths = train_all([of(root, "here", **given)])
    killing = Killing(root / "killed", step=15)
    asked = of(root, "there", engine="ray", workers=2, **given)
    there = train_all([asked], [killing])
    assert killing.mark.exists()
    assert [path.relative_to(root / "there") for path in there] == [
        path.relative_to(root / "here") for path in paths
    ]
    for path, expected in zip(there, paths, strict=True):
        assert tree(path) == tree(expected)


def test_what_a_worker_refuses_is_said_as_it_is(root):
    with pytest.raises(BadInput, match="k is 99: it must be from 1 to the 24 latents"):
        train_all([of(root, "bad", layers="all", k=99, engine="ray", workers=2)])


def test_without_ray_one_sentence_names_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'rkstore\[ray\]'"):
        train_all([of(root, "no", layers="all", engine="ray")])


def test_processes_of_a_launcher_start_no_workers(root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="run it in one process, without a launcher"):
        train_all([of(root, "no", layers="all", engine="ray")])


def test_workers_have_devices_of_their_own(root):
    with pytest.raises(BadInput, match="give device without a number"):
        train_all([of(root, "no", layers="all", engine="ray", device="cuda:1")])


def test_one_command_has_one_engine(root):
    with pytest.raises(BadInput, match="need the same engine"):
        train_all([of(root, "no", engine="ray"), of(root, "no", name="other")])
