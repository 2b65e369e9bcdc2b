"""Training on several processes, and in micro-batches: the same as in one."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_manifest, make_values, write_store
from launching import launched
from safetensors.torch import load_file

from rkstore.cli import cli
from rkstore.dictionaries.world import ALONE, World
from rkstore.errors import BadInput
from rkstore.store.batches.assemble import read_batches
from rkstore.store.batches.plan import plan_batches, split_chunks
from rkstore.store.store import Store
from rkstore.training.checkpoint import STATE
from rkstore.training.parallel import Slices, check_accelerate, joined, parts_of
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.spread import check_spread
from rkstore.training.train import train, train_all

SITE = "blocks.0.mlp.hook_post"

# 358 rows to train on: the last batch of an epoch has one row, fewer than there are processes.
ROWS, BATCH = 390, 51

# What sums in another order change, after 38 steps of Adam.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}

AUXK = {"auxk": 6, "dead_after": 60, "init": "random"}
HELPED = {
    "relu": {"dictionary": "relu", "l1": 0.3, **AUXK},
    "topk": {"dictionary": "topk", "clip": 0.5, "ema": 0.9, **AUXK},
    "batchtopk": {"dictionary": "batchtopk", **AUXK},
    "batchtopk by autograd": {"dictionary": "batchtopk", "entropy": 0.01, **AUXK},
    "jumprelu": {"dictionary": "jumprelu", "sparsity": "quadratic", "target_l0": 4.0, **AUXK},
    "jumprelu by autograd": {"dictionary": "jumprelu", "ghost_gradients": True, **AUXK},
    "annealed": {"dictionary": "relu", "p": 0.5, "l1": 0.3, "init": "random"},
    "nested": {"dictionary": "topk", "prefixes": (0.25, 1.0), "auxk_levels": True, **AUXK},
    "resampled": {"dictionary": "topk", "resample_every": 15, "dead_after": 60, "init": "random"},
    "in micro-batches": {"dictionary": "topk", "accumulate": 3},
    "gated": {"dictionary": "gated", "l1": 0.3},
    "decoupled": {
        "wiring": "crosscoder",
        "layers": "all",
        "hook": "mlp.hook_post",
        "dictionary": "batchtopk",
        "code_norm": "decoupled",
        "unit_decoder": False,
    },
}
ROUNDED = {"dictionary": "batchtopk", "dtype": "bfloat16"}
SPREAD = {
    "spread relu": {"dictionary": "relu", "l1": 0.3, "ema": 0.9},
    "spread topk": {"dictionary": "topk", "clip": 0.5, "dead_after": 60, "init": "random"},
    "spread batchtopk": {"dictionary": "batchtopk", "d_sae": 41},
    "spread auxk": {"dictionary": "topk", "d_sae": 41, **AUXK},
    "spread auxk of all dead": {"dictionary": "batchtopk", **AUXK, "auxk": 40},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with a small store."""
    root = tmp_path_factory.mktemp("parallel")
    manifest = make_manifest(rows=ROWS)
    write_store(root / "store", manifest, make_values(manifest))
    return root


def of(root, name, out, **more):
    usual = {"d_sae": 40, "k": 4, "steps": 38, "batch_size": BATCH, "checkpoint_every": 20}
    usual |= {"store": str(root / "store"), "hook": SITE, "name": name, "out": str(root / out)}
    return usual | HELPED.get(name, {}) | more


@pytest.fixture(scope="module")
def by_two(root):
    """All trainings of ``HELPED`` by two processes, and one that these break off in an epoch."""
    runs = [of(root, name, "two") for name in HELPED]
    runs.append(of(root, "batchtopk", "stopped", stop=20))
    runs.append(of(root, "rounded", "two", **ROUNDED))
    runs += [of(root, name, "two", **more, shard_latents=True) for name, more in SPREAD.items()]
    auxk = SPREAD["spread auxk"]
    runs.append(of(root, "spread auxk", "both", **auxk, stop=20, shard_latents=False))
    runs.append(of(root, "spread auxk", "both", **auxk, shard_latents=True))
    (root / "runs.json").write_text(json.dumps(runs, allow_nan=False))
    done = launched(sys.modules["launching"].__file__, root / "runs.json")
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def history(path):
    return json.loads((path / "training.json").read_text())["history"]


def assert_close(path, expected):
    """Compare the numbers that were logged, and all that the next step would depend on."""
    for found, entry in zip(history(path), history(expected), strict=True):
        assert found.keys() == entry.keys()
        assert found.pop("losses") == pytest.approx(entry.pop("losses"), rel=1e-4)
        assert found == pytest.approx(entry, rel=1e-4)
    tensors, others = load_file(path / STATE), load_file(expected / STATE)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", HELPED)
def test_two_processes_train_as_one_does(by_two, name):
    alone = train(TrainSettings(**of(by_two, name, "one")))
    assert_close(by_two / "two" / alone.relative_to(by_two / "one"), alone)


def test_products_in_bfloat16_differ_by_their_rounding(by_two):
    alone = train(TrainSettings(**of(by_two, "rounded", "one", **ROUNDED)))
    found = history(by_two / "two" / alone.relative_to(by_two / "one"))
    for entry, expected in zip(found, history(alone), strict=True):
        assert entry["losses"] == pytest.approx(expected["losses"], rel=0.02)


@pytest.mark.parametrize("name", SPREAD)
def test_two_processes_with_half_of_the_latents_each_train_as_one_does(by_two, name):
    alone = train(TrainSettings(**of(by_two, name, "one", **SPREAD[name])))
    assert_close(by_two / "two" / alone.relative_to(by_two / "one"), alone)


def test_dead_latents_were_helped_in_these_runs(by_two):
    for name in ("topk", "batchtopk", "jumprelu", "nested", "spread auxk"):
        path = by_two / "two" / "sae" / "random" / f"{name}_38"
        assert any("auxk" in entry["losses"] for entry in history(path)), name


def test_one_process_goes_on_within_the_epoch_where_two_stopped(by_two):
    stopped = by_two / "stopped" / "sae" / "random"
    assert [path.name for path in stopped.glob("batchtopk_*")] == ["batchtopk_20"]
    through = train(TrainSettings(**of(by_two, "batchtopk", "one")))
    assert_close(train(TrainSettings(**of(by_two, "batchtopk", "stopped"))), through)


def test_accelerate_launches_the_command_and_one_process_speaks(root):
    words = ["train", root / "store", "--hook", SITE, "--d-sae", "40", "--k", "4", "--steps", "20"]
    words += ["--batch-size", BATCH, "--name", "told", "--out", root / "told"]
    done = launched("-m", "rkstore", *words, launcher="accelerate.commands.launch")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(root / "told" / "sae" / "random" / "told_20")]
    alone = train(TrainSettings(**of(root, "told", "alone", steps=20)))
    assert_close(root / "told" / "sae" / "random" / "told_20", alone)


def test_what_fails_in_one_process_is_said_once_and_ends_all(root):
    words = ["train", root / "store", "--hook", SITE, "--batch-size", "1", "--out", root / "no"]
    done = launched("-m", "rkstore", *words)
    assert done.returncode == 1
    sentence = "rkstore: --batch-size is 1, too few rows for 2 processes: give at least 2\n"
    assert done.stderr.count("rkstore: ") == done.stderr.count(sentence) == 1
    assert not (root / "no").exists()


def test_a_run_of_rows_goes_on_with_latents_spread(by_two):
    """Checkpoints do not know how they were made."""
    stopped = {**SPREAD["spread auxk"], "checkpoint_every": 19}
    through = train(TrainSettings(**of(by_two, "spread auxk", "one", **stopped)))
    assert_close(by_two / "both" / through.relative_to(by_two / "one"), through)


# Who reads which rows.


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_every_row_is_read_once_an_epoch(root, size, accumulate):
    store = Store(root / "store")
    train_chunks, _ = split_chunks(store)
    plan = plan_batches(store, train_chunks, BATCH, seed=3)
    count = plan.batches_per_epoch
    of_each = [
        list(
            read_batches(store, [SITE], plan, 0, count, part=Slices(World(rank, size), accumulate))
        )
        for rank in range(size)
    ]
    whole = list(read_batches(store, [SITE], plan, 0, count))
    for batch, *parts in zip(whole, *of_each, strict=True):
        assert {part.whole for part in parts} == {len(batch.rows)}
        found = np.concatenate([part.rows for part in parts])
        # The last batch, of one row, is everyone's.
        assert sorted(found) == sorted(np.tile(batch.rows, size if len(batch.rows) == 1 else 1))
        values = dict(zip(batch.rows, batch.x[SITE], strict=True))
        for part in parts:
            assert all(
                np.array_equal(values[row], x)
                for row, x in zip(part.rows, part.x[SITE], strict=True)
            )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 34, 35, 36, 101])
def test_parts_are_even_and_weigh_as_much_as_their_rows(rows, size, accumulate):
    parts = [part for rank in range(size) for part in parts_of(rows, rank, size, accumulate)]
    assert sum(part.weight for part in parts) == pytest.approx(1)
    if rows >= size * accumulate:
        taken = sorted(n for part in parts for n in range(part.first, part.stop))
        assert taken == list(range(rows))
        lengths = [part.stop - part.first for part in parts]
        assert min(lengths) > 0
        assert max(lengths) - min(lengths) <= 2
        assert sum(part.share for part in parts) == pytest.approx(accumulate)


def test_micro_batches_do_not_depend_on_the_number_of_processes():
    alone = parts_of(101, 0, 1, 4)
    for size in (2, 3):
        parts = [parts_of(101, rank, size, 4) for rank in range(size)]
        for one, *cut in zip(alone, *parts, strict=True):
            assert (cut[0].first, cut[-1].stop) == (one.first, one.stop)


def test_micro_batches_train_as_the_whole_batch_does(root):
    whole, cut = (
        of(root, name, "cut", clip=0.5, ema=0.9) for name in ("whole", "in micro-batches")
    )
    assert_close(train(TrainSettings(**cut)), train(TrainSettings(**whole)))


# What is refused.


def test_a_batch_too_small_to_be_cut_is_refused(root):
    chosen = TrainSettings(**of(root, "small", "no", accumulate=60))
    with pytest.raises(BadInput, match="51, too few rows for accumulate 60: give at least 60"):
        train(chosen)


def test_rows_that_belong_together_are_not_cut_apart(root):
    chosen = TrainSettings(**of(root, "pairs", "no", order="pairs", batch_size=50, accumulate=2))
    with pytest.raises(BadInput, match="order pairs keeps rows together"):
        train(chosen)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dictionary": "jumprelu"}, "a jumprelu code"),
        ({"dictionary": "relu", "p": 0.5}, "this penalty"),
        ({"prefixes": (0.5, 1.0)}, "prefixes"),
        ({"resample_every": 10}, "resample"),
        ({"entropy": 0.1}, "entropy"),
        ({"control": "frozen-decoder", "init": "random"}, "control"),
        ({"accumulate": 2}, "accumulate"),
        ({"wiring": "crosscoder", "layers": "all", "hook": "mlp.hook_post"}, None),
    ],
    ids=str,
)
def test_latents_are_spread_only_where_the_result_is_that_of_one_process(root, given, said):
    run = prepare(TrainSettings(**of(root, "k", "no", shard_latents=True, **given)))
    spread = replace(run, world=World(0, 2))
    if said is None:
        return check_spread(spread, callbacks=0)
    with pytest.raises(BadInput, match=f"shard_latents does not know .*{said}: leave out"):
        check_spread(spread, callbacks=0)
    return None


def test_nothing_looks_at_a_dictionary_that_no_process_has(root):
    run = prepare(TrainSettings(**of(root, "k", "no", shard_latents=True)))
    with pytest.raises(BadInput, match="what evaluates or samples it while it is trained"):
        check_spread(replace(run, world=World(0, 2)), callbacks=1)


def test_dictionaries_of_one_pass_have_the_same_micro_batches(root):
    runs = [TrainSettings(**of(root, str(n), "no", accumulate=n)) for n in (1, 2)]
    with pytest.raises(BadInput, match="need the same accumulate, not 1 and 2"):
        train_all(runs)


def test_without_a_launcher_accelerate_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert joined(["cpu"]) == (ALONE, "cpu")


def test_its_lack_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match=r"2 processes .* pip install 'rkstore\[accelerate\]'"):
        joined(["cpu"])


@pytest.mark.parametrize("devices", [["cuda:1"], ["cpu", "cuda"]])
def test_processes_do_not_share_a_device_that_was_named(monkeypatch, devices):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="a device of its own, give all the same"):
        joined(devices)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MIXED_PRECISION", "bf16", "add dtype bfloat16"),
        ("MIXED_PRECISION", "fp16", "choose bf16, or none"),
        ("GRADIENT_ACCUMULATION_STEPS", "4", "accumulate is 1: give the same number"),
        ("USE_FSDP", "true", "for FSDP, which rkstore does not use"),
    ],
)
def test_what_accelerate_was_told_is_never_ignored(monkeypatch, name, value, said):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(BadInput, match=said):
        joined(["cpu"] if check_accelerate("float32", 1) is None else [])


def test_other_commands_are_not_run_by_several_processes(root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = CliRunner().invoke(cli, ["info", str(root / "store")])
    assert isinstance(found.exception, BadInput)
    assert "rkstore info was started several times" in found.exception.sentence


def test_what_accelerate_was_told_may_be_what_rkstore_was(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    check_accelerate("bfloat16", 4)
