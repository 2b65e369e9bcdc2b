"""Files of the whole store besides its shards: written before the first shard, in every copy."""

import json
import shutil
from dataclasses import replace

import pytest
from conftest import flip, make_manifest, make_values, shard_of, tree

from rkstore.errors import BadInput, DamagedStore
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.repair import repair
from rkstore.share.settings import PullSettings
from rkstore.store.files import FileRecord, record_of
from rkstore.store.open import open_store
from rkstore.store.part import NOTHING
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.writer import StoreWriter

FILES = {"tokenizer/tokenizer.json": b'{"some": "words"}', "notes/a.txt": b"", "notes/b.txt": b"b"}


def with_files(**options):
    records = {path: record_of(content) for path, content in FILES.items()}
    return replace(make_manifest(**options), files=records, schema=0)


def write(root, shards=None, manifest=None):
    manifest = manifest or with_files()
    values = make_values(manifest)
    with StoreWriter(root, manifest, FILES) as writer:
        while writer.next_shard < (manifest.shards if shards is None else shards):
            writer.write_shard(*shard_of(manifest, values, writer.next_shard))
    return Store(root)


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "store")


def test_a_store_has_its_files_lists_them_and_verifies_them(store):
    assert {path: store.file(path) for path in FILES} == FILES
    assert store.files().items() >= {(p, record_of(c)) for p, c in FILES.items()}
    assert list(verify(store)) == []
    flip(store.root / "notes/b.txt", 0)
    assert [(p.path, p.what) for p in verify(store)] == [("notes/b.txt", "was changed")]
    with pytest.raises(DamagedStore, match=r"notes/b\.txt of .* was changed after it was written"):
        store.file("notes/b.txt")
    with pytest.raises(BadInput, match=r"has no notes/c\.txt"):
        store.file("notes/c.txt")


def test_only_a_store_with_files_states_schema_4(store):
    stated = json.loads((store.root / "manifest.json").read_bytes())
    assert stated["rkstore_schema"] == 4
    assert list(stated["files"]) == sorted(FILES)
    without = json.loads(make_manifest().to_bytes())
    assert without["rkstore_schema"] == 2
    assert "files" not in without


def test_the_files_are_there_before_the_first_shard(tmp_path):
    write(tmp_path / "begun", shards=0)
    assert tree(tmp_path / "begun").items() >= FILES.items()


def test_files_that_a_kill_left_out_are_written_by_the_next_writer(tmp_path):
    write(tmp_path / "begun", shards=0)
    shutil.rmtree(tmp_path / "begun/notes")
    assert tree(write(tmp_path / "begun").root) == tree(write(tmp_path / "at-once").root)


def test_a_harvest_that_fails_before_its_first_shard_leaves_no_file(tmp_path):
    manifest = with_files()
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "store", manifest, FILES):
        raise ZeroDivisionError
    assert not (tmp_path / "store").exists()


def test_another_store_without_shards_is_replaced_with_its_files(tmp_path):
    write(tmp_path / "store", shards=0)
    with StoreWriter(tmp_path / "store", make_manifest()):
        pass
    assert list(verify(Store(tmp_path / "store"))) == []


def test_a_writer_that_is_not_given_the_files_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"lacks tokenizer/tokenizer\.json"):
        StoreWriter(tmp_path / "store", with_files())
    assert not (tmp_path / "store").exists()
    with pytest.raises(BadInput, match="is not the file of its manifest"):
        StoreWriter(tmp_path / "store", with_files(), FILES | {"notes/a.txt": b"other"})


@pytest.mark.parametrize(
    "path",
    [
        "../away.txt",
        "notes/../../away.txt",
        "/etc/passwd",
        "notes",
        ".hidden/a",
        "notes/.hidden",
        "notes/more/a.txt",
        "token_id/zarr.json",
        "blocks.0.mlp.hook_post/a",
    ],
)
def test_a_path_that_could_lead_elsewhere_or_belongs_to_an_array_is_refused(store, path):
    manifest = replace(store.manifest, files={path: record_of(b"")})
    with pytest.raises(BadInput, match="cannot be a file of a store"):
        StoreWriter(store.root, manifest, {path: b""})
    (store.root / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(DamagedStore, match="cannot be a file of a store"):
        Store(store.root)


@pytest.mark.parametrize(
    "wrong", [FileRecord(-1, "ab" * 32), FileRecord(1, "x"), FileRecord(2**40, "ab" * 32)]
)
def test_a_size_or_a_digest_that_is_none_is_refused(store, wrong):
    manifest = replace(store.manifest, files={"notes/a.txt": wrong})
    (store.root / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(DamagedStore, match="is not a valid manifest"):
        Store(store.root)


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_an_earlier_schema_cannot_have_files(store, schema):
    manifest = replace(store.manifest, schema=schema)
    (store.root / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(DamagedStore, match=f"schema {schema} does not go with files"):
        Store(store.root)


def test_every_copy_and_every_part_has_the_files(store, tmp_path):
    url = str(tmp_path / "away")
    push(store.root, url)
    assert tree(tmp_path / "away").items() >= FILES.items()
    part, _ = pull(url, PullSettings(out=str(tmp_path / "part"), layers="0", rows="64:128"))
    assert part.part is not None
    assert {path: part.file(path) for path in FILES} == FILES
    assert list(verify(part)) == []
    assert {p: open_store(f"file://{url}").file(p) for p in FILES} == FILES
    pull(url, PullSettings(out=part.where))
    assert tree(part.root) == tree(store.root)


def test_a_pull_that_has_not_finished_does_not_hold_the_files_yet(store, tmp_path):
    part, _ = pull(str(store.root), PullSettings(out=str(tmp_path / "part"), rows="0:64"))
    (part.root / "part.json").write_bytes(NOTHING.to_bytes())
    found = {problem.path: problem.what for problem in verify(Store(part.root))}
    assert found["notes/a.txt"] == "is not of the part that part.json states: pull again"


def test_a_damaged_file_is_repaired_from_a_copy(store, tmp_path):
    shutil.copytree(store.root, tmp_path / "copy")
    (store.root / "tokenizer/tokenizer.json").unlink()
    assert repair(store, list(verify(store)), str(tmp_path / "copy")) == []
    assert list(verify(store)) == []
