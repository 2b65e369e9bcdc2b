"""What a harvest will cost, before it costs anything."""

import re
from functools import cache
from itertools import count

import pytest
import torch
from conftest import tree

from rkstore.cli.terminal import (
    describe_cost,
    describe_harvest,
    describe_outline,
    describe_plan,
    duration,
)
from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest import cost
from rkstore.harvest import run as harvesting
from rkstore.harvest.cost import CodecCost, HarvestCost, plan
from rkstore.harvest.outline import outline
from rkstore.harvest.run import Harvest, prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.settings import options_in, replace
from rkstore.store.codecs import CODECS

# Another value of every option of a plan than those of these tests.
OTHERS = (
    {"model": "demo", "revision": "v1", "tokenizer": "demo", "layers": "0", "d_in": 63}
    | {"hook": ("hook_resid_pre",), "pair": ("mlp",), "heads": "apart"}
    | {"text": ("other.txt",), "dataset": "python", "dataset_config": "a", "split": "test"}
    | {"fallback": ("b",), "text_column": "c", "chat_column": "d", "tokenized_by": "e"}
    | {"ids_column": "f", "whole_contexts": True, "id_column": "g", "shuffle_buffer": 5}
    | {"paired_with": "store", "align": "text", "partner_tokenizer": "h", "tokens": 160}
    | {"context_size": 8, "prepend_bos": False, "batch_size": 2, "dtype": "bfloat16"}
    | {"codec": "float32", "format": "hdf5", "compression": "none", "shard_rows": 32}
    | {"device": "meta", "device_map": "auto", "capture": "transformers", "seed": 1}
    | {"out": "elsewhere", "threads": 3, "shards": "0:1", "engine": "ray"}
    | {"workers": 3, "address": "head:6379"}
)


def make_plan(free=10_000, written=0, read=0.1, context_size=100, widths=(5,) * 12, **more):
    """Of 1,000 tokens, 20 bytes each, or 5 with another codec."""
    costs = (CodecCost("float32", 20.0, 0.5, read), CodecCost("int8", 5.0, 0.7, read))
    return HarvestCost(1000, context_size, widths, 1.0, costs, 1, free, written, **more)


@pytest.fixture
def ready(harvest_settings, tmp_path):
    return prepare(harvest_settings(out=str(tmp_path / "store"), codec="float32"))


def test_bytes_are_those_of_the_store_that_is_then_written(ready):
    planned = plan(ready)
    store = run(ready)
    assert planned.bytes_of(planned.chosen) == pytest.approx(store.stored_bytes(), rel=0.1)


def test_every_codec_can_be_measured_and_the_one_asked_for_comes_first(ready):
    planned = plan(ready, list(CODECS))
    assert [cost.codec for cost in planned.costs] == list(CODECS)
    sizes = {cost.codec: planned.bytes_of(cost) for cost in planned.costs}
    assert sizes["float32"] > sizes["float16"]
    assert all(name in describe_plan(planned) for name in CODECS)


def test_planning_writes_nothing(ready):
    plan(ready)
    assert not ready.out.exists()


def test_memory_counts_two_batches_a_shard_as_it_is_stored_and_the_weights(ready):
    measured = plan(ready)
    floats = 4 * 3 * 64 * 2 * ready.batch_size * ready.manifest.context_size
    stored = round(measured.chosen.bytes_per_token * ready.manifest.shard_rows)
    assert measured.memory_bytes == floats + stored + ready.model.parameter_bytes


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(RkstoreError) as error:
        make_plan().check()
    assert "needs 2e-05 GB and 1e-05 GB are free" in str(error.value)
    said = error.value.sentence
    assert "--tokens 500 or --codec int8 or 6 of the 12 sites (--layers, --hook)" in said


@pytest.mark.parametrize("context_size", [1, 100, 300, 1000])
@pytest.mark.parametrize("widths", [(5,), (5, 5), (1, 9), (5,) * 12, (1, 2, 3, 4)])
@pytest.mark.parametrize("free", [0, 1, 50, 1999, 4999, 5000, 9999, 15_000])
def test_whatever_is_said_to_fit_does_fit_and_is_something(free, widths, context_size):
    short = make_plan(free, widths=widths, context_size=context_size)
    with pytest.raises(RkstoreError) as error:
        short.check()
    said = error.value.sentence
    if tokens := re.search("--tokens ([0-9]+)", said):
        assert 0 < int(tokens[1]) * 20 <= free
        assert int(tokens[1]) % context_size == 0
    if fewer := re.search("([0-9]+) of the ([0-9]+) sites", said):
        assert 0 < int(fewer[1]) < int(fewer[2]) == len(widths)
        widest = sorted(widths)[-int(fewer[1]) :]
        assert 20_000 * sum(widest) / sum(widths) <= free
    assert ("--codec int8" in said) == (free >= 5000)
    assert ("would fit" in said) != ("--out" in said)


def test_what_does_not_fit_is_not_said_to_go_on_in_another_way_once_begun():
    """The store that is begun would refuse other tokens, another codec or fewer sites."""
    with pytest.raises(RkstoreError, match="more space") as error:
        make_plan(free=5000, written=5000).check()
    assert "would fit" not in str(error.value)


def test_what_is_recorded_already_need_not_fit_again():
    make_plan(free=10_000, written=10_000).check()


def test_nor_need_the_shards_of_a_piece(harvest_settings, tmp_path):
    ready = prepare(harvest_settings(out=str(tmp_path / "piece"), shards="1:3"))
    assert plan(ready).written_bytes == 0
    harvesting.write(ready)
    files = [path for path in tree(tmp_path / "piece") if path.count("/")]
    size = sum((tmp_path / "piece" / path).stat().st_size for path in files)
    assert plan(ready).written_bytes == pytest.approx(size, rel=0.2)


def test_a_harvest_that_cannot_fit_writes_nothing(harvest_settings, tmp_path, monkeypatch, capsys):
    import sys

    from rkstore import cli

    settings = harvest_settings()
    monkeypatch.setattr(Harvest, "free_bytes", 1000)
    words = ["--model", settings.model, "--text", settings.text[0], "--context-size", "16"]
    monkeypatch.setattr(sys, "argv", ["rkstore", "harvest", *words, "--out", str(tmp_path / "s")])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 1
    assert "--out" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("read", "readings"), [(0.1, 2), (0.7, 5), (1.0, None), (2.0, None)])
def test_a_store_pays_once_its_cost_is_below_that_of_as_many_runs_of_the_model(read, readings):
    planned = make_plan(read=read)
    found = planned.readings(planned.chosen)
    assert found == readings
    if found is not None:
        harvest = 1.0 + planned.chosen.seconds_per_token
        assert harvest + found * read <= found * 1.0 + 1e-9
        assert harvest + (found - 1) * read > (found - 1) * 1.0


def test_times_are_told_in_units_a_person_uses():
    assert [duration(s) for s in (1.5, 90, 600, 9000)] == ["1.5 s", "90 s", "10 min", "2.5 h"]


@pytest.mark.parametrize(("workers", "each"), [(1, 7), (2, 4), (3, 3), (6, 2), (7, 1), (20, 1)])
def test_workers_share_whole_shards_and_the_plan_says_so(workers, each):
    """1.5 s a token, and 7 shards of 1,000 tokens in all."""
    planned = make_plan(shards=7, at_once=workers, engine="workers of Ray")
    assert planned.seconds_of(planned.chosen) == pytest.approx(1500 * each / 7)
    assert f"engine  workers of Ray, {each} of 7 shards each at most" in describe_plan(planned)
    assert "by workers of Ray, 1 B of memory each" in describe_cost(planned)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second whenever it is looked at, and a disk that stays as it is.

    What a plan measures is then the same each time.
    """
    ticks = count()
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(Harvest, "free_bytes", 10**12)
    monkeypatch.setattr(harvesting, "load_model", cache(harvesting.load_model))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def planned(settings):
    """All that a plan knows and says."""
    if settings.device == "meta":
        return describe_outline(outline(settings))
    ready = prepare(settings)
    return describe_harvest(ready), describe_plan(plan(ready)), ready.whole


def is_ignored(settings, name):
    """Whether another value of an option changes nothing in a plan, and is not refused."""
    usual = planned(settings)
    try:
        return planned(replace(settings, **{name: OTHERS[name]})) == usual
    except BadInput:
        return False


def test_every_option_of_a_plan_has_another_value_here():
    assert OTHERS.keys() == options_in(HarvestSettings).keys()


@pytest.mark.usefixtures("clock")
def test_by_one_clock_the_same_settings_have_the_same_plan(harvest_settings, tmp_path):
    settings = harvest_settings(out=str(tmp_path / "store"))
    assert planned(settings) == planned(settings)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", OTHERS)
def test_no_option_of_a_plan_is_ignored(harvest_settings, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.txt").write_text("Another text, of a few more words. " * 200)
    if name in ("engine", "workers", "address"):
        pytest.importorskip("ray", reason="ray is not installed")
    engine = "ray" if name in ("workers", "address") else "local"
    assert not is_ignored(harvest_settings(out="store", engine=engine), name)


@pytest.mark.parametrize("name", sorted(OTHERS.keys() - {"device"}))
def test_no_option_of_a_plan_by_the_configuration_alone_is_ignored(model_dir, name):
    settings = HarvestSettings(model=str(model_dir), device="meta", tokens=320, context_size=16)
    assert not is_ignored(settings, name)


def test_a_map_of_devices_is_refused_with_workers_that_have_one_each(harvest_settings):
    with pytest.raises(BadInput, match="device_map would be ignored with engine ray"):
        prepare(harvest_settings(engine="ray", device_map="auto"))
