"""What the system does not let one read is no damage; a store is content with few open files."""

import errno
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rkstore.errors import DamagedStore, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.settings import PullSettings
from rkstore.store.descriptors import most_open
from rkstore.store.files import LOST, TOO_MANY_OPEN
from rkstore.store.formats import FORMATS
from rkstore.store.manifest import COLUMNS
from rkstore.store.store import Store
from rkstore.store.verify import verify

HOOK = "blocks.1.mlp.hook_post"

# Whatever reads a file of a store. Each gets a store that was opened and read nothing yet.
READERS = {
    "Store()": lambda store: Store(store.root),
    "chunk": lambda store: store.chunk(HOOK, 0),
    "read": lambda store: store.read(HOOK),
    "column": lambda store: [store.column(name) for name in COLUMNS],
    "statistics": lambda store: store.statistics(HOOK),
    "codec_fvu": lambda store: store.codec_fvu(HOOK),
    "push": lambda store: push(store.root, str(store.root.parent / "pushed")),
}


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, root: Path, code: int, but: tuple = ()) -> None:
    """Have the system refuse every file of a store, but some."""
    real = io.open

    def refusing(file, *words, **named):
        if str(file).startswith(f"{root}/") and Path(file).name not in but:
            raise OSError(code, os.strerror(code), str(file))
        return real(file, *words, **named)

    monkeypatch.setattr(io, "open", refusing)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("reader", READERS)
def test_an_error_of_the_system_is_never_called_damage(make_store, monkeypatch, format, reader):
    store, _ = make_store(codec="int8", format=format, rows=64)
    # What opens a store comes through, where something else is to be read.
    but = () if reader == "Store()" else ("manifest.json", "shards.jsonl")
    for code in sorted(errno.errorcode.keys() - set(LOST)):
        with monkeypatch.context() as patch:
            refuse_to_open(patch, store.root, code, but)
            with pytest.raises(RkstoreError, match="cannot read") as error:
                READERS[reader](Store(store.root) if but else store)
        assert type(error.value) is RkstoreError, errno.errorcode[code]
        assert os.strerror(code) in str(error.value)
        assert "damage" not in str(error.value)
    READERS[reader](store)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_verify_lists_every_file_that_cannot_be_read(make_store, monkeypatch, code):
    store, _ = make_store(codec="int8", rows=64)
    refuse_to_open(monkeypatch, store.root, code)
    found = list(verify(store))
    assert {problem.path for problem in found} > store.files().keys()
    assert {problem.what for problem in found} == {f"cannot be read: {os.strerror(code)}"}


@pytest.mark.parametrize("code", TOO_MANY_OPEN)
def test_verify_does_not_blame_the_files_if_too_many_are_open(make_store, monkeypatch, code):
    store, _ = make_store(codec="int8", rows=64)
    refuse_to_open(monkeypatch, store.root, code)
    with pytest.raises(RkstoreError, match="ulimit -n"):
        list(verify(store))


@pytest.mark.parametrize("code", LOST, ids=errno.errorcode.get)
def test_a_file_that_the_system_does_not_find_is_lost(make_store, monkeypatch, code):
    store, _ = make_store(codec="int8", rows=64)
    refuse_to_open(monkeypatch, store.root, code)
    for reader in ("chunk", "read", "column", "statistics", "codec_fvu"):
        with pytest.raises(DamagedStore):
            READERS[reader](store)
    assert {problem.what for problem in verify(store)} == {"is missing"}


@pytest.mark.parametrize("name", ["manifest.json", "shards.jsonl", "part.json"])
def test_what_may_not_be_read_is_not_taken_for_absent(make_store, tmp_path, monkeypatch, name):
    """Without its journal a store would have no rows, without part.json it would be whole."""
    store, _ = make_store()
    pull(store.root, PullSettings(out=str(tmp_path / "part"), rows="0:64"))
    real = io.open

    def refusing(file, *words, **named):
        if str(file) == str(tmp_path / "part" / name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *words, **named)

    monkeypatch.setattr(io, "open", refusing)
    monkeypatch.setattr("builtins.open", refusing)  # that of fsspec
    for read in (
        lambda: Store(tmp_path / "part"),
        lambda: pull(tmp_path / "part", PullSettings(out=str(tmp_path / "copy"))),
    ):
        with pytest.raises(RkstoreError, match=f"cannot read .*{name}.*Permission denied"):
            read()


def test_when_too_many_files_are_open_it_says_how_to_have_more(make_store, monkeypatch):
    store, _ = make_store()
    refuse_to_open(monkeypatch, store.root, errno.EMFILE)
    with pytest.raises(RkstoreError, match=r"Too many open files.*ulimit -n"):
        store.read(HOOK)


FEW = """
import resource, sys
import numpy as np
import rkstore

roots, expected = sys.argv[1:-1], np.load(sys.argv[-1])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
import google_crc32c, numcodecs.blosc  # the libraries have files of their own
for limit in (256, 64):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    stores = [rkstore.open(root) for root in roots]
    for _ in range(2):
        for store in stores:
            for name in store.hook_names:
                np.testing.assert_array_equal(store.read(name), expected)
                assert store.statistics(name).count == store.rows
            store.column("token_id")
    assert not list(rkstore.verify(stores[0]))
    # Each view holds the file that it is a view of: when there are too many, that is no damage.
    held = []
    try:
        for chunk in range(stores[0].chunks):
            held.append(stores[0].chunk(stores[0].hook_names[0], chunk))
    except rkstore.RkstoreError as error:
        assert not isinstance(error, rkstore.DamagedStore), error
        assert "Too many open files" in str(error)
    print(len(held))
    held.clear()
"""


@pytest.mark.parametrize("format", FORMATS)
def test_stores_of_many_files_are_read_where_few_may_be_open(make_store, tmp_path, format):
    roots = []
    for name in ("one", "two"):
        store, values = make_store(
            name, format=format, compression="none", rows=600, shard_rows=8, chunk_rows=8,
            sites={HOOK: 3},
        )  # fmt: skip
        assert len(store.files()) > 256
        roots.append(str(store.root))
    np.save(tmp_path / "expected.npy", values[HOOK])
    command = [sys.executable, "-c", FEW, *roots, str(tmp_path / "expected.npy")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # More views than descriptors cannot be had, and as many as there are can.
    few = int(result.stdout.split()[1])
    assert 40 < few < 64


@pytest.mark.parametrize("soft", [-1, 1, 4, 63, 256, 1024, 2**20])
def test_shards_take_a_quarter_of_the_descriptors_at_most(monkeypatch, soft):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, -1))
    most = most_open()
    assert 1 <= most <= 256
    assert soft < 4 or most <= soft // 4
    assert most == 256 or 0 < soft < 1024


def test_all_stores_together_have_so_many_files_open(make_store, monkeypatch):
    monkeypatch.setattr("rkstore.store.descriptors.OPEN_SHARDS", 3)
    stores = [make_store(name)[0] for name in ("a", "b", "c")]
    for store in stores * 2:
        store.read(HOOK)
        assert sum(len(store._shards) for store in stores) <= 3
        assert store._shards


def test_what_a_store_had_open_is_closed_when_it_is_gone(make_store):
    store, _ = make_store()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    store.read(HOOK)
    assert len(list(descriptors.iterdir())) > before
    del store
    assert len(list(descriptors.iterdir())) == before
