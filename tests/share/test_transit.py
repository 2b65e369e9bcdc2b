"""What a network does to a file on its way: dropped, cut, flipped, replaced; never put in place."""

import http.server
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from conftest import tree

from rkstore.errors import BadInput, DamagedStore, RkstoreError
from rkstore.share.pull import pull
from rkstore.share.settings import PullSettings
from rkstore.store import open as opening
from rkstore.store.files import JOURNAL, MANIFEST, PART, PIECE, record_of
from rkstore.store.places import retry
from rkstore.store.places.fetch import fetch
from rkstore.store.places.url import Location

FILE = "blocks.0.mlp.hook_post/c/1/0"


@pytest.fixture(autouse=True)
def _no_waiting_before_another_try(monkeypatch):
    monkeypatch.setattr(retry, "WAITS", (0, 0, 0))


class Faulty(http.server.BaseHTTPRequestHandler):
    """Sends files with ranges, each request with the fault that the server chooses for it."""

    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        with server.lock:
            server.asked[path] += 1
            number = server.asked[path]
        fault = server.fault(path.removeprefix("store/"), number)
        file = server.root / path
        if fault == "circle":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        if fault == "garbage":
            self.wfile.write(b"nothing that HTTP knows\r\n\r\n")
            return
        if not file.is_file() or fault == "gone":
            self.send_error(404)
            return
        content = bytearray(file.read_bytes())
        if fault == "replaced":
            content = bytearray(b"x" * len(content))
        if fault == "empty":
            content = bytearray()
        tag = f'"{hash(bytes(content))}"'
        start = 0
        asked = self.headers.get("Range", "")
        if asked and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        if fault == "flip" and content:
            content[len(content) // 2] ^= 0x10
        self.send_response(206 if start else 200)
        at = start - 1 if fault == "elsewhere" else start
        if start:
            self.send_header("Content-Range", f"bytes {at}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        if fault != "cut":
            self.send_header("Content-Length", str(len(content) - at))
        self.end_headers()
        half = (len(content) - at) // 2 if fault in ("drop", "cut") else len(content)
        with suppress(OSError):
            self.wfile.write(content[at : at + half])

    def log_message(self, *_):
        pass


@pytest.fixture
def faulty(tmp_path):
    """A server of the files under ``tmp_path``; ``fault(path, request)`` names what goes wrong."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.root, server.lock, server.asked = tmp_path, threading.Lock(), Counter()
    server.fault = lambda *_: ""
    server.url = f"http://127.0.0.1:{server.server_port}/store"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def first(faults):
    """Each of the faults in turn at the first requests for those paths, and then none."""
    return lambda path, number: dict(enumerate(faults.get(path, ()), 1)).get(number, "")


def pulled(server, out, **options):
    return pull(server.url, PullSettings(out=str(out), **options))[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_pull_finishes_though_of_all_answers_one_in_eight_is_bad(
    make_store, tmp_path, faulty, seed
):
    store, _ = make_store(rows=64 * 12)
    seen = Counter()

    def fault(path, number):
        drawn = random.Random(f"{seed} {path} {number}").random()
        name = "drop" if drawn < 0.05 else "cut" if drawn < 0.1 else "flip" if drawn < 0.12 else ""
        seen[name] += 1
        return name

    faulty.fault = fault
    assert tree(pulled(faulty, tmp_path / "copy").root) == tree(store.root)
    assert seen["drop"] + seen["cut"] + seen["flip"] > 5


@pytest.mark.parametrize("fault", ["cut", "flip", "drop"])
@pytest.mark.parametrize("path", [MANIFEST, JOURNAL, PART, FILE])
def test_what_was_damaged_in_transit_is_fetched_again(make_store, tmp_path, faulty, path, fault):
    make_store("whole")
    part, _ = pull(str(tmp_path / "whole"), PullSettings(out=str(tmp_path / "store"), layers="0"))
    faulty.fault = first({path: [fault, fault]})
    assert tree(pulled(faulty, tmp_path / "copy").root) == tree(part.root)


def test_what_stays_damaged_is_said_after_four_tries(make_store, tmp_path, faulty):
    make_store()
    for path, said in (
        (FILE, f"{FILE} at .* is not what was recorded .other bytes."),
        (JOURNAL, "of .*shards.jsonl"),
    ):
        faulty.asked.clear()
        faulty.fault = lambda asked, _, path=path: "flip" if asked == path else ""
        with pytest.raises(DamagedStore, match=said):
            pulled(faulty, tmp_path / "copy")
        assert faulty.asked[f"store/{path}"] == 4
        assert not (tmp_path / "copy" / FILE).exists()


def test_a_journal_that_stays_cut_is_no_smaller_store(make_store, tmp_path, faulty):
    make_store()
    faulty.fault = lambda path, _: "cut" if path == JOURNAL else ""
    with pytest.raises(DamagedStore, match=r"the last line of .*shards.jsonl has no end"):
        pulled(faulty, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_journal_that_came_empty_once_is_no_store_without_rows(make_store, tmp_path, faulty):
    store, _ = make_store()
    faulty.fault = first({JOURNAL: ["empty"]})
    assert tree(pulled(faulty, tmp_path / "copy").root) == tree(store.root)


def test_whoever_reads_fewer_shards_than_there_will_be_says_so(make_store, rkstore, caplog):
    """A journal that is shorter by whole lines is a smaller store, which is nothing to hide."""
    make_store(shards=2)
    train = "train --store pushed --layer 0 --d-sae 24 --k 4 --steps 2 --batch-size 16"
    for line in (
        "info store",
        "push store pushed",
        "pull store --out copy",
        "export copy --to npy --layer 0 --out exported",
        train,
        "verify store",
    ):
        caplog.clear()
        opening._say.cache_clear()  # each command is a process of its own
        status, out, err = rkstore(*line.split())
        assert status == 0, err
        assert (out + caplog.text).count("2 of 4 shards are there") == 1, line


def test_a_part_that_is_there_at_the_first_look_alone_is_looked_for_again(
    make_store, tmp_path, faulty
):
    """Then another file was sent for it, and there is none."""
    store, _ = make_store()
    whole = tree(store.root)
    (store.root / PART).write_bytes((store.root / MANIFEST).read_bytes())
    faulty.fault = lambda path, number: "gone" if path == PART and number > 1 else ""
    assert tree(pulled(faulty, tmp_path / "copy").root) == whole


def test_an_answer_that_is_none_is_asked_for_again(make_store, tmp_path, faulty):
    store, _ = make_store()
    faulty.fault = first({FILE: ["garbage", "garbage"]})
    assert tree(pulled(faulty, tmp_path / "copy").root) == tree(store.root)


@pytest.fixture
def large(tmp_path):
    """A file of which some has arrived when the line is cut."""
    (tmp_path / "store").mkdir()
    content = random.Random(0).randbytes(5 * 2**20)
    (tmp_path / "store" / "large").write_bytes(content)
    return content


def test_only_the_same_file_is_continued(large, faulty):
    faulty.fault = first({"large": ["drop", "replaced"]})
    with pytest.raises(DamagedStore, match="was replaced while it was being read"):
        b"".join(Location(faulty.url).blocks("large"))
    assert b"".join(Location(faulty.url).blocks("large")) == large


def test_a_range_that_was_not_asked_for_is_not_taken(large, faulty):
    faulty.fault = first({"large": ["drop", "elsewhere"]})
    assert b"".join(Location(faulty.url).blocks("large")) == large
    assert faulty.asked["store/large"] == 3


def test_a_redirect_that_leads_to_itself_is_one_sentence(make_store, tmp_path, faulty):
    make_store()
    faulty.fault = lambda *_: "circle"
    with pytest.raises(RkstoreError, match="from one address to the next without end"):
        pulled(faulty, tmp_path / "copy")


def test_a_server_that_has_no_store_is_asked_whether_it_is_a_piece_and_not_again(faulty, tmp_path):
    with pytest.raises(BadInput, match="there is no store at"):
        pulled(faulty, tmp_path / "copy")
    assert faulty.asked == {f"store/{MANIFEST}": 2, f"store/{PIECE}": 1}


class Together:
    """A place whose readers wait for one another in the middle of a file."""

    url = "memory://"

    def __init__(self, content, readers):
        self.content, self.meeting = content, threading.Barrier(readers)

    def blocks(self, path):  # noqa: ARG002 - it has one file
        yield self.content[:10]
        self.meeting.wait(10)
        yield self.content[10:]

    def until_whole(self, receive):
        receive()


def test_two_threads_that_fetch_one_file_at_once_both_put_it_there_whole(tmp_path):
    content = bytes(range(200))
    place = Together(content, readers=2)

    def one(_):
        fetch(place, "a/b", record_of(content), tmp_path, lambda _: None)
        return (tmp_path / "a" / "b").read_bytes()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [content, content]
