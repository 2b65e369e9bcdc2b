"""Engines: whatever computes the shards, the files are those of one process."""

import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tree

from rkstore import workers
from rkstore.errors import BadInput
from rkstore.harvest.engines import ray as engine
from rkstore.harvest.run import prepare, run
from rkstore.store.files import ASIDE
from rkstore.store.store import Store
from rkstore.store.verify import verify


class Interrupted(Exception):
    """Stands for whatever ends a harvest between two shards."""


@pytest.fixture(scope="module")
def cluster(s3_server):  # noqa: ARG001 - workers need to know where S3 is
    """A cluster of Ray on this machine, which the tests share: to start it takes seconds."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",
            num_cpus=3 * torch.get_num_threads(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=workers.CARRIED_BYTES,
        )
        yield ray
        ray.shutdown()


@pytest.fixture
def held(monkeypatch, tmp_path):
    """Call it for marks of shards: each worker stops within its first until so many write at once.

    With ``dies``, one of them then ends as if it was killed.
    """

    def make(at_once, dies=False):
        marks = tmp_path / "marks"
        marks.mkdir()

        # Sent to the workers as it is, with all that it needs.
        class Held(engine.Worker):
            def make(self, shard, batches):
                return super().make(shard, self.slowly(shard, batches))

            def slowly(self, shard, batches):
                yield batches[0]
                (marks / f"{shard}").touch()
                until = time.monotonic() + 300
                while len(list(marks.iterdir())) < at_once:
                    assert time.monotonic() < until, "the others never came"
                    time.sleep(0.01)
                if dies:
                    try:
                        (marks / "died").touch(exist_ok=False)
                        os._exit(1)
                    except FileExistsError:
                        pass
                yield from batches[1:]

        monkeypatch.setattr(engine, "Worker", Held)
        return marks

    return make


@pytest.mark.usefixtures("cluster")
def test_one_worker_interrupted_and_continued_without_it(harvested, harvest_settings, tmp_path):
    ready = prepare(harvest_settings(engine="ray", workers=1, out=str(tmp_path / "store")))

    def interrupt(shard):
        assert Store(ready.out).rows == ready.manifest.rows_recorded(shard + 1)
        if shard == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(ready, interrupt)
    assert list(verify(Store(ready.out))) == []
    assert not (Path(ready.out) / ASIDE).exists()
    done: list[int] = []
    run(prepare(harvest_settings(out=str(tmp_path / "store"))), done.append)
    assert done == [3, 4]
    assert tree(tmp_path / "store") == tree(harvested.root)


@pytest.mark.usefixtures("cluster")
def test_two_workers_write_at_once_and_one_is_killed_half_way(
    harvested, harvest_settings, tmp_path, held
):
    marks = held(2, dies=True)
    ready = prepare(harvest_settings(engine="ray", workers=2, out=str(tmp_path / "store")))
    done: list[int] = []
    run(ready, done.append)
    assert (marks / "died").exists()
    assert {"0", "1"} <= {mark.name for mark in marks.iterdir()}
    assert done == [0, 1, 2, 3, 4]
    assert tree(tmp_path / "store") == tree(harvested.root)
    assert list(verify(Store(tmp_path / "store"))) == []


@pytest.mark.usefixtures("cluster")
def test_three_workers_into_an_object_store(
    harvested, harvest_settings, bucket, held, fetched_from
):
    marks = held(3)
    store = run(prepare(harvest_settings(engine="ray", workers=3, out=bucket)))
    assert {"0", "1", "2"} <= {mark.name for mark in marks.iterdir()}
    assert store.complete
    assert fetched_from(bucket) == tree(harvested.root)


def test_this_process_into_an_object_store(harvested, harvest_settings, bucket, fetched_from):
    settings = harvest_settings(out=bucket)

    def interrupt(shard):
        if shard == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(prepare(settings), interrupt)
    done: list[int] = []
    run(prepare(settings), done.append)
    assert done == [2, 3, 4]
    assert fetched_from(bucket) == tree(harvested.root)


@pytest.mark.usefixtures("cluster")
def test_once_there_are_workers_this_process_has_no_weights(
    harvest_settings, tmp_path, monkeypatch
):
    """What the model is needed for here is known: its hooks and its digest."""
    ready = prepare(harvest_settings(engine="ray", out=str(tmp_path / "store")))

    def started(*_):
        assert all(p.is_meta for p in ready.model.capture.plain.parameters())
        raise Interrupted

    monkeypatch.setattr(engine, "_worker", started)
    with pytest.raises(Interrupted):
        run(ready)


@pytest.mark.usefixtures("cluster")
def test_a_worker_with_other_libraries_is_refused_in_one_sentence(harvest_settings, tmp_path):
    ready = prepare(harvest_settings(engine="ray", workers=1, out=str(tmp_path / "store")))
    source = ready.manifest.source | {"libraries": {"torch": "1.0"}}
    whole = replace(ready.whole, manifest=replace(ready.manifest, source=source))
    with pytest.raises(BadInput, match="a worker has another libraries than this") as caught:
        run(replace(ready, whole=whole))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_harvest_that_is_finished_starts_no_worker(harvested, harvest_settings, monkeypatch):
    monkeypatch.setattr(engine, "cluster", None)
    settings = harvest_settings(engine="ray", out=str(harvested.root))
    assert run(prepare(settings)).complete


def test_workers_have_devices_of_their_own(harvest_settings):
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(BadInput, match="give device without a number"):
        prepare(harvest_settings(engine="ray", device="cpu:0"))


def test_without_ray_the_sentence_names_what_to_install(harvest_settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"needs Ray: pip install 'rkstore\[ray\]'"):
        prepare(harvest_settings(engine="ray"))
