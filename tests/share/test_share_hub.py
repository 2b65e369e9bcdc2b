"""Stores in a dataset repository of the Hub, from a server on loopback that speaks its protocol."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import flip, tree
from hub_server import serving

from rkstore.store.files import JOURNAL, MANIFEST

SITE, OTHER = "blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"
URL = "hf://datasets/org/acts/demo"


@pytest.fixture
def store(make_store):
    return make_store("repository/demo")[0]


@pytest.fixture
def hub(store):
    with serving(store.root.parent) as server:
        yield server


@pytest.fixture
def python(hub, tmp_path):
    """Call it to run a program that finds the Hub on loopback."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    hub_variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def run(program, *words, **environment):
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *words],
            cwd=tmp_path,
            env=kept | hub_variables | environment,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def rkstore(python):
    """Call it with a command's words."""
    return lambda *words, **environment: python(
        "from rkstore.cli import main; main()", *words, **environment
    )


def test_a_store_is_pulled_to_the_same_bytes_with_one_request_a_file(hub, rkstore, store, tmp_path):
    done = rkstore("pull", URL)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "stores" / "demo") == tree(store.root)
    asked = [path for path in hub.asked if not path.startswith("/elsewhere/")]
    before = "/datasets/org/acts/resolve/main/demo/"
    listed = {MANIFEST, JOURNAL, "part.json", *store.files()}
    assert sorted(asked) == sorted(before + path for path in listed)


def test_of_one_layer_its_share_of_the_bytes_is_asked_for(hub, rkstore, store):
    done = rkstore("pull", URL, "--layers", "0", "--out", "copy")
    assert done.returncode == 0, done.stderr
    others = (f"{OTHER}/", "blocks.1.hook_mlp_out/")
    wanted = {p: f.bytes for p, f in store.files().items() if not p.startswith(others)}
    wanted |= {name: (store.root / name).stat().st_size for name in (MANIFEST, JOURNAL)}
    assert hub.served == {f"demo/{path}": count for path, count in wanted.items()}
    verified = rkstore("verify", "copy")
    assert (verified.returncode, "part    1 of 3 sites" in verified.stdout) == (0, True)


def test_rows_are_read_where_the_store_is(hub, python, store, tmp_path):
    program = """
        import numpy, rkstore, sys
        store = rkstore.open(sys.argv[1], cache="cache")
        numpy.save("rows.npy", store.read("blocks.0.mlp.hook_post", 70, 80))
    """
    done = python(program, URL)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), store.read(SITE, 70, 80))
    assert hub.served.keys() == {f"demo/{p}" for p in (MANIFEST, JOURNAL, f"{SITE}/c/1/0")}


def test_a_revision_is_named_behind_the_repository(hub, rkstore, store, tmp_path):
    done = rkstore("pull", "hf://datasets/org/acts@v1/demo")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "stores" / "demo") == tree(store.root)
    assert not any("/main/" in path for path in hub.asked)


def test_a_repository_that_is_not_there_is_one_sentence(rkstore):
    done = rkstore("pull", "hf://datasets/org/absent")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "there is no store at hf://datasets/org/absent" in line
    assert "if it is private, log in with 'hf auth login'" in line


def test_a_private_repository_is_read_with_the_token_that_only_the_hub_is_told(
    hub, rkstore, store, tmp_path
):
    hub.token = "hf_secret"
    assert rkstore("pull", URL).returncode == 2
    done = rkstore("pull", URL, HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "stores" / "demo") == tree(store.root)
    assert any(path.startswith("/elsewhere/") for path in hub.asked)
    assert hub.told_elsewhere == []


def test_a_file_that_was_damaged_there_is_refused(rkstore, store, tmp_path):
    flip(store.root / OTHER / "c" / "1" / "0", 5)
    done = rkstore("pull", URL)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{OTHER}/c/1/0 at {URL} is not what was recorded" in done.stderr
    assert not (tmp_path / "stores" / "demo" / OTHER / "c" / "1" / "0").exists()


def test_what_names_no_repository_says_how_one_is_named(rkstore):
    done = rkstore("pull", "hf://datasets/acts")
    assert done.returncode == 2
    assert "give hf://datasets/USER/NAME" in done.stderr
