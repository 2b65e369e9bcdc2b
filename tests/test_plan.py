"""What a harvest will cost, before it costs anything."""

import pytest

from rkstore.codecs import CODECS
from rkstore.errors import RkstoreError
from rkstore.harvest import Harvest, prepare, run
from rkstore.info import describe_plan, duration
from rkstore.plan import CodecCost, Plan, plan


def make_plan(free=10_000, written=0, read=0.1):
    costs = (CodecCost("float32", 20.0, 0.5, read), CodecCost("int8", 5.0, 0.7, read))
    return Plan(1000, 1.0, costs, 1, free, written)


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
    assert "tokens 500 would fit, or codec int8" in str(error.value)


def test_what_is_recorded_already_need_not_fit_again():
    make_plan(free=10_000, written=10_000).check()


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
    assert "would fit" in capsys.readouterr().err
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
