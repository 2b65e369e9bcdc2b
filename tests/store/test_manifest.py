"""The manifest and the journal: what they say, and that nobody changes it unnoticed."""

import dataclasses
import json
import math
import os
import time
from pathlib import Path

import pytest
from conftest import make_manifest

from rkstore.errors import BadInput, DamagedStore, RkstoreError
from rkstore.store.codecs import CODECS
from rkstore.store.files import LARGEST_JOURNAL, LARGEST_MANIFEST, FileRecord
from rkstore.store.formats import FORMATS
from rkstore.store.journal import ShardRecord, largest_journal, needed_journal, parse_journal
from rkstore.store.manifest import FILES_SCHEMA, SCHEMA, Manifest
from rkstore.store.sites import Pair, Site
from rkstore.store.store import Store

SOURCE = {
    "model": {"name": "größe/модель", "revision": None, "layers": 3},
    "text": {"files": [{"name": "a.txt", "bytes": 12}]},
    "tokens": {"prepend_bos": True, "seed": 0},
}

PAIR = Pair("mlp", 1, "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out")


def save(root: Path, manifest: Manifest) -> Path:
    (root / "manifest.json").write_bytes(manifest.to_bytes())
    return root


def read_manifest(root: Path) -> Manifest:
    return Store(root).manifest


def read_journal(root: Path, manifest: Manifest) -> list[ShardRecord]:
    return list(parse_journal((root / "shards.jsonl").read_bytes(), manifest, str(root)))


def save_json(root: Path, document: object) -> Path:
    (root / "manifest.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return root


def record_after(manifest: Manifest, previous: str, shard: int) -> ShardRecord:
    files = {path: FileRecord(100 + shard, "ab" * 32) for path in manifest.shard_paths(shard)}
    errors = dict.fromkeys(manifest.hook_names, 0.1 + shard)
    return ShardRecord.following(previous, shard, files, errors, errors)


def journal(manifest: Manifest, shards: int) -> list[bytes]:
    """The lines that a writer of that manifest would have written."""
    lines, chain = [], manifest.fingerprint
    for shard in range(shards):
        record = record_after(manifest, chain, shard)
        lines.append(record.to_line())
        chain = record.chain
    return lines


def other_character(byte: int) -> bytes:
    """One that is as likely as possible to leave valid JSON: a digit for a digit."""
    return bytes([byte ^ 1])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_manifest_read_back_is_the_one_that_was_written(tmp_path, codec, format):
    manifest = make_manifest(codec=codec, format=format, source=SOURCE)
    assert read_manifest(save(tmp_path, manifest)) == manifest
    assert read_manifest(tmp_path).to_bytes() == manifest.to_bytes()


def test_a_manifest_states_its_pairs_and_without_any_has_no_such_key(tmp_path):
    plain = make_manifest()
    assert "pairs" not in json.loads(plain.to_bytes())
    paired = dataclasses.replace(plain, pairs=(PAIR,))
    assert read_manifest(save(tmp_path, paired)) == paired
    [stated] = json.loads(paired.to_bytes())["pairs"]
    assert stated == {
        "name": "mlp",
        "layer": 1,
        "reads": "blocks.1.mlp.hook_post",
        "writes": "blocks.1.hook_mlp_out",
    }


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ((dataclasses.replace(PAIR, reads="nothing"),), "pair mlp has 'nothing', which is no site"),
        ((dataclasses.replace(PAIR, writes=3),), "pair mlp has 3, which is no site"),
        ((dataclasses.replace(PAIR, layer="1"),), "of layer '1'"),
        ((dataclasses.replace(PAIR, name=None),), "a pair is named None"),
        ((PAIR, PAIR), "pair mlp of layer 1 is there twice"),
    ],
)
def test_a_pair_that_is_not_two_sites_of_the_store_is_refused(tmp_path, pairs, what):
    save(tmp_path, dataclasses.replace(make_manifest(), pairs=pairs))
    with pytest.raises(DamagedStore, match=what):
        read_manifest(tmp_path)


def test_a_manifest_states_its_schema_and_its_fingerprint():
    manifest = make_manifest(source=SOURCE)
    document = json.loads(manifest.to_bytes())
    assert document["rkstore_schema"] == SCHEMA
    assert document["fingerprint"] == manifest.fingerprint
    assert document["source"] == SOURCE
    assert len(manifest.fingerprint) == 16
    assert int(manifest.fingerprint, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 200},
        {"context_size": 9},
        {"shard_rows": 128},
        {"chunk_rows": 8},
        {"codec": "float16"},
        {"format": "hdf5", "compression": "deflate"},
        {"compression": "blosc-lz4"},
        {"sites": (Site("blocks.0.mlp.hook_post", 12),)},
        {"pairs": (PAIR,)},
        {"source": {"model": {"name": "random", "revision": "main"}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_determines_a_value_changes_the_fingerprint_and_is_named(change):
    manifest = make_manifest()
    other = dataclasses.replace(manifest, **change)
    assert other.fingerprint != manifest.fingerprint
    (difference,) = manifest.differences(other)
    assert difference.startswith(next(iter(change)))


@pytest.mark.parametrize(("format", "usual"), [("zarr", "blosc-zstd"), ("hdf5", "deflate")])
def test_the_usual_compression_goes_without_saying(format, usual):
    unstated = make_manifest(format=format)
    assert unstated == make_manifest(format=format, compression=usual)
    assert unstated.compression == usual
    assert b"compression" not in unstated.to_bytes()


def test_differences_name_the_inner_key_and_both_values():
    here = make_manifest(source={"model": {"name": "gpt2", "dtype": "float32"}, "seed": 1})
    there = make_manifest(source={"model": {"name": "pythia", "dtype": "float32"}, "rev": "x"})
    assert here.differences(there) == [
        "source.model.name: pythia there, gpt2 here",
        "source.rev: x there, absent here",
        "source.seed: absent there, 1 here",
    ]


def test_a_manifest_does_not_differ_from_its_copy():
    assert make_manifest(source=SOURCE).differences(make_manifest(source=SOURCE)) == []


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"model": {"revision": None}}, {"model": {}}),
        ({"model": {}}, {}),
        ({"files": []}, {}),
        ({"prepend_bos": True}, {"prepend_bos": 1}),
        ({"a": {"b": 1}}, {"a.b": 1}),
    ],
)
def test_two_manifests_of_different_fingerprints_never_pass_for_the_same(here, there):
    a, b = make_manifest(source=here), make_manifest(source=there)
    assert a.fingerprint != b.fingerprint
    assert a.differences(b)
    assert b.differences(a)


def test_the_last_shard_holds_what_is_left():
    manifest = make_manifest(rows=216, shard_rows=64)
    assert manifest.shards == 4
    assert [manifest.rows_of_shard(i) for i in range(4)] == [
        (0, 64),
        (64, 128),
        (128, 192),
        (192, 216),
    ]
    assert [manifest.rows_recorded(i) for i in range(5)] == [0, 64, 128, 192, 216]


def test_any_changed_character_of_a_manifest_is_noticed(tmp_path):
    manifest = make_manifest(source=SOURCE)
    whole = manifest.to_bytes()
    path = tmp_path / "manifest.json"
    unnoticed = []
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset] + other_character(whole[offset]) + whole[offset + 1 :])
        try:
            read_manifest(tmp_path)
        except RkstoreError:
            continue
        unnoticed.append(offset)
    assert not unnoticed


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\n", lambda _: b""])
def test_a_manifest_cut_short_or_continued_is_noticed(tmp_path, change):
    (tmp_path / "manifest.json").write_bytes(change(make_manifest().to_bytes()))
    with pytest.raises(DamagedStore):
        read_manifest(tmp_path)


def test_a_changed_value_is_answered_with_both_fingerprints(tmp_path):
    manifest = make_manifest()
    changed = dataclasses.replace(manifest, context_size=9)
    raw = manifest.to_bytes().replace(b'"context_size": 8', b'"context_size": 9')
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(DamagedStore) as error:
        read_manifest(tmp_path)
    assert manifest.fingerprint in str(error.value)
    assert changed.fingerprint in str(error.value)


def test_a_newer_schema_asks_for_an_upgrade(tmp_path):
    document = json.loads(make_manifest().to_bytes())
    save_json(tmp_path, document | {"rkstore_schema": FILES_SCHEMA + 1, "something": "new"})
    with pytest.raises(BadInput, match="upgrade") as error:
        read_manifest(tmp_path)
    assert f"schema {FILES_SCHEMA + 1}" in str(error.value)


def test_where_there_is_no_manifest_there_is_no_store(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInput, match="no store at") as error:
            read_manifest(root)
        assert str(root) in str(error.value)
        assert "rkstore harvest" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/abs",
        ".hidden",
        "..",
        ".",
        "",
        "a/b",
        "a/../../b",
        "a\\b",
        "a\0b",
        "a\n",
        "a b",
        "ünï",
        "~root",
        "-rf",
    ],
)
def test_a_site_name_that_could_leave_the_store_is_refused(tmp_path, name):
    save(tmp_path, make_manifest(sites={"blocks.0.mlp.hook_post": 4, name: 4}))
    with pytest.raises(DamagedStore, match="cannot be the name of a site"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "shards.jsonl", "zarr.json"])
def test_a_site_name_that_is_a_file_of_the_store_is_refused(tmp_path, name):
    save(tmp_path, make_manifest(sites={name: 4}))
    with pytest.raises(DamagedStore):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("codec", "sites"),
    [
        ("float32", {}),
        ("float32", {"token_id": 4}),
        ("float32", {"document": 4}),
        ("int8", {"a": 4, "a.scale": 4}),
    ],
)
def test_sites_that_are_missing_or_would_share_a_directory_are_refused(tmp_path, codec, sites):
    save(tmp_path, make_manifest(codec=codec, sites=sites))
    with pytest.raises(DamagedStore, match="missing or named twice"):
        read_manifest(tmp_path)


def test_a_site_named_twice_is_refused(tmp_path):
    manifest = dataclasses.replace(make_manifest(), sites=(Site("a", 4), Site("a", 4)))
    with pytest.raises(DamagedStore, match="named twice"):
        read_manifest(save(tmp_path, manifest))


@pytest.mark.parametrize("key", ["rows", "context_size", "shard_rows", "chunk_rows"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "8", None, 2**48, [8]])
def test_a_size_that_is_not_a_positive_number_is_refused(tmp_path, key, value):
    with pytest.raises(DamagedStore, match="not a valid manifest"):
        read_manifest(save_json(tmp_path, json.loads(make_manifest().to_bytes()) | {key: value}))


@pytest.mark.parametrize("d_in", [0, -4, 4.0, "4", None])
def test_a_width_that_is_not_a_positive_number_is_refused(tmp_path, d_in):
    document = json.loads(make_manifest().to_bytes())
    document["sites"][0]["d_in"] = d_in
    with pytest.raises(DamagedStore, match="not a valid manifest"):
        read_manifest(save_json(tmp_path, document))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"codec": "pickle"}, "pickle"),
        ({"format": "npy"}, "npy"),
        ({"source": []}, "source"),
        ({"sites": "abc"}, "not a valid manifest"),
        ({"sites": [{"hook_name": 1, "d_in": 1}]}, "not a valid manifest"),
        ({"sites": None}, "not a valid manifest"),
        ({"pairs": None}, "not a valid manifest"),
        ({"pairs": ["mlp"]}, "not a valid manifest"),
        ({"pairs": [{"name": "mlp"}]}, "not a valid manifest"),
        ({"pairs": []}, "was changed after it was written"),
        ({"shard_rows": 65}, "multiple"),
    ],
)
def test_what_no_writer_would_have_written_is_refused(tmp_path, change, what):
    document = json.loads(make_manifest().to_bytes()) | change
    with pytest.raises(DamagedStore, match=what):
        read_manifest(save_json(tmp_path, document))


@pytest.mark.parametrize(
    ("aliases", "schema"),
    [
        ({"blocks.0.mlp.hook_post": "blocks.1.mlp.hook_post"}, 4),  # a site is no alias
        ({"other": "blocks.7.mlp.hook_post"}, 4),
        ({"../other": "blocks.0.mlp.hook_post"}, 4),
        ({"other": 7}, 4),
        (["other"], 4),
        ({"other": "blocks.0.mlp.hook_post"}, 2),
        ({}, 4),
    ],
)
def test_aliases_that_cannot_be_are_refused(tmp_path, aliases, schema):
    document = json.loads(make_manifest().to_bytes()) | {"aliases": aliases}
    with pytest.raises(DamagedStore, match="not a valid manifest"):
        read_manifest(save_json(tmp_path, document | {"rkstore_schema": schema}))


@pytest.mark.parametrize("key", ["rkstore_schema", "rows", "sites", "source", "codec"])
def test_a_missing_key_is_refused(tmp_path, key):
    document = json.loads(make_manifest().to_bytes())
    del document[key]
    with pytest.raises(DamagedStore):
        read_manifest(save_json(tmp_path, document))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{}",
        b"\xff\xfe\x00",
        b"\x80\x04N.",
        b"{",
        b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:8]),
)
def test_what_is_not_a_json_object_is_not_a_manifest(tmp_path, raw):
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(DamagedStore):
        read_manifest(tmp_path)


@pytest.mark.parametrize("depth", [200, 400, 900, 5000])
def test_a_source_nested_deeper_than_any_is_read_or_refused_in_words(tmp_path, depth):
    text = make_manifest().to_bytes().replace(b"null", b"[" * depth + b"]" * depth)
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(DamagedStore):
        read_manifest(tmp_path)


def test_a_manifest_of_very_many_sites_is_read_in_a_time_that_grows_with_their_number(tmp_path):
    manifest = make_manifest(sites={f"blocks.{i}.x": 4 for i in range(30_000)})
    save(tmp_path, manifest)
    started = time.process_time()
    assert read_manifest(tmp_path) == manifest
    # It takes a second; looking for each site among all would take a minute.
    assert time.process_time() - started < 15


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_what_a_codec_keeps_besides_may_not_be_immense_either(tmp_path, codec):
    manifest = make_manifest(codec=codec, shard_rows=2**40, chunk_rows=1)
    save(tmp_path, manifest)
    if CODECS[codec].side_of == "chunk":
        with pytest.raises(DamagedStore, match="too large"):
            read_manifest(tmp_path)
    else:
        assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("name", ["manifest.json", "shards.jsonl"])
def test_a_link_to_nothing_or_a_pipe_is_not_taken_for_a_file_of_the_store(tmp_path, name):
    manifest = make_manifest()
    root = save(tmp_path, manifest)
    (root / "shards.jsonl").write_bytes(journal(manifest, 1)[0])
    (root / name).rename(root / "elsewhere")
    for make in (lambda path: path.symlink_to("nowhere"), os.mkfifo, Path.mkdir):
        make(root / name)
        with pytest.raises(DamagedStore, match=f"{name} of .* is"):
            Store(root)
        (root / name).rmdir() if (root / name).is_dir() else (root / name).unlink()


def test_an_immense_manifest_is_not_read(tmp_path):
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(LARGEST_MANIFEST + 1)
    with pytest.raises(DamagedStore, match="larger than"):
        read_manifest(tmp_path)


def test_a_store_without_a_journal_has_no_shards(tmp_path):
    assert Store(save(tmp_path, make_manifest())).records == []


def test_a_journal_read_back_is_the_one_that_was_written(tmp_path):
    manifest = make_manifest()
    lines = journal(manifest, 4)
    (tmp_path / "shards.jsonl").write_bytes(b"".join(lines))
    records = read_journal(tmp_path, manifest)
    assert [record.shard for record in records] == [0, 1, 2, 3]
    assert [record.to_line() for record in records] == lines


def test_a_last_line_that_was_not_finished_is_not_there(tmp_path):
    manifest = make_manifest()
    first, second = journal(manifest, 2)
    for length in range(0, len(second), 3):
        (tmp_path / "shards.jsonl").write_bytes(first + second[:length])
        assert len(read_journal(tmp_path, manifest)) == 1


def test_a_journal_opens_in_a_time_that_does_not_grow_with_what_is_not_read(tmp_path):
    manifest = make_manifest(rows=64 * 8000)
    (save(tmp_path, manifest) / "shards.jsonl").write_bytes(b"".join(journal(manifest, 8000)))
    started = time.process_time()
    store = Store(tmp_path)
    # It takes 0.03 s; parsing each line would take a second.
    assert time.process_time() - started < 0.3
    assert store.rows == 64 * 8000
    assert store.records[7999].to_line() == journal(manifest, 8000)[-1]


def test_a_journal_may_be_as_large_as_its_store_needs():
    sites = {f"blocks.{i}.mlp.hook_post": 3072 for i in range(12)}
    manifest = make_manifest(sites=sites, rows=10**9, shard_rows=8192, codec="int8")
    line = record_after(manifest, manifest.fingerprint, manifest.shards - 1).to_line()
    assert len(line) * manifest.shards < largest_journal(manifest)
    assert needed_journal(manifest) < LARGEST_JOURNAL


def test_a_journal_larger_than_its_store_needs_is_not_read(tmp_path):
    with (save(tmp_path, make_manifest()) / "shards.jsonl").open("wb") as file:
        file.truncate(largest_journal(make_manifest()) + 1)
    with pytest.raises(DamagedStore, match="larger than"):
        Store(tmp_path)


def test_any_changed_character_of_a_journal_is_noticed(tmp_path):
    manifest = make_manifest()
    whole = b"".join(journal(manifest, 2))
    path = tmp_path / "shards.jsonl"
    unnoticed = []
    # Behind the last newline nothing is left to notice: that line would be unfinished.
    for offset in range(len(whole) - 1):
        path.write_bytes(whole[:offset] + other_character(whole[offset]) + whole[offset + 1 :])
        try:
            read_journal(tmp_path, manifest)
        except DamagedStore:
            continue
        unnoticed.append(offset)
    assert not unnoticed


@pytest.mark.parametrize("keep", [[1], [0, 2], [1, 0], [0, 0], [0, 1, 1]])
def test_a_lost_a_repeated_or_a_moved_line_is_noticed(tmp_path, keep):
    manifest = make_manifest()
    lines = journal(manifest, 3)
    (tmp_path / "shards.jsonl").write_bytes(b"".join(lines[i] for i in keep))
    with pytest.raises(DamagedStore, match=r"line [123] of"):
        read_journal(tmp_path, manifest)


def test_a_journal_of_another_store_is_noticed_and_its_line_named(tmp_path):
    other = make_manifest(source={"model": "another"})
    (tmp_path / "shards.jsonl").write_bytes(b"".join(journal(other, 2)))
    with pytest.raises(DamagedStore, match=r"line 1 .* belongs to another store"):
        read_journal(tmp_path, make_manifest())


def test_more_shards_than_the_manifest_has_are_refused(tmp_path):
    manifest = make_manifest(rows=128)
    (tmp_path / "shards.jsonl").write_bytes(b"".join(journal(manifest, 3)))
    with pytest.raises(DamagedStore, match="more than the 2 possible shards"):
        read_journal(tmp_path, manifest)


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[]", b"{}", b"\xff", b"x" * 9, b'{"shard":0}', b"[" * 100_000],
    ids=lambda line: repr(line[:12]),
)
def test_what_is_not_a_shard_record_is_refused_and_its_line_named(tmp_path, line):
    manifest = make_manifest()
    (tmp_path / "shards.jsonl").write_bytes(journal(manifest, 1)[0] + line + b"\n")
    with pytest.raises(DamagedStore, match="line 2"):
        read_journal(tmp_path, manifest)


@pytest.fixture
def careless(monkeypatch):
    """Whoever forges a store may write NaN, which rkstore does not."""

    def canonical(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    monkeypatch.setattr("rkstore.store.journal.canonical", canonical)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("size", [1.0, -1, 2**63, True, "100", None, math.inf, math.nan])
def test_a_size_of_a_file_that_is_none_is_refused(tmp_path, size):
    manifest = make_manifest()
    files = {path: FileRecord(size, "ab" * 32) for path in manifest.shard_paths(0)}
    errors = dict.fromkeys(manifest.hook_names, 0.0)
    record = ShardRecord.following(manifest.fingerprint, 0, files, errors, errors)
    (tmp_path / "shards.jsonl").write_bytes(record.to_line())
    with pytest.raises(DamagedStore, match="line 1"):
        read_journal(tmp_path, manifest)


@pytest.mark.parametrize("digest", ["", "ab" * 31, "AB" * 32, "../" * 8, None, 1])
def test_a_digest_that_is_none_is_refused(tmp_path, digest):
    manifest = make_manifest()
    files = {path: FileRecord(1, digest) for path in manifest.shard_paths(0)}
    errors = dict.fromkeys(manifest.hook_names, 0.0)
    record = ShardRecord.following(manifest.fingerprint, 0, files, errors, errors)
    (tmp_path / "shards.jsonl").write_bytes(record.to_line())
    with pytest.raises(DamagedStore, match="line 1"):
        read_journal(tmp_path, manifest)


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("error", [math.inf, math.nan, -0.1, 1, True, "0.5", None, 10**400])
def test_an_error_of_a_codec_that_is_none_is_refused(tmp_path, error):
    manifest = make_manifest()
    files = {path: FileRecord(1, "ab" * 32) for path in manifest.shard_paths(0)}
    errors = dict.fromkeys(manifest.hook_names, error)
    record = ShardRecord.following(manifest.fingerprint, 0, files, errors, errors)
    (tmp_path / "shards.jsonl").write_bytes(record.to_line())
    with pytest.raises(DamagedStore, match="line 1"):
        read_journal(tmp_path, manifest)
