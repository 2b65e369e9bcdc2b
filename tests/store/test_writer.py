"""Writing a store: what survives a kill, a full disk, a second writer and a wrong array."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from conftest import SITES, make_manifest, make_values, shard_of, tree, write_store

from rkstore.errors import BadInput, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.settings import PullSettings
from rkstore.store.codecs import CODECS
from rkstore.store.files import ASIDE
from rkstore.store.formats import FORMATS
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing import lock
from rkstore.store.writing.writer import StoreWriter

HOOK = "blocks.1.mlp.hook_post"


def whole_store(root: Path, **options) -> dict[str, bytes]:
    """The files of a store that was written without interruption."""
    manifest = make_manifest(**options)
    write_store(root, manifest, make_values(manifest))
    return tree(root)


def assert_good(root: Path, values: dict[str, np.ndarray], rows: int) -> None:
    """A float32 store of that many rows, all of them right and every file as recorded."""
    store = Store(root)
    assert store.rows == rows
    assert list(verify(store)) == []
    for name in SITES:
        np.testing.assert_array_equal(store.read(name), values[name][:rows])
        if rows:
            x = values[name][:rows].astype(np.float64)
            assert store.statistics(name).count == rows
            np.testing.assert_allclose(store.statistics(name).mean, x.mean(0), 1e-12)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_store_written_in_several_sittings_has_the_bytes_of_one(tmp_path, format, codec):
    expected = whole_store(tmp_path / "once", format=format, codec=codec)
    manifest = make_manifest(format=format, codec=codec)
    values = make_values(manifest)
    for shards in (0, 1, 2, 0, 1):
        write_store(tmp_path / "often", manifest, values, shards)
    assert tree(tmp_path / "often") == expected


def test_a_writer_goes_on_behind_the_last_recorded_shard(tmp_path):
    manifest = make_manifest()
    values = make_values(manifest)
    write_store(tmp_path / "store", manifest, values, 2)
    with StoreWriter(tmp_path / "store", manifest) as writer:
        assert writer.next_shard == 2


def test_opening_a_complete_store_to_write_changes_nothing(tmp_path):
    before = whole_store(tmp_path / "store")
    times = {path: (tmp_path / "store" / path).stat().st_mtime_ns for path in before}
    with StoreWriter(tmp_path / "store", make_manifest()):
        pass
    assert tree(tmp_path / "store") == before
    assert {path: (tmp_path / "store" / path).stat().st_mtime_ns for path in before} == times


def test_a_complete_store_takes_no_further_shard(tmp_path):
    before = whole_store(tmp_path / "store")
    manifest = make_manifest()
    with StoreWriter(tmp_path / "store", manifest) as writer, pytest.raises(BadInput):
        writer.write_shard(*shard_of(manifest, make_values(manifest), 3))
    assert tree(tmp_path / "store") == before


def test_a_new_directory_is_made_with_its_parents(tmp_path):
    manifest = make_manifest()
    with StoreWriter(tmp_path / "a" / "b" / "store", manifest):
        pass
    assert Store(tmp_path / "a" / "b" / "store").manifest == manifest


def test_each_file_is_synced_before_it_is_in_place_and_recorded_behind_that(tmp_path, monkeypatch):
    """What is written aside, synced, renamed and only then recorded survives a power cut."""
    events: list[tuple[str, str]] = []
    real_rename = os.rename

    def at(descriptor: int) -> Path:
        return Path(f"/proc/self/fd/{descriptor}").readlink()

    def fsync(descriptor: int) -> None:
        events.append(("sync", at(descriptor).as_posix()))

    def rename(source, target, *, src_dir_fd, dst_dir_fd) -> None:
        events.append(("rename", (at(dst_dir_fd) / target).as_posix()))
        assert ("sync", (at(src_dir_fd) / source).as_posix()) in events
        real_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    root = tmp_path / "store"
    manifest = make_manifest(rows=64, codec="int8")
    write_store(root, manifest, make_values(manifest))
    recorded = events.index(("sync", f"{root}/shards.jsonl"))
    (record,) = Store(root).records
    for path in record.files:
        placed = events.index(("rename", f"{root}/{path}"))
        assert ("sync", f"{(root / path).parent}") in events[placed:recorded]


# Killed at any moment. A child process dies by SIGKILL just before the n-th time that it
# opens a file to write, renames, removes, makes a directory or truncates, for every third n
# there is.
KILLED_EVERYWHERE = """
import os, signal, sys, traceback
from pathlib import Path

sys.path.insert(0, {tests!r})
from conftest import make_manifest, make_values, stored, tree, write_store
from rkstore.store.verify import verify
from rkstore.store.store import Store

os.fsync = lambda _: None
root, manifest = Path({root!r}), make_manifest(**{options!r})
values = make_values(manifest)
MOMENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def in_child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def die_before(moment):
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes and str(arguments[0]).startswith(str(root))) or event in MOMENTS:
            seen += 1
            if seen > moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def write(name, moment=None):
    if moment is not None:
        die_before(moment)
    write_store(root / name, manifest, values)


def check_and_go_on(name):
    if (root / name / "manifest.json").exists():
        store = Store(root / name)
        for hook_name in manifest.hook_names if store.rows else ():
            expected = stored(manifest, values[hook_name])[: store.rows]
            assert (store.read(hook_name) == expected).all()
            assert store.statistics(hook_name).count == store.rows
    write(name)
    assert tree(root / name) == tree(root / "whole")
    assert not list(verify(Store(root / name)))


assert in_child(lambda: write("whole")) == 0
moment = 0
while True:
    name = f"killed-{{moment}}"
    status = in_child(lambda: write(name, moment))
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert in_child(lambda: check_and_go_on(name)) == 0, f"killed before its moment {{moment}}"
    moment += 3  # each file takes five: one by one, they are all met as well
print(moment)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_a_writer_killed_at_any_moment_leaves_whole_shards_and_ends_with_the_same_bytes(
    tmp_path, format
):
    # More sites would only repeat the same moments, and their threads shuffle the order.
    options = {
        "format": format,
        "codec": "int8",
        "rows": 24,
        "shard_rows": 16,
        "chunk_rows": 8,
        "sites": {HOOK: 3},
    }
    code = KILLED_EVERYWHERE.format(
        tests=str(Path(__file__).parents[1]), root=str(tmp_path), options=options
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 30


@pytest.mark.parametrize("format", FORMATS)
def test_a_journal_line_cut_anywhere_is_written_again(tmp_path, format):
    manifest = make_manifest(format=format, rows=128)
    values = make_values(manifest)
    expected = whole_store(tmp_path / "whole", format=format, rows=128)
    write_store(tmp_path / "one", manifest, values, 1)
    one = tree(tmp_path / "one")
    line = expected["shards.jsonl"].removeprefix(one["shards.jsonl"])
    for length in (0, 1, len(line) // 2, len(line) - 1):
        # All files of both shards are in place, and the second line was being written.
        root = tmp_path / f"cut-{length}"
        for path, content in (expected | one).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        (root / "shards.jsonl").write_bytes(one["shards.jsonl"] + line[:length])
        write_store(root, manifest, values)
        assert tree(root) == expected


def test_files_of_a_shard_that_was_never_recorded_are_written_anew(tmp_path):
    manifest = make_manifest()
    values = make_values(manifest)
    expected = whole_store(tmp_path / "whole")
    root = tmp_path / "store"
    write_store(root, manifest, values, 1)
    for path in expected:
        if path.startswith(f"{HOOK}/c/1/"):
            (root / path).parent.mkdir(parents=True)
            (root / path).write_bytes(b"half a shard")
    write_store(root, manifest, values)
    assert tree(root) == expected


def test_a_second_writer_is_refused_with_the_number_of_the_process(tmp_path):
    manifest = make_manifest()
    code = f"""
import sys
import time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from conftest import make_manifest
from rkstore.store.writing.writer import StoreWriter
with StoreWriter({str(tmp_path / "store")!r}, make_manifest()):
    print("ready", flush=True)
    sys.stdin.read()
"""
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(BadInput, match=f"being written by process {first.pid}:"):
            StoreWriter(tmp_path / "store", manifest)
        assert (tmp_path / "store" / ".lock").exists()
    finally:
        first.communicate("")
    with StoreWriter(tmp_path / "store", manifest) as writer:
        assert writer.next_shard == 0


def test_a_refused_writer_does_not_disturb_the_one_that_writes(tmp_path):
    manifest = make_manifest()
    values = make_values(manifest)
    root = tmp_path / "store"
    with StoreWriter(root, manifest) as writer:
        for shard in range(manifest.shards):
            with pytest.raises(BadInput, match=str(os.getpid())):
                StoreWriter(root, manifest)
            writer.write_shard(*shard_of(manifest, values, shard))
    assert_good(root, values, 216)


def test_a_lock_that_a_dead_writer_left_is_no_obstacle(tmp_path):
    manifest = make_manifest()
    values = make_values(manifest)
    write_store(tmp_path / "store", manifest, values, 1)
    (tmp_path / "store" / ".lock").write_text(f"{os.getpid()}\n")
    (tmp_path / "store" / ".writing").mkdir()
    (tmp_path / "store" / ".writing" / "half").write_bytes(b"half a file")
    write_store(tmp_path / "store", manifest, values)
    assert tree(tmp_path / "store") == whole_store(tmp_path / "whole")


def test_one_who_asks_while_the_lock_is_released_never_writes_beside_another(tmp_path, monkeypatch):
    """The lock's file is opened, and its holder releases it before it can be locked."""
    manifest = make_manifest()
    holder = StoreWriter(tmp_path / "store", manifest)
    real = fcntl.flock

    def released_first(file, operation):
        monkeypatch.setattr(fcntl, "flock", real)
        holder.close()
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", released_first)
    writing = []
    for _ in range(2):
        try:
            writing.append(StoreWriter(tmp_path / "store", manifest))
        except BadInput:
            continue
    for writer in writing:
        writer.close()
    assert len(writing) == 1


def test_one_who_only_asks_who_is_writing_is_in_nobodys_way(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    asking = (tmp_path / ".lock").open("rb")
    fcntl.flock(asking, fcntl.LOCK_SH)  # as whoever verifies does, for a moment
    monkeypatch.setattr(time, "sleep", lambda _: asking.close())
    lock.unlock(lock.take_lock(tmp_path), tmp_path)


def just_before_the_lock(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do what another process could do after this one has looked and before it has the lock."""
    real = lock.take_lock

    def late(root: Path) -> BinaryIO:
        monkeypatch.setattr(lock, "take_lock", real)
        work()
        return real(root)

    monkeypatch.setattr(lock, "take_lock", late)


def test_a_store_finished_between_looking_and_locking_is_kept(tmp_path, monkeypatch):
    manifest = make_manifest()
    just_before_the_lock(monkeypatch, lambda: whole_store(tmp_path / "store"))
    with StoreWriter(tmp_path / "store", manifest) as writer:
        assert writer.next_shard == manifest.shards
    assert tree(tmp_path / "store") == whole_store(tmp_path / "whole")


def test_another_store_finished_between_looking_and_locking_is_kept(tmp_path, monkeypatch):
    just_before_the_lock(monkeypatch, lambda: whole_store(tmp_path / "store"))
    with pytest.raises(BadInput, match="a store of another configuration"):
        StoreWriter(tmp_path / "store", make_manifest(codec="int8"))
    assert tree(tmp_path / "store") == whole_store(tmp_path / "whole")


def test_what_else_comes_between_looking_and_locking_is_kept(tmp_path, monkeypatch):
    just_before_the_lock(monkeypatch, lambda: (tmp_path / "store" / "mine").write_text("mine"))
    with pytest.raises(BadInput, match="holds no store"):
        StoreWriter(tmp_path / "store", make_manifest())
    assert tree(tmp_path / "store") == {"mine": b"mine"}


def test_a_pull_looks_again_under_its_lock(make_store, tmp_path, monkeypatch):
    store, _ = make_store(codec="int8")
    just_before_the_lock(monkeypatch, lambda: whole_store(tmp_path / "copy"))
    with pytest.raises(BadInput, match="is another store than"):
        pull(store.root, PullSettings(out=str(tmp_path / "copy")))
    assert tree(tmp_path / "copy") == whole_store(tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_another_has_is_held(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", fail_with_code(code))
    with pytest.raises(BadInput, match="is being written by another process: wait for it"):
        StoreWriter(tmp_path / "store", make_manifest())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_another_writer(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", fail_with_code(code))
    with pytest.raises(RkstoreError, match=r"cannot be locked: .*; write to a file system that"):
        StoreWriter(tmp_path / "store", make_manifest())
    assert tree(tmp_path / "store") == {}


def fail_with_code(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "shards.jsonl", "folder/x"])
def test_a_directory_of_other_things_is_refused_and_left_as_it_was(tmp_path, name):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(BadInput, match="not empty and holds no store") as error:
        StoreWriter(tmp_path / "mine", make_manifest())
    assert name.split("/")[0] in str(error.value)
    assert tree(tmp_path / "mine") == {name: b"mine"}


@pytest.mark.parametrize("path", [HOOK, f"{HOOK}/c", f"{HOOK}/statistics", ".writing"])
def test_a_writer_never_follows_a_link_out_of_its_store(tmp_path, path):
    manifest = make_manifest()
    values = make_values(manifest)
    root, outside = tmp_path / "store", tmp_path / "outside"
    write_store(root, manifest, values, 1)
    outside.mkdir()
    if (root / path).exists():
        (root / path).rename(outside / "inner")
    (root / path).symlink_to(outside / "inner" if path != ".writing" else outside)
    before = tree(outside)
    with pytest.raises(RkstoreError, match="symbolic link"):
        write_store(root, manifest, values)
    assert tree(outside) == before


def test_a_store_whose_journal_could_not_be_read_is_refused_before_its_first_row(tmp_path):
    with pytest.raises(BadInput, match="give a larger shard_rows"):
        StoreWriter(tmp_path / "store", make_manifest(rows=2**40, shard_rows=64))
    assert not (tmp_path / "store").exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "store").write_text("mine")
    with pytest.raises(BadInput, match="is a file"):
        StoreWriter(tmp_path / "store", make_manifest())
    assert (tmp_path / "store").read_text() == "mine"


# Another configuration than that of ``make_manifest()``, and what is said of it.
CHANGES = [
    ({"codec": "float16"}, "codec: float32 there, float16 here"),
    ({"format": "hdf5"}, "format: zarr there, hdf5 here"),
    ({"compression": "none"}, "compression: absent there, none here"),
    ({"rows": 220}, "rows: 216 there, 220 here"),
    ({"shard_rows": 32}, "shard_rows: 64 there, 32 here"),
    ({"context_size": 4}, "context_size: 8 there, 4 here"),
    ({"sites": {HOOK: 12}}, "sites"),
    ({"source": {"model": {"name": "other", "revision": None}}}, "source.model.name"),
    ({"schema": 1}, "rkstore_schema: 2 there, 1 here"),
]


@pytest.mark.parametrize(("change", "key"), CHANGES)
def test_a_store_of_another_configuration_is_refused_and_the_key_named(tmp_path, change, key):
    manifest = make_manifest()
    write_store(tmp_path / "store", manifest, make_values(manifest), 1)
    before = tree(tmp_path / "store")
    with pytest.raises(BadInput, match="another configuration") as error:
        StoreWriter(tmp_path / "store", make_manifest(**change))
    assert key in str(error.value)
    assert tree(tmp_path / "store") == before


@pytest.mark.parametrize(
    "bad",
    [
        {"sites": {"../outside": 3}},
        {"sites": {".hidden": 3}},
        {"sites": {}},
        {"sites": {"token_id": 3}},
        {"sites": {"manifest.json": 3}},
        {"rows": 0},
        {"chunk_rows": 0},
        {"shard_rows": 65},
    ],
    ids=str,
)
def test_a_manifest_that_no_reader_would_accept_is_not_written(tmp_path, bad):
    with pytest.raises(BadInput):
        StoreWriter(tmp_path / "store", make_manifest(**bad))
    assert list(tmp_path.rglob("manifest.json")) == []


@pytest.mark.parametrize("shape", [(64, 11), (64, 13), (63, 12), (65, 12), (64,), (64, 12, 1)])
def test_a_wrong_width_or_number_of_rows_is_refused_and_both_are_named(tmp_path, shape):
    manifest = make_manifest()
    values, columns = shard_of(manifest, make_values(manifest), 0)
    values[HOOK] = np.zeros(shape, np.float32)
    with StoreWriter(tmp_path / "store", manifest) as writer:
        before = tree(tmp_path / "store")
        with pytest.raises(BadInput) as error:
            writer.write_shard(values, columns)
        assert tree(tmp_path / "store") == before
    for part in (HOOK, str(shape), "(64, 12)", "0:64"):
        assert part in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_site_and_row(tmp_path, value):
    manifest = make_manifest()
    all_values = make_values(manifest)
    write_store(tmp_path / "store", manifest, all_values, 1)
    values, columns = shard_of(manifest, all_values, 1)
    values[HOOK] = values[HOOK].copy()
    values[HOOK][9, 3] = value
    with StoreWriter(tmp_path / "store", manifest) as writer:
        before = tree(tmp_path / "store")
        with pytest.raises(BadInput, match="finite") as error:
            writer.write_shard(values, columns)
        assert tree(tmp_path / "store") == before
    for part in (HOOK, "row 73", str(value), "dimension 3"):
        assert part in str(error.value)
    assert_good(tmp_path / "store", all_values, 64)


@pytest.mark.parametrize("format", FORMATS)
def test_a_value_that_the_codec_cannot_hold_is_refused_and_nothing_is_written(tmp_path, format):
    manifest = make_manifest(codec="float16", format=format)
    values, columns = shard_of(manifest, make_values(manifest), 0)
    # In the last chunk of the last site, when the others could be on the disk already.
    last = list(SITES)[-1]
    values[last] = values[last].copy()
    values[last][60, 1] = 1e5
    root = tmp_path / "store"
    with StoreWriter(root, manifest) as writer:
        with pytest.raises(BadInput, match="bfloat16") as error:
            writer.write_shard(values, columns)
        assert last in str(error.value)
        assert writer.next_shard == 0
    assert tree(root).keys() == {"manifest.json"}


def test_a_value_that_the_codec_cannot_hold_is_named_with_its_row(tmp_path):
    manifest = make_manifest(codec="float16")
    all_values = make_values(manifest)
    write_store(tmp_path / "store", manifest, all_values, 1)
    values, columns = shard_of(manifest, all_values, 1)
    values[HOOK] = values[HOOK].copy()
    values[HOOK][41, 1] = 1e5
    with (
        StoreWriter(tmp_path / "store", manifest) as writer,
        pytest.raises(BadInput, match=rf"{HOOK}.*row 105"),
    ):
        writer.write_shard(values, columns)


@pytest.mark.parametrize("length", [0, 63, 65, 80])
def test_a_column_of_another_length_is_refused_and_named(tmp_path, length):
    manifest = make_manifest()
    values, columns = shard_of(manifest, make_values(manifest), 0)
    columns["document"] = np.zeros(length, np.int32)
    with StoreWriter(tmp_path / "store", manifest) as writer:
        with pytest.raises(BadInput, match="document"):
            writer.write_shard(values, columns)
        assert writer.next_shard == 0


@pytest.mark.parametrize("missing", [HOOK, "position"])
def test_a_site_or_a_column_that_is_missing_is_named_and_nothing_is_written(tmp_path, missing):
    manifest = make_manifest()
    given = {"values": {}, "columns": {}}
    given["values"], given["columns"] = shard_of(manifest, make_values(manifest), 0)
    for arrays in given.values():
        arrays.pop(missing, None)
    root = tmp_path / "store"
    with StoreWriter(root, manifest) as writer:
        with pytest.raises(BadInput, match=missing):
            writer.write_shard(**given)
        assert writer.next_shard == 0
    assert tree(root).keys() == {"manifest.json"}


def test_the_order_of_the_sites_in_a_call_does_not_matter(tmp_path):
    manifest = make_manifest()
    values, columns = shard_of(manifest, make_values(manifest), 0)
    for name, order in (("a", list(values)), ("b", list(values)[::-1])):
        with StoreWriter(tmp_path / name, manifest) as writer:
            writer.write_shard({hook: values[hook] for hook in order}, columns)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("sizes", [[64], [16] * 4, [3, 13, 48], [1] * 64, [50, 14], [15, 2, 47]])
@pytest.mark.parametrize("format", FORMATS)
def test_rows_that_come_in_batches_of_any_size_have_the_bytes_of_one(tmp_path, format, sizes):
    manifest = make_manifest(format=format, codec="int8", rows=64)
    values, columns = shard_of(manifest, make_values(manifest), 0)
    write_store(tmp_path / "once", manifest, make_values(manifest))
    with StoreWriter(tmp_path / "batches", manifest) as writer:
        shard = writer.begin_shard()
        first = 0
        for size in sizes:
            rows = slice(first, first := first + size)
            shard.add(
                {name: x[rows] for name, x in values.items()},
                {name: x[rows] for name, x in columns.items()},
            )
        writer.finish_shard(shard)
    assert tree(tmp_path / "batches") == tree(tmp_path / "once")


@pytest.mark.parametrize("given", [0, 63])
def test_a_shard_that_lacks_rows_is_refused_and_nothing_is_written(tmp_path, given):
    manifest = make_manifest()
    values, columns = shard_of(manifest, make_values(manifest), 0)
    with StoreWriter(tmp_path / "store", manifest) as writer:
        shard = writer.begin_shard()
        shard.add(
            {name: x[:given] for name, x in values.items()},
            {name: x[:given] for name, x in columns.items()},
        )
        with pytest.raises(BadInput, match=f"shard 0 has 64 rows, {given} were given"):
            writer.finish_shard(shard)
    assert tree(tmp_path / "store").keys() == {"manifest.json"}


class FullDisk:
    """``os.fsync`` on a disk that is full from its n-th call on, for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.full_at = 0, -1
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, _: int) -> None:
        self.calls += 1
        if self.calls > self.full_at >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(self, moment: int) -> None:
        self.calls, self.full_at = 0, moment

    def make_room(self) -> None:
        self.full_at = -1


def at_every_moment(
    disk: FullDisk, root: Path, then: Callable[[StoreWriter, Path], None], **options
) -> int:
    """Fill the disk at each moment of a second shard; returns how many there were."""
    manifest = make_manifest(rows=128, **options)
    values = make_values(manifest)
    moment = 0
    while True:
        store = root / str(moment)
        write_store(store, manifest, values, 1)
        with StoreWriter(store, manifest) as writer:
            disk.fill(moment)
            said = None
            try:
                writer.write_shard(*shard_of(manifest, values, 1))
            except RkstoreError as error:
                said = str(error)
            disk.make_room()
            if said is None:
                return moment
            for part in ("the disk is full", "recorded so far are intact", str(store)):
                assert part in said
            then(writer, store)
        moment += 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_recorded_shards_and_the_store_can_be_finished_later(
    tmp_path, monkeypatch, format
):
    manifest = make_manifest(rows=128, format=format)
    values = make_values(manifest)
    expected = whole_store(tmp_path / "whole", rows=128, format=format)

    def finish(writer: StoreWriter, store: Path) -> None:
        writer.close()
        assert Store(store).rows >= 64
        np.testing.assert_array_equal(Store(store).read(HOOK, 0, 64), values[HOOK][:64])
        assert Store(store).statistics(HOOK).count == Store(store).rows
        write_store(store, manifest, values)
        assert tree(store) == expected

    assert at_every_moment(FullDisk(monkeypatch), tmp_path, finish, format=format) > 10


@pytest.mark.parametrize("format", FORMATS)
def test_one_who_tries_again_after_a_full_disk_does_not_spoil_the_store(
    tmp_path, monkeypatch, format
):
    manifest = make_manifest(rows=128, format=format)
    values = make_values(manifest)
    expected = whole_store(tmp_path / "whole", rows=128, format=format)

    def try_again(writer: StoreWriter, store: Path) -> None:
        # A writer may refuse to go on; it may not go on wrongly.
        with contextlib.suppress(RkstoreError):
            writer.write_shard(*shard_of(manifest, values, 1))
        writer.close()
        write_store(store, manifest, values)
        assert tree(store) == expected

    assert at_every_moment(FullDisk(monkeypatch), tmp_path, try_again, format=format) > 10


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_named_whichever_library_meets_it(tmp_path, monkeypatch, format):
    manifest = make_manifest(format=format)
    values = make_values(manifest)
    root = tmp_path / "store"
    write_store(root, manifest, values, 1)

    def write_shard(*_: object) -> None:
        raise OSError("Can't write data (file write failed: errno = 28, No space left on device)")

    with StoreWriter(root, manifest) as writer:
        monkeypatch.setattr(FORMATS[format], "write_shard", write_shard)
        with pytest.raises(RkstoreError, match="the disk is full"):
            writer.write_shard(*shard_of(manifest, values, 1))
    monkeypatch.undo()
    assert_good(root, values, 64)


def test_nothing_is_called_intact_in_a_directory_that_is_gone(tmp_path):
    root, manifest = tmp_path / "store", make_manifest()
    with StoreWriter(root, manifest) as writer:
        writer.write_shard(*shard_of(manifest, make_values(manifest), 0))
        shutil.rmtree(root)
        with pytest.raises(RkstoreError, match=r"store: it was removed meanwhile; keep") as error:
            writer.write_shard(*shard_of(manifest, make_values(manifest), 1))
    assert "recorded so far" not in str(error.value)


def test_a_directory_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RkstoreError, match="Permission denied") as error:
        StoreWriter(tmp_path / "store", make_manifest())
    assert str(tmp_path / "store") in str(error.value)


def test_a_file_that_a_worker_adds_at_the_last_moment_is_removed_too(tmp_path, monkeypatch):
    """As one may that is killed with the writer."""
    real, late = shutil.rmtree, iter(["late"])

    def slower(path, **more):
        real(path, **more)
        for name in late:
            path.mkdir()
            (path / name).touch()

    manifest = make_manifest()
    with StoreWriter(tmp_path / "store", manifest) as writer:
        writer.attempts()
        monkeypatch.setattr(shutil, "rmtree", slower)
    assert not (tmp_path / "store" / ASIDE).exists()


def test_a_writer_that_fails_lets_go_of_its_lock(tmp_path):
    manifest = make_manifest()
    values = make_values(manifest)

    def die_between_shards() -> None:
        with StoreWriter(tmp_path / "store", manifest) as writer:
            writer.write_shard(*shard_of(manifest, values, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_between_shards()
    assert not (tmp_path / "store" / ".lock").exists()
    assert_good(tmp_path / "store", values, 64)


def fail_with(error: BaseException) -> Callable[[StoreWriter, Path], None]:
    """A first shard that ends in that error, all of whose rows were given but the last."""

    def fail(writer: StoreWriter, root: Path) -> None:  # noqa: ARG001
        values, columns = shard_of(writer.manifest, make_values(writer.manifest), 0)
        writer.begin_shard().add(
            {name: x[:63] for name, x in values.items()},
            {name: x[:63] for name, x in columns.items()},
        )
        raise error

    return fail


def give(value: float) -> Callable[[StoreWriter, Path], None]:
    """A first shard that holds that value."""

    def write(writer: StoreWriter, root: Path) -> None:  # noqa: ARG001
        values, columns = shard_of(writer.manifest, make_values(writer.manifest), 0)
        values[HOOK] = values[HOOK].copy()
        values[HOOK][9, 3] = value
        writer.write_shard(values, columns)

    return write


def leave_a_column_out(writer: StoreWriter, root: Path) -> None:  # noqa: ARG001
    values, columns = shard_of(writer.manifest, make_values(writer.manifest), 0)
    del columns["position"]
    writer.write_shard(values, columns)


def fill_the_disk_last(writer: StoreWriter, root: Path) -> None:
    """All files of the shard are in place when its line cannot be written."""
    values = make_values(writer.manifest)
    (root / "shards.jsonl").mkdir()
    try:
        writer.write_shard(*shard_of(writer.manifest, values, 0))
    finally:
        (root / "shards.jsonl").rmdir()


# How a writer may end before its first shard is recorded.
ENDS = {
    "nan": give(np.nan),
    "infinite": give(np.inf),
    "too large": give(1e6),
    "a column short": leave_a_column_out,
    "no journal": fill_the_disk_last,
    "Ctrl-C": fail_with(KeyboardInterrupt()),
    "exit": fail_with(SystemExit(1)),
    "bad input": fail_with(BadInput("no")),
    "no memory": fail_with(MemoryError()),
    "a bug": fail_with(ZeroDivisionError()),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("made", [True, False])
def test_what_fails_before_its_first_shard_leaves_nothing(tmp_path, end, format, made):
    root = tmp_path / "stores" / "one"
    if not made:
        root.mkdir(parents=True)
    with (
        pytest.raises((RkstoreError, KeyboardInterrupt, SystemExit, MemoryError, ArithmeticError)),
        StoreWriter(root, make_manifest(codec="float16", format=format)) as writer,
    ):
        ENDS[end](writer, root)
    assert root.exists() != made
    assert list(root.rglob("*")) == []
    # As it is advised: another codec.
    assert whole_store(root, format=format) == whole_store(tmp_path / "direct", format=format)


@pytest.mark.parametrize("end", [end for end in ENDS if end != "no journal"])
def test_what_fails_later_leaves_the_shards_that_are_recorded(tmp_path, end):
    root, manifest = tmp_path / "store", make_manifest(codec="float16")
    write_store(root, manifest, make_values(manifest), 1)
    before = tree(root)
    with (
        pytest.raises((RkstoreError, KeyboardInterrupt, SystemExit, MemoryError, ArithmeticError)),
        StoreWriter(root, manifest) as writer,
    ):
        ENDS[end](writer, root)
    assert tree(root) == before


@pytest.mark.parametrize("moment", ["manifest", "files"])
@pytest.mark.parametrize("change", [change for change, _ in CHANGES], ids=str)
def test_a_store_that_was_killed_before_its_first_shard_gives_way_to_another(
    tmp_path, change, moment
):
    root = tmp_path / "store"
    killed = whole_store(tmp_path / "killed", rows=64, codec="int8") | {"shards.jsonl": b'{"cha'}
    if moment == "manifest":
        killed = {"manifest.json": killed["manifest.json"]}
    for path, content in killed.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    assert whole_store(root, **change) == whole_store(tmp_path / "direct", **change)
    assert not [path for path in root.rglob("*") if path.is_dir() and not list(path.iterdir())]


def test_what_is_not_of_the_store_is_never_removed_with_it(tmp_path):
    root = tmp_path / "store"

    def leave_notes(writer: StoreWriter) -> None:
        (root / HOOK).mkdir()
        for path in ("notes.txt", f"{HOOK}/notes.txt"):
            (root / path).write_text("mine")
        leave_a_column_out(writer, root)

    with pytest.raises(BadInput), StoreWriter(root, make_manifest()) as writer:
        leave_notes(writer)
    assert tree(root) == {"notes.txt": b"mine", f"{HOOK}/notes.txt": b"mine"}


def test_a_writer_that_fails_never_touches_what_another_writes(tmp_path):
    root, manifest = tmp_path / "store", make_manifest()
    with StoreWriter(root, manifest) as writer:
        with pytest.raises(BadInput, match="being written"), StoreWriter(root, manifest):
            pass
        writer.write_shard(*shard_of(manifest, make_values(manifest), 0))
    assert Store(root).rows == 64


def test_the_advice_of_a_refused_command_can_be_followed(tmp_path, rkstore):
    np.save(tmp_path / "x.npy", np.full((64, 3), 1e6, np.float32))
    command = ("import", "--from", "npy", "x.npy", "--out", "store")
    status, _, err = rkstore(*command, "--codec", "float16")
    assert (status, "bfloat16" in err) == (2, True)
    status, _, _ = rkstore(*command, "--codec", "bfloat16")
    assert status == 0
    assert Store(tmp_path / "store").rows == 64
