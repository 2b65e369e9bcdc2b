"""Pieces of a harvest: shards that several machines compute, put together to one store."""

import json
import shutil

import pytest
import torch
from conftest import flip, tree

from rkstore.errors import BadInput, DamagedStore
from rkstore.harvest.run import prepare, write
from rkstore.share.merge import merge
from rkstore.share.pull import pull
from rkstore.share.settings import PullSettings
from rkstore.store.open import open_store
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing.lock import take_lock, unlock

CUTS = ("0:2", "2:3", "3:")


class Interrupted(Exception):
    """Stands for whatever ends a harvest between two shards."""


def interrupt(shard):
    raise Interrupted(shard)


@pytest.fixture(scope="module")
def pieces(harvest_settings, tmp_path_factory):
    """Three pieces of the five shards of ``harvested``. Read them; do not change them."""
    root = tmp_path_factory.mktemp("pieces")
    for cut in CUTS:
        write(prepare(harvest_settings(shards=cut, out=str(root / cut[:1]))))
    found = [root / cut[:1] for cut in CUTS]
    before = [tree(piece) for piece in found]
    yield found
    assert [tree(piece) for piece in found] == before


def test_an_array_job_of_three_pieces_merged_is_the_store_of_one_run(pieces, harvested, tmp_path):
    store = merge([pieces[2], pieces[0], pieces[1]], tmp_path / "store")
    assert tree(store.root) == tree(harvested.root)
    assert list(verify(store)) == []


def test_an_array_job_is_merged_into_an_object_store(pieces, harvested, bucket, fetched_from):
    assert merge(pieces, bucket).complete
    assert fetched_from(bucket) == tree(harvested.root)


def test_a_piece_has_the_files_of_its_shards_and_no_other(pieces, harvested):
    of_all = set(harvested.manifest.files)
    own = {path for record in harvested.records[2:3] for path in record.files}
    assert set(tree(pieces[1])) == own | of_all | {"piece.json", "shards.jsonl"}


def test_an_interrupted_piece_continues_after_its_last_shard(pieces, harvest_settings, tmp_path):
    harvest = prepare(harvest_settings(shards="0:2", out=str(tmp_path / "piece")))
    with pytest.raises(Interrupted):
        write(harvest, interrupt)
    done = []
    write(harvest, done.append)
    assert done == [1]
    assert tree(tmp_path / "piece") == tree(pieces[0])


def test_an_interrupted_merge_continues_after_its_last_shard(
    pieces, harvested, tmp_path, monkeypatch
):
    from rkstore.store.writing.writer import StoreWriter

    record, recorded = StoreWriter.record, []

    def dying(self, made, attempt=""):
        if made.shard == 3:
            raise Interrupted
        record(self, made, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "record", dying)
        with pytest.raises(Interrupted):
            merge(pieces, tmp_path / "store")
    assert len(Store(tmp_path / "store").records) == 3

    def counting(self, made, attempt=""):
        recorded.append(made.shard)
        record(self, made, attempt)

    monkeypatch.setattr(StoreWriter, "record", counting)
    assert tree(merge(pieces, tmp_path / "store").root) == tree(harvested.root)
    assert recorded == [3, 4]


@pytest.mark.parametrize(
    "read",
    [
        open_store,
        Store,
        lambda piece: pull(piece, PullSettings(out=f"{piece}-pulled")),
        lambda piece: list(verify(Store(piece))),
    ],
    ids=["open", "store", "pull", "verify"],
)
def test_no_reader_takes_a_piece_for_a_store(pieces, read):
    with pytest.raises(BadInput, match=r"is shards 2:3 of a harvest, no store.*rkstore merge"):
        read(pieces[1])


def test_a_piece_is_not_written_into_a_store_nor_a_store_into_a_piece(
    pieces, harvested, harvest_settings, tmp_path
):
    store, piece = tmp_path / "store", tmp_path / "piece"
    shutil.copytree(harvested.root, store)
    shutil.copytree(pieces[0], piece)
    for out, shards in ((store, "0:2"), (piece, None), (piece, "0:3")):
        before = tree(out)
        with pytest.raises(BadInput, match="choose another out"):
            write(prepare(harvest_settings(shards=shards, out=str(out))))
        assert tree(out) == before


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ((0, 2), "shards 2:3 are in none of the pieces: harvest them with"),
        ((1,), "shards 0:2, 3:5 are in none of the pieces"),
        ((0, 1), "shards 3:5 are in none of the pieces"),
        ((0, 1, 1, 2), "shards 2:3 are in .*/2 and in .*/2: leave one of them out"),
        ((), "give the pieces of a harvest"),
    ],
)
def test_a_merge_needs_every_shard_exactly_once(pieces, tmp_path, which, sentence):
    with pytest.raises(BadInput, match=sentence):
        merge([pieces[one] for one in which], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_piece_that_is_not_finished_is_not_merged(pieces, harvest_settings, tmp_path):
    with pytest.raises(Interrupted):
        write(prepare(harvest_settings(shards="0:2", out=str(tmp_path / "0"))), interrupt)
    with pytest.raises(BadInput, match="lacks shards 1:2: run its harvest again"):
        merge([tmp_path / "0", *pieces[1:]], tmp_path / "store")


def test_a_piece_of_another_harvest_is_not_merged(pieces, harvest_settings, tmp_path):
    write(prepare(harvest_settings(shards="3:5", codec="int8", out=str(tmp_path / "other"))))
    with pytest.raises(BadInput, match=r"of another harvest.*codec: int8 there, float16 here"):
        merge([*pieces[:2], tmp_path / "other"], tmp_path / "store")


def test_what_is_no_piece_is_not_merged(pieces, harvested, tmp_path):
    for other in (harvested.root, tmp_path / "nothing"):
        with pytest.raises(BadInput, match="is no piece of a harvest"):
            merge([*pieces, other], tmp_path / "store")


def test_a_damaged_file_of_a_piece_is_noticed_and_not_merged(pieces, tmp_path):
    damaged = shutil.copytree(pieces[1], tmp_path / "damaged")
    flip(damaged / "blocks.0.mlp.hook_post" / "c" / "2" / "0", 5)
    with pytest.raises(DamagedStore, match=r"c/2/0 .*is not what was recorded"):
        merge([pieces[0], damaged, pieces[2]], tmp_path / "store")
    assert len(Store(tmp_path / "store").records) == 2


@pytest.mark.parametrize("change", ["shards", "manifest", "journal", "text"])
def test_a_piece_whose_metadata_was_changed_is_refused(pieces, tmp_path, change):
    piece = shutil.copytree(pieces[1], tmp_path / "piece")
    stated = json.loads((piece / "piece.json").read_bytes())
    if change == "shards":
        stated["shards"] = [1, 2]
    elif change == "manifest":
        stated["manifest"]["rows"] += 16
    if change == "journal":
        flip(piece / "shards.jsonl", 200, 1)
    elif change == "text":
        (piece / "piece.json").write_text("{}")
    else:
        text = json.dumps(stated, indent=2, ensure_ascii=False, allow_nan=False)
        (piece / "piece.json").write_text(f"{text}\n")
    with pytest.raises(DamagedStore):
        merge([pieces[0], piece, pieces[2]], tmp_path / "store")


@pytest.mark.parametrize("asked", ["2:2", "3:2", "0:6", "-1:2", "2", "a:b", "1:2:3", "٠:2"])
def test_a_range_that_is_none_is_refused_with_the_number_of_shards(
    harvest_settings, tmp_path, asked
):
    with pytest.raises(BadInput, match=f"is '{asked}', not .* the 5 shards"):
        prepare(harvest_settings(shards=asked, out=str(tmp_path / "piece")))


def test_a_piece_needs_a_directory_of_its_own(harvest_settings):
    with pytest.raises(BadInput, match="needs out"):
        prepare(harvest_settings(shards="0:2"))


@pytest.fixture
def threads():
    """Torch's number of threads is put back after the test."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_threads_that_are_asked_for_are_used_and_recorded(harvest_settings, tmp_path, threads):
    plain = prepare(harvest_settings(out=str(tmp_path / "a")))
    asked = prepare(harvest_settings(threads=threads + 1, out=str(tmp_path / "b")))
    assert torch.get_num_threads() == threads + 1
    assert "threads" not in plain.manifest.source["run"]
    assert asked.manifest.source["run"]["threads"] == threads + 1


def test_pieces_of_other_numbers_of_threads_are_merged_and_that_is_said(
    pieces, harvest_settings, tmp_path, threads
):
    torch.set_num_threads(threads + 1)
    write(prepare(harvest_settings(shards="3:5", out=str(tmp_path / "3"))))
    said = []
    merge([*pieces[:2], tmp_path / "3"], tmp_path / "store", said.append)
    [sentence] = said
    assert f'{{"threads":{threads}}}' in sentence
    assert f'{{"threads":{threads + 1}}}' in sentence


def test_of_two_merges_into_one_place_the_second_is_refused(pieces, tmp_path):
    (tmp_path / "store").mkdir()
    lock = take_lock(tmp_path / "store")
    with pytest.raises(BadInput, match="is being written by process"):
        merge(pieces, tmp_path / "store")
    unlock(lock, tmp_path / "store")


def test_the_commands_say_what_there_is_and_what_comes_next(
    rkstore, harvested, model_dir, text_file, tmp_path
):
    words = ("--model", model_dir, "--text", text_file, "--tokens", 288, "--context-size", 16)
    words += ("--shard-rows", 64, "--batch-size", 3, "--codec", "float16")
    for cut in CUTS:
        status, out, _ = rkstore("harvest", *words, "--shards", cut, "--out", cut[:1])
        assert status == 0
        assert "rows; 'rkstore merge' puts all pieces together" in out
    status, out, err = rkstore("merge", "0", "2", "3", "--out", "store")
    assert (status, err) == (0, "")
    assert harvested.manifest.fingerprint in out
    assert tree(tmp_path / "store") == tree(harvested.root)
    status, out, err = rkstore("merge", "0", "3", "--out", "store")
    assert (status, out) == (2, "")
    assert "shards 2:3 are in none of the pieces: harvest them with --shards 2:3" in err
