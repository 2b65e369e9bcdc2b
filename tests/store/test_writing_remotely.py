"""Writing a store at a URL, and shards made in attempts: what is recorded is never damaged."""

import pickle
import threading

import pytest
from conftest import make_manifest, make_values, shard_of, tree, write_store

from rkstore.errors import BadInput, DamagedStore, RkstoreError
from rkstore.share.merge import merge
from rkstore.share.pull import pull
from rkstore.share.push import push
from rkstore.share.settings import PullSettings
from rkstore.store.files import ASIDE, JOURNAL, LOCK
from rkstore.store.open import open_store
from rkstore.store.piece import Piece
from rkstore.store.places import retry
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.store.writing import destination
from rkstore.store.writing.destination import Destination
from rkstore.store.writing.remote import RemoteWriter
from rkstore.store.writing.whole import writer_at

SITE = "blocks.0.mlp.hook_post"
MANIFEST = make_manifest(codec="int8", sites={SITE: 6})
VALUES = make_values(MANIFEST)


class Interrupted(Exception):
    """Stands for whatever ends a writer between two shards."""


@pytest.fixture(autouse=True)
def _no_waiting_before_another_try(monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))


@pytest.fixture(params=["s3", "sftp"])
def url(request):
    """A new, empty place of each kind that has no locks."""
    return request.getfixturevalue({"s3": "bucket", "sftp": "sftp"}[request.param])


@pytest.fixture(params=["directory", "s3", "sftp"])
def place(request, tmp_path):
    """The same, and a directory."""
    if request.param == "directory":
        return str(tmp_path / "store")
    return request.getfixturevalue({"s3": "bucket", "sftp": "sftp"}[request.param])


@pytest.fixture
def local(tmp_path):
    """The files of the store as a local writer makes them."""
    write_store(tmp_path / "local", MANIFEST, VALUES)
    return tree(tmp_path / "local")


@pytest.fixture
def every_shard(monkeypatch):
    """The journal is written for every shard, not every half minute."""
    monkeypatch.setattr(Destination, "journal_seconds", 0)


def there(place):
    """Every file at a place, by path, also those that wait."""
    at = Destination(place)
    return {path: at.read(path, 2**20) for path in sorted(at._list())}


def write(place, shards=None, manifest=MANIFEST, values=VALUES):
    """Write that many of the missing shards, or all; returns those written."""
    with writer_at(place, manifest) as writer:
        todo = list(writer.missing)[:shards]
        for shard in todo:
            writer.write_shard(*shard_of(writer.manifest, values, shard))
    return todo


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Each thread of that name is a machine of its own, with its own cache."""
    name = threading.current_thread
    monkeypatch.setattr(destination, "default_cache", lambda: tmp_path / "of" / name().name)


def elsewhere(work):
    """What that ends with on another machine."""
    ended = []

    def one():
        try:
            ended.append(work())
        except RkstoreError as error:
            ended.append(error)

    thread = threading.Thread(target=one, name="elsewhere")
    thread.start()
    thread.join()
    return ended[0]


def test_a_store_written_at_a_url_has_the_files_of_a_local_one(url, local):
    assert write(url) == [0, 1, 2, 3]
    assert there(url) == local


def test_each_file_is_sent_once(bucket, monkeypatch):
    put, sent = Destination.put, []

    def counting(self, path, source):
        sent.append(path)
        put(self, path, source)

    monkeypatch.setattr(Destination, "put", counting)
    write(bucket)
    assert sorted(sent) == sorted(set(sent))


@pytest.mark.usefixtures("every_shard")
def test_several_sittings_end_with_the_same_files(url, local):
    assert [write(url, shards) for shards in (1, 0, 2)] == [[0], [], [1, 2]]
    assert write(url) == [3]
    assert there(url) == local
    assert write(url) == []
    assert there(url) == local


def test_a_writer_that_is_stopped_records_what_it_has(url, local):
    def stopped():
        with writer_at(url, MANIFEST) as writer:
            for shard in (0, 1):
                writer.write_shard(*shard_of(MANIFEST, VALUES, shard))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert len(open_store(url).records) == 2
    assert LOCK not in there(url)
    assert write(url) == [2, 3]
    assert there(url) == local


@pytest.mark.usefixtures("machine")
def test_a_writer_that_was_killed_is_continued_from_its_machine_alone(url, local, monkeypatch):
    put, left = Destination.put, [20]

    def die(self, path, source):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        put(self, path, source)

    with monkeypatch.context() as dying:
        dying.setattr(Destination, "put", die)
        dying.setattr(Destination, "remove", lambda *_: None)
        dying.setattr(RemoteWriter, "_close", lambda self, **_: self._held.close())
        dying.setattr(Destination, "journal_seconds", 0)
        with pytest.raises(Interrupted):
            write(url)
    recorded = len(open_store(url).records)
    assert 0 < recorded < 4
    refused = elsewhere(lambda: write(url))
    assert isinstance(refused, BadInput)
    assert "is being written by a push or harvest of" in refused.sentence
    assert write(url) == list(range(recorded, 4))
    assert there(url) == local


@pytest.mark.usefixtures("machine")
def test_a_second_writer_is_refused_and_a_push_as_well(url, tmp_path, local):  # noqa: ARG001
    with writer_at(url, MANIFEST) as writer:
        writer.write_shard(*shard_of(MANIFEST, VALUES, 0))
        for work in (lambda: write(url), lambda: push(tmp_path / "local", url)):
            refused = elsewhere(work)
            assert isinstance(refused, BadInput)
            assert "is being written by a push or harvest of" in refused.sentence
        with pytest.raises(BadInput, match="is being written by another process on this machine"):
            write(url)


@pytest.mark.usefixtures("every_shard")
def test_who_lost_the_claim_records_nothing_more(url):
    with writer_at(url, MANIFEST) as writer:
        writer.write_shard(*shard_of(MANIFEST, VALUES, 0))
        Destination(url).put_bytes(LOCK, f"{'0' * 16} other/{'1' * 32}\n".encode())
        before = Destination(url).read(JOURNAL, 2**20)
        with pytest.raises(BadInput, match="is being written by"):
            writer.write_shard(*shard_of(MANIFEST, VALUES, 1))
        assert Destination(url).read(JOURNAL, 2**20) == before
        with pytest.raises(BadInput, match="is being written by"):
            writer.close()
    assert Destination(url).read(JOURNAL, 2**20) == before
    assert LOCK in there(url)


@pytest.mark.usefixtures("every_shard")
def test_a_reader_sees_whole_shards_and_no_other(url):
    with writer_at(url, MANIFEST) as writer:
        assert open_store(url).rows == 0
        for shard in writer.missing:
            writer.write_shard(*shard_of(MANIFEST, VALUES, shard))
            store = open_store(url)
            assert store.rows == MANIFEST.rows_recorded(shard + 1)
            for name in MANIFEST.columns:
                assert (store.column(name) == VALUES[name][: store.rows]).all()
            for name in MANIFEST.hook_names:
                assert len(store.read(name)) == store.rows


def test_a_failure_before_the_first_shard_leaves_nothing(url):
    with pytest.raises(Interrupted), writer_at(url, MANIFEST):
        raise Interrupted
    assert there(url) == {}


def test_another_store_or_something_else_is_not_overwritten(url, tmp_path):
    write(url, 1)
    before = there(url)
    with pytest.raises(BadInput, match=r"another configuration.*codec: int8 there, float16 here"):
        write(url, manifest=make_manifest(codec="float16", sites={SITE: 6}))
    piece = Piece(MANIFEST, range(2), {})
    with pytest.raises(BadInput, match="choose another"):
        write(url, manifest=piece)
    assert there(url) == before
    other = f"{url}/other"
    (tmp_path / "file").write_bytes(b"mine")
    Destination(other).put("thesis.tex", tmp_path / "file")
    with pytest.raises(BadInput, match="is not empty and holds no store"):
        write(other)
    assert there(other) == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("url", ["hf://datasets/me/mine", "file:///tmp/x", "http://127.0.0.1/x"])
def test_where_no_store_can_be_written_shard_by_shard_that_is_said(url):
    with pytest.raises(BadInput, match=r"give a directory|can be read only"):
        write(url)


def test_what_was_written_there_can_be_pulled_and_pushed_again(url, tmp_path, local):
    write(url, 2)
    assert len(pull(url, PullSettings(out=str(tmp_path / "copy")))[0].records) == 2
    push(tmp_path / "local", url)
    assert there(url) == local


def test_shards_made_in_attempts_elsewhere_are_those_of_the_writer(place, local):
    with writer_at(place, MANIFEST) as writer:
        attempts = pickle.loads(pickle.dumps(writer.attempts()))
        made = [attempts.make(shard, filled(shard)) for shard in (1, 0, 3, 2)]
        for one in sorted(made, key=lambda one: one.record.shard):
            writer.record(one.record, one.attempt)
    assert there(place) == local


def test_an_attempt_that_comes_late_changes_nothing(place, local):
    with writer_at(place, MANIFEST) as writer:
        attempts = writer.attempts()
        made = attempts.make(0, filled(0))
        writer.record(made.record, made.attempt)
        # The numbers of another run of the model: they must not replace the first ones.
        attempts.make(0, filled(0, make_values(MANIFEST, seed=1)))
        for shard in (1, 2, 3):
            made = attempts.make(shard, filled(shard))
            writer.record(made.record, made.attempt)
        late = attempts.make(2, filled(2, make_values(MANIFEST, seed=1)))
        with pytest.raises(BadInput, match="not 2"):
            writer.record(late.record, late.attempt)
    assert there(place) == local


def test_an_attempt_that_outlives_its_writer_leaves_nothing_in_its_directory(tmp_path, local):
    with writer_at(tmp_path / "store", MANIFEST) as writer:
        attempts = writer.attempts()

        def late(encoder):
            filled(2)(encoder)
            writer.close()

        for shard in (0, 1):
            made = attempts.make(shard, filled(shard))
            writer.record(made.record, made.attempt)
        with pytest.raises(RkstoreError, match="cannot write"):
            attempts.make(2, late)
    with pytest.raises(BadInput, match="or its writer has ended"):
        attempts.make(2, filled(2))
    assert not (tmp_path / "store" / ASIDE).exists()
    assert write(tmp_path / "store") == [2, 3]
    assert tree(tmp_path / "store") == local


def test_an_attempt_that_fails_leaves_nothing(tmp_path):
    with writer_at(tmp_path / "store", MANIFEST) as writer:
        attempts = writer.attempts()
        with pytest.raises(BadInput, match="shard 0 has 64 rows, 0 were given"):
            attempts.make(0, lambda _: None)
        assert list((tmp_path / "store" / ASIDE / attempts.run).iterdir()) == []


def test_pieces_at_urls_are_merged_at_a_url(url, local, tmp_path):
    for first, last in ((0, 1), (1, 4)):
        assert write(f"{url}/{first}", manifest=Piece(MANIFEST, range(first, last), {})) == list(
            range(first, last)
        )
    with pytest.raises(BadInput, match="is shards 1:4 of a harvest, no store"):
        open_store(f"{url}/1")
    merge([f"{url}/1", f"{url}/0"], f"{url}/whole")
    assert there(f"{url}/whole") == local
    store = merge([f"{url}/0", f"{url}/1"], tmp_path / "whole")
    assert tree(store.root) == local
    assert list(verify(Store(tmp_path / "whole"))) == []


def test_a_piece_at_a_url_is_continued(bucket, monkeypatch):
    monkeypatch.setattr(Destination, "journal_seconds", 0)
    piece = Piece(MANIFEST, range(1, 4), {"threads": 2})
    assert write(bucket, 1, piece) == [1]
    with pytest.raises(BadInput, match=r"run: {\"threads\":2} there, {\"threads\":4} here"):
        write(bucket, 1, Piece(MANIFEST, range(1, 4), {"threads": 4}))
    assert write(bucket, manifest=piece) == [2, 3]


def test_a_damaged_journal_there_is_not_continued(bucket):
    write(bucket, 2)
    raw = bytearray(Destination(bucket).read(JOURNAL, 2**20))
    raw[200] ^= 1
    Destination(bucket).put_bytes(JOURNAL, bytes(raw))
    with pytest.raises(DamagedStore):
        write(bucket)


def filled(shard, values=VALUES):
    """What adds the rows of a shard to its encoder."""
    return lambda encoder: encoder.add(*shard_of(MANIFEST, values, shard))
