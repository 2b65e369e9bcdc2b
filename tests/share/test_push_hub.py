"""Pushing to a dataset repository of the Hub, on a server on loopback that speaks its protocol."""

import os
import subprocess
import sys

import pytest
from conftest import flip, tree
from hub_server import WRITES, serving

URL = "hf://datasets/org/acts/demo"


@pytest.fixture
def hub(tmp_path):
    with serving({}) as server:
        server.home = tmp_path / "hub"
        yield server


@pytest.fixture
def rkstore(hub, tmp_path):
    """Call it with a command's words; the token may write unless another is given."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    kept |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITES}
    # Its own protocol for large files, which the server does not speak.
    kept |= {"HF_HUB_DISABLE_XET": "1", "RKSTORE_CACHE": str(tmp_path / "cache")}

    def run(*words, **environment):
        return subprocess.run(
            [sys.executable, "-c", "from rkstore.cli import main; main()", *map(str, words)],
            cwd=tmp_path,
            env=kept | environment,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def store(make_store):
    return make_store("store", rows=216 * 8, shard_rows=512)[0]


def succeeded(done):
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def refused(done, status=2):
    assert done.returncode == status, done.stderr
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("url", [URL, "hf://datasets/org/acts"])
def test_a_store_is_pushed_and_pulled_to_the_same_bytes(hub, rkstore, store, tmp_path, url):
    out = succeeded(rkstore("push", store.root, url))
    assert f"{url}: {len(store.files())} files" in out
    succeeded(rkstore("pull", url, "--out", "copy"))
    assert tree(tmp_path / "copy") == tree(store.root)
    assert hub.told_elsewhere == []


def test_it_is_a_few_commits_and_the_manifest_is_in_the_last(hub, rkstore, store):
    succeeded(rkstore("push", store.root, URL))
    assert len(hub.commits) == 3  # the files; what lists them, with the journal; the manifest
    assert "demo/manifest.json" not in {path for commit in hub.commits[:-1] for path in commit}
    assert "demo/manifest.json" in hub.commits[-1]


def test_what_is_there_is_not_sent_again(hub, rkstore, store):
    succeeded(rkstore("push", store.root, URL))
    commits, uploads = len(hub.commits), hub.uploads
    out = succeeded(rkstore("push", store.root, URL))
    assert f"0 files, 0 B; {len(store.files())} were there" in out
    assert (len(hub.commits), hub.uploads) == (commits, uploads)


def test_a_push_that_was_stopped_goes_on(hub, rkstore, store, tmp_path):
    hub.full = True
    line = refused(rkstore("push", store.root, URL), status=1)
    assert "cannot write to hf://datasets/org/acts/demo" in line
    assert "run the same command again to continue" in line
    hub.full = False
    succeeded(rkstore("push", store.root, URL))
    succeeded(rkstore("pull", URL, "--out", "copy"))
    assert tree(tmp_path / "copy") == tree(store.root)


def test_a_file_that_differs_there_is_sent_again(hub, rkstore, store, tmp_path):
    succeeded(rkstore("push", store.root, URL))
    path = next(p for p, f in store.files().items() if f.bytes > 1000)
    flip(hub.home / "acts" / "demo" / path, 20)
    hub.uploaded.clear()
    assert "1 files" in succeeded(rkstore("push", store.root, URL))
    succeeded(rkstore("pull", URL, "--out", "copy"))
    assert tree(tmp_path / "copy") == tree(store.root)


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_a_token_that_is_missing_or_wrong_is_one_sentence(hub, rkstore, store, token):
    line = refused(rkstore("push", store.root, URL, HF_TOKEN=token))
    assert "you may not write to hf://datasets/org/acts/demo: log in with 'hf auth login'" in line
    assert hub.repositories == {}


def test_another_store_there_is_refused(hub, rkstore, store, make_store):
    succeeded(rkstore("push", store.root, URL))
    other, _ = make_store("other", codec="int8")
    assert "another store" in refused(rkstore("push", other.root, URL))
    assert len(hub.commits) == 3


def test_of_two_pushes_at_once_one_is_refused_and_nothing_of_it_is_there(hub, rkstore, store):
    hub.rival = True
    line = refused(rkstore("push", store.root, URL))
    assert "was changed by another commit meanwhile: run the same command again" in line
    assert hub.commits == []


def test_the_card_says_what_it_is_and_how_it_is_read(hub, rkstore, store):
    succeeded(rkstore("push", store.root, URL))
    text = (hub.home / "acts" / "README.md").read_text()
    assert text.startswith("---\nlicense: other\n")
    for said in ("1,728 in blocks of 8", "see the text's licence", "`random", "rkstore.open("):
        assert said in text
    assert store.manifest.fingerprint in text


def test_a_card_that_is_there_is_kept(hub, rkstore, store):
    succeeded(rkstore("push", store.root, URL))
    (hub.home / "acts" / "README.md").write_text("mine")
    succeeded(rkstore("push", store.root, "hf://datasets/org/acts/again"))
    assert (hub.home / "acts" / "README.md").read_text() == "mine"


def test_a_file_that_a_gitignore_keeps_off_is_named(hub, rkstore, store):
    path = next(p for p, f in store.files().items() if f.bytes > 1000)
    hub.ignored.add(f"demo/{path}")
    line = refused(rkstore("push", store.root, URL), status=1)
    assert f"{path} was written to" in line
    assert ".gitignore" in line
