"""Nothing in a stranger's store moves the cursor, ends a line or turns the direction of reading."""

import sys

import pytest
from conftest import make_manifest, make_values, write_store

from rkstore.cli import streams
from rkstore.cli.streams import plain
from rkstore.errors import warn
from rkstore.store.store import Store

FORGED = "everything is as recorded"
EVIL = f"x\x1b[2K\r\x07\x9b1A\u202e\u2066\u200b\n{FORGED}\x00"
SOURCE = {"model": {"name": EVIL, "dtype": EVIL}, "text": {"dataset": EVIL, "split": EVIL}}


@pytest.fixture
def evil(tmp_path) -> Store:
    manifest = make_manifest(source=SOURCE)
    write_store(tmp_path / "evil", manifest, make_values(manifest))
    return Store(tmp_path / "evil")


def assert_harmless(*printed: str) -> None:
    for line in "".join(printed).split("\n"):
        assert line.isprintable(), line
        assert not line.startswith(FORGED)


def test_what_is_seen_stays_and_all_else_is_its_number():
    assert plain("größe 模型 ‖x‖²") == "größe 模型 ‖x‖²"
    assert plain("a\x1b[2Jb\n\u202e\udcff") == r"a\x1b[2Jb\n\u202e\udcff"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_info_of_a_strangers_store_prints_its_own_lines_alone(evil, rkstore, options):
    status, out, err = rkstore("info", evil.root, *options)
    assert status == 0
    assert FORGED in out
    assert_harmless(out, err)


def test_verify_prints_one_line_for_each_file_whatever_its_name_is(evil, rkstore):
    (evil.root / EVIL.replace("\0", "")).write_text("mine")
    status, out, err = rkstore("verify", evil.root)
    assert status == 1
    assert FORGED in err
    assert_harmless(out, err)


def test_a_pull_that_names_what_differs_prints_one_line(evil, make_store, rkstore):
    store, _ = make_store()
    status, out, err = rkstore("pull", evil.root, "--out", store.root)
    assert status == 2
    assert FORGED in err
    assert_harmless(out, err)


def test_what_the_package_has_to_say_is_one_harmless_line_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # it is wrapped
    streams.prepare()
    streams.prepare()
    warn("a\x1b[2J\nb: read for its .txt files")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "a\\x1b[2J\\nb: read for its .txt files\n")
