"""Pushing: who may write to a place, and what counts as there already."""

import threading

import pytest
from conftest import flip, tree

from rkstore.errors import BadInput, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.settings import PullSettings
from rkstore.store.files import JOURNAL, LOCK, MANIFEST, record_of
from rkstore.store.places import retry
from rkstore.store.writing import destination
from rkstore.store.writing.destination import Destination

SITE = "blocks.0.mlp.hook_post"


@pytest.fixture(autouse=True)
def _no_waiting_before_another_try(monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))


@pytest.fixture(params=["directory", "s3", "sftp"])
def place(request, tmp_path):
    """A new, empty place of each kind."""
    if request.param == "directory":
        return str(tmp_path / "remote")
    return request.getfixturevalue({"s3": "bucket", "sftp": "sftp"}[request.param])


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Each thread of that name is a machine of its own, with its own cache."""
    name = threading.current_thread
    monkeypatch.setattr(destination, "default_cache", lambda: tmp_path / "of" / name().name)


def at_once(*pushes):
    """What each of several pushes that start together ended with, each from its own machine."""
    ready, ended = threading.Barrier(len(pushes)), [None] * len(pushes)

    def one(number):
        ready.wait()
        try:
            ended[number] = push(*pushes[number])
        except RkstoreError as error:
            ended[number] = error

    threads = [threading.Thread(target=one, args=(n,), name=f"{n}") for n in range(len(pushes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def pulled(url, out):
    return tree(pull(str(url), PullSettings(out=str(out)))[0].root)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("attempt", range(2))
def test_of_two_pushes_at_once_one_succeeds_and_one_is_refused(
    make_store, tmp_path, place, attempt
):
    stores = [make_store("one", seed=attempt)[0], make_store("two", codec="int8")[0]]
    ended = at_once(*((store.root, place) for store in stores))
    [refused] = [end for end in ended if isinstance(end, BadInput)]
    assert "is being written by" in str(refused) or "another store" in str(refused)
    [pushed] = [s for s, end in zip(stores, ended, strict=True) if end is not refused]
    assert pulled(place, tmp_path / "copy") == tree(pushed.root)
    assert LOCK not in Destination(place)._list()


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", ["bucket", "sftp"])
def test_the_claim_of_a_push_that_died_is_taken_over_from_there_alone(
    make_store, tmp_path, kind, request, monkeypatch
):
    place = request.getfixturevalue(kind)
    store, other = make_store()[0], make_store("other", codec="int8")[0]
    put, left = Destination.put, [3]

    def die(self, path, file):
        left[0] -= 1
        if not left[0]:
            raise RkstoreError("died")
        put(self, path, file)

    with monkeypatch.context() as dying:
        dying.setattr(Destination, "put", die)
        dying.setattr(Destination, "remove", lambda *_: None)
        with pytest.raises(RkstoreError, match="died"):
            push(store.root, place)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(destination, "default_cache", lambda: tmp_path / "elsewhere")
        with pytest.raises(BadInput, match=f"of {store.manifest.fingerprint} from .*remove"):
            push(store.root, place)
    with pytest.raises(BadInput, match="is being written by a push or harvest of"):
        push(other.root, place)
    assert push(store.root, place).present >= 2
    assert pulled(place, tmp_path / "copy") == tree(store.root)
    assert LOCK not in Destination(place)._list()


def overwrite(place, path, content, tmp_path):
    (tmp_path / "changed").write_bytes(content)
    Destination(place).put(path, tmp_path / "changed")


def test_a_file_that_was_overwritten_there_is_sent_again(make_store, tmp_path, place):
    store, _ = make_store()
    push(store.root, place)
    path = f"{SITE}/c/1/0"
    content = bytearray((store.root / path).read_bytes())
    content[4:8] = b"four"
    overwrite(place, path, content, tmp_path)
    overwrite(
        place,
        f"{SITE}/zarr.json",
        b"{" * (store.root / SITE / "zarr.json").stat().st_size,
        tmp_path,
    )
    moved = push(store.root, place)
    assert (moved.files, moved.present) == (1, len(store.files()) - 1)
    assert pulled(place, tmp_path / "copy") == tree(store.root)
    assert push(store.root, place).files == 0


@pytest.mark.parametrize("parts", [2**20, 100])
def test_what_s3_says_of_a_file_of_parts_is_compared(tmp_path, bucket, monkeypatch, parts):
    """A checksum that rkstore knows how to make is compared; of any other the file is read."""
    content = b"abcdefgh" * (13 * 2**17)
    file = tmp_path / "large"
    file.write_bytes(content)
    place = Destination(bucket)
    place._fs.put_file(str(file), place._at("large"), chunksize=5 * 2**20)
    monkeypatch.setattr(destination, "S3_PART_BYTES", 5 * 2**20 if parts == 2**20 else 10**7)
    read = []
    plain = Destination.blocks
    monkeypatch.setattr(
        Destination, "blocks", lambda self, path: (read.append(path), plain(self, path))[1]
    )
    place._list()
    assert place._listed["large"].tag.endswith("-3")
    assert place.has("large", record_of(content), file)
    assert read == [] if parts == 2**20 else ["large"]


def test_a_push_that_stopped_before_its_first_journal_sends_nothing_twice(
    make_store, tmp_path, place, monkeypatch
):
    store, _ = make_store()
    put, sent = Destination.put, []

    def stop_at_the_last(self, path, file):
        if len(sent) >= 20:
            raise RkstoreError("stopped")
        put(self, path, file)
        sent.append(path)

    with monkeypatch.context() as stopping:
        stopping.setattr(Destination, "put", stop_at_the_last)
        with pytest.raises(RkstoreError, match="stopped"):
            push(store.root, place)
    assert JOURNAL not in sent
    assert push(store.root, place).present == len(sent)
    assert pulled(place, tmp_path / "copy") == tree(store.root)


def test_what_differs_here_and_is_right_there_is_left_alone(make_store, place):
    store, _ = make_store()
    push(store.root, place)
    flip(store.root / SITE / "c" / "1" / "0", 5)
    assert push(store.root, place).files == 0


def not_kept(monkeypatch, kept):
    """Let S3 acknowledge what it does not keep."""
    put = Destination._put
    monkeypatch.setattr(
        Destination, "_put", lambda self, path, file: kept(path) and put(self, path, file)
    )


@pytest.mark.parametrize("path", [f"{SITE}/c/1/0", JOURNAL, MANIFEST])
def test_what_s3_acknowledged_and_did_not_keep_is_said_and_sent_again(
    make_store, tmp_path, bucket, path, monkeypatch
):
    store, _ = make_store()
    with monkeypatch.context() as losing:
        not_kept(losing, lambda sent: sent != path)
        with pytest.raises(RkstoreError, match=f"{path} was written to .* it is not there: run"):
            push(store.root, bucket)
    push(store.root, bucket)
    assert pulled(bucket, tmp_path / "copy") == tree(store.root)


def test_what_s3_did_not_replace_is_said(make_store, tmp_path, bucket, monkeypatch):
    store, _ = make_store()
    path = f"{SITE}/c/1/0"
    content = bytearray((store.root / path).read_bytes())
    push(store.root, bucket)
    content[4:8] = b"four"
    overwrite(bucket, path, content, tmp_path)
    with monkeypatch.context() as losing:
        not_kept(losing, lambda _: False)
        with pytest.raises(RkstoreError, match=f"{path} was written to .* it is not there"):
            push(store.root, bucket)
    assert push(store.root, bucket).files == 1


@pytest.mark.parametrize("kind", ["bucket", "sftp"])
def test_what_cannot_be_read_there_is_sent_again(make_store, tmp_path, kind, request, monkeypatch):
    place = request.getfixturevalue(kind)
    store, _ = make_store()
    push(store.root, place)
    path, blocks = f"{SITE}/c/1/0", Destination.blocks
    overwrite(place, path, b"other", tmp_path)

    def damaged(self, asked):
        if asked == path:
            raise RkstoreError("the checksum of what arrived is another")
        return blocks(self, asked)

    with monkeypatch.context() as damaging:
        damaging.setattr(Destination, "blocks", damaged)
        assert push(store.root, place).files == 1
    assert pulled(place, tmp_path / "copy") == tree(store.root)
