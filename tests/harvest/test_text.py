"""Files and datasets to documents: which text is really read, and what number it has."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rkstore.errors import BadInput, RkstoreError
from rkstore.harvest.ignored import NEEDS, OF_DATASETS
from rkstore.harvest.settings import HarvestSettings
from rkstore.harvest.text import plain
from rkstore.harvest.text import python as corpus
from rkstore.harvest.text.open import open_text
from rkstore.settings import options_in


def settings(**given: Any) -> HarvestSettings:
    return HarvestSettings(**given)


def jsonl(root: Path, rows: list[dict[str, Any]]) -> str:
    """A local dataset with one split, ``train``."""
    root.mkdir()
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def read(**given: Any) -> list[tuple[int, str]]:
    """Documents with their numbers."""
    return list(open_text(settings(**given)).documents)


def texts_of(**given: Any) -> list[str]:
    return [text for _, text in read(**given)]


def files(root: Path, contents: dict[str, str | bytes]) -> list[str]:
    """Files below a directory, and their paths in the order given."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        (root / name).write_bytes(raw)
    return [str(root / name) for name in contents]


def test_each_file_is_one_document_in_the_order_given(tmp_path):
    names = []
    for name, text in (("b.txt", "second\r\n"), ("a.txt", "först")):
        (tmp_path / name).write_bytes(text.encode())
        names.append(str(tmp_path / name))
    text = open_text(settings(text=tuple(names)))
    assert list(text.documents) == [(0, "second\r\n"), (1, "först")]
    assert [file["name"] for file in text.source["files"]] == ["b.txt", "a.txt"]
    assert text.source["files"][1] == {
        "name": "a.txt",
        "bytes": 6,
        "sha256": hashlib.sha256("först".encode()).hexdigest(),
    }


def test_a_seed_shuffles_the_documents_the_same_way_each_time(tmp_path):
    names = tuple(files(tmp_path, {f"{number}.txt": str(number) for number in range(8)}))
    kept, first, second = (texts_of(text=names, seed=seed) for seed in (0, 1, 2))
    assert kept == list("01234567")
    assert sorted(first) == sorted(second) == kept
    assert kept != first != second
    assert texts_of(text=names, seed=1) == first


def test_a_file_that_is_not_utf_8_is_refused_with_its_first_wrong_byte(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes("abc é".encode("latin1"))
    with pytest.raises(BadInput, match=r"not UTF-8 \(byte 4\).*iconv") as error:
        texts_of(text=(str(path),))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b" \n\t\n", "\ufeff\n".encode()])
def test_an_empty_file_is_refused_alone_and_passed_over_among_others(tmp_path, caplog, content):
    names = files(tmp_path, {"1.txt": "one", "empty.txt": content, "3.txt": "three"})
    with pytest.raises(BadInput, match=r"empty\.txt is empty"):
        texts_of(text=(names[1],))
    assert caplog.messages == []
    text = open_text(settings(text=tuple(names)))
    assert caplog.messages == ["empty.txt is empty and skipped"]
    assert list(text.documents) == [(0, "one"), (2, "three")]
    assert [file.get("empty", False) for file in text.source["files"]] == [False, True, False]


def test_of_many_empty_files_three_are_named_and_the_others_counted(tmp_path, caplog):
    names = files(tmp_path, {f"{number}.txt": "" for number in range(9)} | {"10.txt": "ten"})
    assert texts_of(text=tuple(names)) == ["ten"]
    assert caplog.messages == ["0.txt, 1.txt, 2.txt and 6 more are empty and skipped"]
    with pytest.raises(BadInput, match=r"0\.txt, 1\.txt, 2\.txt and 6 more are empty"):
        texts_of(text=tuple(names[:-1]))


def test_a_missing_file_is_refused_and_named(tmp_path):
    with pytest.raises(BadInput, match=r"missing\.txt: No such file"):
        texts_of(text=(str(tmp_path / "missing.txt"),))


@pytest.mark.parametrize("option", ["text", "dataset"])
def test_a_directory_of_text_files_is_a_document_a_file_in_natural_order(tmp_path, option):
    wanted = {"a/doc_1.txt": "1\n1", "doc_1.txt": "one", "doc_2.txt": "two\r\n", "doc_10.txt": "10"}
    files(tmp_path / "data", dict(sorted(wanted.items())))
    given = str(tmp_path / "data")
    text = open_text(settings(**{option: (given,) if option == "text" else given}))
    assert list(text.documents) == list(enumerate(wanted.values()))
    assert [file["name"] for file in text.source["files"]] == list(wanted)
    assert text.source.get("dataset") == ("data" if option == "dataset" else None)


def test_what_is_no_text_file_in_a_directory_is_left_out_and_that_is_said(tmp_path, caplog):
    files(
        tmp_path, {"1.txt": "one", "README.md": "me", "x.jsonl": "{}", ".hidden": "", "2.TXT": "2"}
    )
    assert texts_of(text=(str(tmp_path),)) == ["one", "2"]
    assert caplog.messages == [f"{tmp_path}: read for its .txt files; 2 others are left out"]


def test_what_a_dataset_leaves_out_of_a_directory_is_said(tmp_path, caplog):
    line = json.dumps({"text": "one"})
    files(tmp_path, {"a.jsonl": line, "b.jsonl": line, "c.txt": "two"})
    assert texts_of(dataset=str(tmp_path)) == ["one", "one"]
    assert caplog.messages == [f"{tmp_path}: read for its json files; 1 others are left out"]


def test_a_pattern_is_the_files_that_fit_it_in_natural_order(tmp_path, caplog):
    wanted = {"2.txt": "two", "10.txt": "ten", "a/1.txt": "1"}
    others = {"b.md": "b", ".hidden.txt": "h", "sub.txt/c.md": "c"}
    files(tmp_path / "data", dict(sorted((wanted | others).items())))
    text = open_text(settings(text=(f"{tmp_path}/data/**/*.txt",)))
    assert list(text.documents) == list(enumerate(wanted.values()))
    assert text.source == open_text(settings(text=(f"{tmp_path}/data",))).source
    assert texts_of(text=(f"{tmp_path}/data/[0-9]*.txt",)) == ["two", "ten"]
    caplog.clear()
    assert texts_of(text=(f"{tmp_path}/data/*.txt",)) == ["two", "ten"]
    said = f"{tmp_path}/data/*.txt: read for its files; 1 others are left out"
    assert caplog.messages == [said]
    with pytest.raises(BadInput, match=r"no file fits .*/data/\*\.rst'"):
        texts_of(text=(f"{tmp_path}/data/*.rst",))


def test_a_gzip_file_is_the_text_in_it(tmp_path):
    packed = gzip.compress("\ufeffone".encode(), mtime=0)
    paths = files(tmp_path / "data", {"10.txt.gz": packed, "2.txt.gz": packed, "3.gz": packed})
    text = open_text(settings(text=tuple(paths[:1])))
    assert list(text.documents) == [(0, "one")]
    digest = hashlib.sha256(packed).hexdigest()
    assert text.source["files"] == [{"name": "10.txt.gz", "bytes": len(packed), "sha256": digest}]
    assert texts_of(text=tuple(paths)) == ["one"] * 3
    found = open_text(settings(text=(str(tmp_path / "data"),))).source["files"]
    assert [file["name"] for file in found] == ["2.txt.gz", "10.txt.gz"]


GZIPPED = {
    "rows": gzip.compress(b'{"text": "one"}'),
    "packed": gzip.compress(gzip.compress(b"one")),
    "binary": gzip.compress(b"one\0two"),
    "cannot be unpacked": b"one",
    "cannot be unpacked ": gzip.compress(b"one" * 100)[:-9],
}


@pytest.mark.parametrize(("kind", "content"), GZIPPED.items(), ids=GZIPPED)
def test_a_gzip_file_that_holds_no_text_is_refused(tmp_path, kind, content):
    (path,) = files(tmp_path, {"a.txt.gz": content})
    with pytest.raises(BadInput, match=WAY.get(kind, kind.strip())) as error:
        texts_of(text=(path,))
    assert path in str(error.value)


def test_standard_input_is_one_document_wherever_it_stands(tmp_path, monkeypatch):
    one, three = files(tmp_path, {"1.txt": "one", "3.txt": "three"})
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"two\n")))
        text = open_text(settings(text=(one, "-", three)))
        assert list(text.documents) == [(0, "one"), (1, "two\n"), (2, "three")]
        digest = hashlib.sha256(b"two\n").hexdigest()
        assert text.source["files"][1] == {"name": "stdin", "bytes": 4, "sha256": digest}
    with pytest.raises(BadInput, match="twice: standard input can be read once"):
        open_text(settings(text=("-", one, "-")))


def test_a_directory_without_text_files_is_refused_with_what_to_do(tmp_path):
    jsonl(tmp_path / "data", [{"text": "one"}])
    with pytest.raises(BadInput, match=r"without \.txt files.*dataset"):
        texts_of(text=(str(tmp_path / "data"),))


def test_files_are_found_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files(tmp_path, {"a.txt": "one", "data/train.txt": "two"})
    assert texts_of(text=("~/a.txt",)) == ["one"]
    assert texts_of(dataset="~/data") == ["two"]
    assert texts_of(dataset="nobody/first", fallback=("~/data",)) == ["two"]


# What would be read as text and is none.

WAY = {
    "rows": "dataset",
    "ids": "tokenized.by",
    "packed": "unpack it",
    "markup": "take the text",
    "binary": "take the text",
}

# Contents that say what they are, whatever the file is called.
CONTENTS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "JSON lines": ("rows", lambda _: b'{"text": "a"}\n{"text": "b"}\n'),
    "JSON": ("rows", lambda _: b'\n[\n  {\n    "text": "a"\n  }\n]\n'),
    "JSON behind a byte-order mark": ("rows", lambda _: b'\xef\xbb\xbf{"text": "a"}'),
    "gzip": ("packed", lambda _: gzip.compress(b"text")),
    "bzip2": ("packed", lambda _: bz2.compress(b"text")),
    "xz": ("packed", lambda _: lzma.compress(b"text")),
    "zip": ("packed", lambda path: _zipped(path)),
    "HTML": ("markup", lambda _: b"\n<!DOCTYPE html>\n<p>text"),
    "XML": ("markup", lambda _: b'<?xml version="1.0"?><p>text</p>'),
    "RTF": ("markup", lambda _: rb"{\rtf1 text}"),
    "PDF": ("binary", lambda _: b"%PDF-1.7 text"),
    "a zero byte": ("binary", lambda _: b"text\0text"),
    "UTF-16 without a mark": ("binary", lambda _: "text".encode("utf-16-le")),
    "parquet": ("rows", lambda path: _parquet(path)),
    "npy": ("ids", lambda _: b"\x93NUMPY\x01\x00"),
}


def _zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    return path.read_bytes()


def _parquet(path: Path) -> bytes:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    return path.read_bytes()


@pytest.mark.parametrize(("kind", "content"), CONTENTS.values(), ids=CONTENTS)
def test_what_is_no_plain_text_is_known_by_its_content(tmp_path, kind, content):
    path = tmp_path / "story.txt"
    path.write_bytes(content(path))
    with pytest.raises(BadInput, match=WAY[kind]) as error:
        texts_of(text=(str(path),))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "end"), [(kind, end) for kind, ends in plain.ENDS.items() for end in ends]
)
def test_what_is_no_plain_text_is_known_by_its_name(tmp_path, kind, end, packed):
    (path,) = files(tmp_path, {f"data.{end.upper()}" + ".gz" * packed: "once upon a time"})
    with pytest.raises(BadInput, match=WAY[kind]):
        texts_of(text=(path,))


@pytest.mark.parametrize(
    "name", ["data.txt", "json", "README.md", "model.py", "a.json.txt", "ch.1"]
)
@pytest.mark.parametrize("text", ["[1] A list", '{"', "{} and []", "a <html>", "[]", "1\r\n2\r3"])
def test_plain_text_of_any_name_is_read_to_the_letter(tmp_path, name, text):
    (path,) = files(tmp_path, {name: text})
    assert texts_of(text=(path,)) == [text]


def test_a_dataset_of_one_file_is_read_for_what_is_in_it(tmp_path):
    line = json.dumps({"text": "one"}).encode()
    packed = {"a.gz": gzip.compress(line), "b.gz": gzip.compress(b"one"), "c.txt.gz": None}
    packed["c.txt.gz"] = packed["b.gz"]
    for path in files(tmp_path, {**packed, "d.txt": "one", "e": line, "f": "one"}):
        assert read(dataset=path) == [(0, "one")], path


def test_the_way_that_is_told_is_one_that_works(tmp_path):
    line = json.dumps({"text": "one"}) + "\n"
    paths = files(
        tmp_path,
        {
            "a.jsonl": line,
            "b.json": f"[{line}]",
            "c.csv": "\ufefftext,id\none,1\n",
            "d.tsv": "text\tid\none\t1\n",
            "e.jsonl.gz": gzip.compress(line.encode()),
            "g.ndjson": line,
        },
    )
    (tmp_path / "f.parquet").write_bytes(_parquet(tmp_path / "f.parquet"))
    for path in paths:
        with pytest.raises(BadInput, match=f"dataset {path}"):
            texts_of(text=(path,))
        text = open_text(settings(dataset=path))
        assert list(text.documents) == [(0, "one")]
        assert text.source["dataset"] == Path(path).name
    assert texts_of(dataset=str(tmp_path / "f.parquet")) == ["a"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (path,) = files(tmp_path, {"a.txt": "\ufeffone"})
    assert texts_of(text=(path,)) == ["one"]
    assert texts_of(dataset=path) == ["one"]
    assert texts_of(dataset=jsonl(tmp_path / "rows", [{"text": "\ufeffone"}])) == ["one"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_text_of_two_bytes_a_letter_is_refused_with_how_to_convert_it(tmp_path, encoding):
    text = "one" if encoding[-2:].isdigit() else "\ufeffone"
    (path,) = files(tmp_path, {"a.txt": text.encode(encoding)})
    with pytest.raises(BadInput, match=r"UTF-16.*iconv"):
        texts_of(text=(path,))


# Settings that nothing would read.


@pytest.mark.parametrize("name", OF_DATASETS)
@pytest.mark.parametrize("instead", ["text", "python"])
def test_a_setting_that_would_be_ignored_is_refused(tmp_path, name, instead):
    given = {"dataset": "a/b", "dataset_config": "c", "split": "test", "fallback": ("a/b",)}
    given |= {"whole_contexts": True, "shuffle_buffer": 5}
    usual = {"text": tuple(files(tmp_path, {"a.txt": "one"}))} if instead == "text" else {}
    if instead == "python":
        if name == "dataset":
            return
        usual = {"dataset": "python"}
    with pytest.raises(BadInput, match=f"{name.replace('_', '.')} would be ignored"):
        open_text(settings(**(usual | {name: given.get(name, "x")})))


@pytest.mark.parametrize("name", NEEDS)
def test_a_setting_that_needs_another_is_refused_without_it(name):
    given = {"whole_contexts": True, "shuffle_buffer": 5, "align": "text"}
    with pytest.raises(BadInput, match=f"{name} would be ignored without {NEEDS[name]}"):
        open_text(settings(**{name: given.get(name, "x")}))


OF_ROWS = {"id_column": "id", "text_column": "body", "chat_column": "x", "tokenized_by": "x"}


@pytest.mark.parametrize("name", OF_ROWS)
def test_text_files_and_python_as_a_dataset_have_no_columns(tmp_path, name):
    (path,) = files(tmp_path, {"a.txt": "one"})
    for dataset in (path, str(tmp_path)):
        with pytest.raises(BadInput, match=f"{name} would be ignored with .*text files"):
            open_text(settings(dataset=dataset, **{name: OF_ROWS[name]}))
    with pytest.raises(BadInput, match=f"{name} would be ignored with python"):
        open_text(settings(dataset="a/b", fallback=("python",), **{name: OF_ROWS[name]}))


def test_every_setting_of_a_dataset_is_in_the_list():
    options = {name: known.help for name, known in options_in(HarvestSettings).items()}
    assert set(OF_DATASETS) == {
        name
        for name, help in options.items()
        if help.lower().startswith(("dataset", "split", "stream the dataset"))
        or "the dataset" in help
    }


def test_a_dataset_on_disk_has_no_configuration(tmp_path):
    save(tmp_path / "data", {"train": ["one"]})
    with pytest.raises(BadInput, match="no configurations"):
        open_text(settings(dataset=str(tmp_path / "data"), dataset_config="small"))


# Datasets.


def save(root: Path, splits: dict[str, list[str | None]]) -> str:
    """A dataset as ``save_to_disk`` leaves it."""
    import datasets

    parts = {name: datasets.Dataset.from_dict({"text": rows}) for name, rows in splits.items()}
    datasets.DatasetDict(parts).save_to_disk(str(root))
    return str(root)


ROWS = [f"row {number}" for number in range(10)]


def as_saved(root: Path) -> str:
    return save(root, {"train": ROWS, "test": ["a test"]})


def as_rows(root: Path) -> str:
    """In two files, the first of seven rows."""
    half = {"train-1.jsonl": ROWS[:7], "train-2.jsonl": ROWS[7:], "test.jsonl": ["a test"]}
    lines = {k: "".join(json.dumps({"text": t}) + "\n" for t in v) for k, v in half.items()}
    files(root, dict(lines))
    return str(root)


def as_texts(root: Path) -> str:
    files(root, {f"train/{n}.txt": text for n, text in enumerate(ROWS)} | {"test/0.txt": "a test"})
    return str(root)


@pytest.fixture(scope="module", params=[as_saved, as_rows, as_texts])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset on this machine: ten rows in ``train``, one in ``test``."""
    made: str = request.param(tmp_path_factory.mktemp("local") / "data")
    return made


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", range(10)),
        ("train[:4]", range(4)),
        ("train[6:9]", range(6, 9)),
        ("train[8:]", range(8, 10)),
        ("train[5:100]", range(5, 10)),
        ("train[-3:]", range(7, 10)),
        ("train[:-8]", range(2)),
        ("train[10%:20%]", range(1, 2)),
        ("train[:25%]", range(2)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_slice_of_a_split_is_those_rows_under_their_own_numbers(local, split, rows, seed):
    documents = read(dataset=local, split=split, seed=seed)
    assert sorted(documents) == [(number, ROWS[number]) for number in rows]
    if len(rows) == 10:
        assert (documents == sorted(documents)) == (seed == 0)


def test_splits_can_be_joined(local):
    assert texts_of(dataset=local, split="test+train") == ["a test", *ROWS]
    assert sorted(texts_of(dataset=local, split="all")) == ["a test", *ROWS]


@pytest.mark.parametrize("split", ["train[:4", "train[a:b]", "train[1]", "train[:2]+test[:1]"])
def test_what_is_no_slice_is_refused_with_what_is_one(local, split):
    with pytest.raises(BadInput, match=r"split.*train\[:1000\]"):
        open_text(settings(dataset=local, split=split))


def test_a_slice_without_rows_is_refused(local):
    with pytest.raises(BadInput, match="has no rows"):
        open_text(settings(dataset=local, split="train[100:]"))


@pytest.mark.parametrize("split", ["dev", "dev[:4]", "train+dev"])
def test_a_split_that_is_not_there_is_named_with_those_that_are(local, split):
    with pytest.raises(BadInput, match=r"no split 'dev'.*train") as error:
        open_text(settings(dataset=local, split=split))
    assert "test" in str(error.value)


def test_a_dataset_saved_as_one_split_has_that_split(tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one"]}, split="test")
    data.save_to_disk(str(tmp_path / "data"))
    with pytest.raises(BadInput, match="no split 'train': it has test"):
        open_text(settings(dataset=str(tmp_path / "data")))
    assert texts_of(dataset=str(tmp_path / "data"), split="test") == ["one"]


def test_a_part_of_a_split_that_was_saved_is_that_split(tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one", "two"]}, split="train[:2]")
    data.save_to_disk(str(tmp_path / "data"))
    assert read(dataset=str(tmp_path / "data")) == [(0, "one"), (1, "two")]
    assert read(dataset=str(tmp_path / "data"), split="train[1:]") == [(1, "two")]


def test_a_dataset_is_recorded_under_its_name_and_not_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(jsonl(tmp_path / "data", [{"text": "one"}]))
    assert open_text(settings(dataset=".")).source["dataset"] == "data"


class Streamed:
    """``as_rows`` as if it lay on the Hub."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import datasets

        load, path = datasets.load_dataset_builder, as_rows(tmp_path / "there")
        monkeypatch.setattr(
            datasets, "load_dataset_builder", lambda *_, **given: load(path, **given)
        )

    def read(self, **given: Any) -> list[tuple[int, str]]:
        return read(dataset="org/data", **given)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Streamed:
    return Streamed(monkeypatch, tmp_path)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("split", "rows"), [("train[:4]", range(4)), ("train[6:9]", range(6, 9)), ("train[8:]", (8, 9))]
)
def test_a_slice_of_a_streamed_split_is_those_rows(streamed, split, rows, seed):
    documents = streamed.read(split=split, seed=seed)
    assert sorted(documents) == [(number, ROWS[number]) for number in rows]


@pytest.mark.parametrize("split", ["train[:10%]", "train[-3:]", "train[:-1]"])
def test_what_counts_from_the_end_of_a_stream_is_refused(streamed, split):
    with pytest.raises(BadInput, match=r"not known.*train\[1000:2000\].*dataset"):
        streamed.read(split=split)


def test_a_split_that_a_stream_does_not_have_is_refused(streamed):
    with pytest.raises(BadInput, match="no split 'dev': it has train, test"):
        streamed.read(split="dev")


def test_a_shuffled_stream_of_one_file_keeps_the_numbers_of_its_rows(streamed):
    (document,) = streamed.read(split="test", seed=1)
    assert document == (0, "a test")


def test_a_shuffled_stream_of_several_files_is_numbered_as_shuffled_and_that_is_recorded(streamed):
    text = open_text(settings(dataset="org/data", seed=1))
    assert text.source["numbered"] == "as shuffled"
    documents = list(text.documents)
    assert [number for number, _ in documents] == list(range(10))
    assert sorted(text for _, text in documents) == ROWS
    assert [text for _, text in documents] != ROWS
    assert documents == streamed.read(seed=1)
    assert "numbered" not in open_text(settings(dataset="org/data")).source


def test_blank_rows_are_counted(tmp_path, small_python):
    """Each source of text, shuffled or not: the number leads back to the row."""
    texts: list[str | None] = ["zero", "", "two", None, " ", "five"]
    lines = [{"text": text} for text in texts]
    sources: list[dict[str, Any]] = [
        {"dataset": save(tmp_path / "saved", {"train": texts})},
        {"dataset": jsonl(tmp_path / "rows", lines)},
        {"text": tuple(files(tmp_path, {f"{n}.txt": text or "" for n, text in enumerate(texts)}))},
    ]
    for source in sources:
        for seed in (0, 1, 2):
            documents = {n: text for n, text in read(**source, seed=seed) if text.strip()}
            assert documents == {0: "zero", 2: "two", 5: "five"}
    names = sorted(small_python)
    for number, text in read(dataset="python", seed=1):
        assert small_python[names[number]] == text


def test_the_same_local_dataset_is_read_and_described_the_same_each_time(tmp_path):
    rows = [{"text": f"document {i}"} for i in range(5)]
    name = jsonl(tmp_path / "data", rows)
    for seed in (0, 3):
        a, b = (open_text(settings(dataset=name, seed=seed)) for _ in range(2))
        assert a.source == b.source
        documents = list(a.documents)
        assert documents == list(b.documents)
        assert sorted(documents) == [(n, row["text"]) for n, row in enumerate(rows)]
        assert (documents == sorted(documents)) == (seed == 0)
    assert a.source["dataset"] == "data"
    assert a.source["split"] == "train"


@pytest.mark.parametrize("splits", [False, True])
def test_a_dataset_saved_to_disk_is_read_from_there(tmp_path, splits):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one", "two"]})
    saved = datasets.DatasetDict({"train": data}) if splits else data
    saved.save_to_disk(str(tmp_path / "saved"))
    assert texts_of(dataset=str(tmp_path / "saved")) == ["one", "two"]
    there = datasets.load_from_disk(str(tmp_path / "saved"))
    fingerprint = (there["train"] if splits else there)._fingerprint
    assert open_text(settings(dataset=str(tmp_path / "saved"))).source == {
        "dataset": "saved",
        "config": None,
        "split": "train",
        "fingerprint": fingerprint,
    }


def test_a_dataset_without_a_text_column_is_refused_with_the_columns_it_has(tmp_path):
    name = jsonl(tmp_path / "data", [{"body": "x", "id": 1}])
    with pytest.raises(BadInput, match=r"no 'text' column \(it has body, id\)") as error:
        open_text(settings(dataset=name))
    assert str(error.value).endswith(": give text_column body")
    text = open_text(settings(dataset=name, text_column="body"))
    assert list(text.documents) == [(0, "x")]
    assert text.source["column"] == "body"


@pytest.mark.parametrize("rows", [0, None])
def test_a_dataset_without_rows_is_refused(tmp_path, rows):
    if rows is None:
        import datasets

        empty = datasets.Dataset.from_dict({"text": []})
        empty.save_to_disk(str(tmp_path / "data"))
    else:
        jsonl(tmp_path / "data", [])
    with pytest.raises(RkstoreError, match="no rows"):
        texts_of(dataset=str(tmp_path / "data"))


ODD = ["what?", "a [1]", "all *", "zip::x"]


@pytest.mark.parametrize("name", ODD)
def test_a_directory_of_any_name_is_read_or_refused_for_its_name(tmp_path, name):
    if "::" not in name:
        assert texts_of(dataset=save(tmp_path / name, {"train": ["one"]})) == ["one"]
    (path,) = files(tmp_path / f"{name} text", {"a.txt": "one"})
    assert texts_of(text=(path,)) == texts_of(text=(str(Path(path).parent),)) == ["one"]
    with pytest.raises(BadInput, match="as a pattern: rename it"):
        texts_of(dataset=jsonl(tmp_path / f"{name} rows", [{"text": "one"}]))


def test_a_dataset_on_disk_whose_name_is_that_of_an_archives_file_is_refused(tmp_path):
    (tmp_path / "zip::x").mkdir()
    (tmp_path / "zip::x" / "dataset_dict.json").write_text("{}")
    with pytest.raises(BadInput, match="as a pattern: rename it without ::"):
        texts_of(dataset=str(tmp_path / "zip::x"))


def test_a_text_column_of_numbers_is_refused(tmp_path):
    name = jsonl(tmp_path / "data", [{"text": 12}, {"text": 13}])
    with pytest.raises(BadInput, match="text"):
        texts_of(dataset=name)


WAYS = {
    "tokens": ([1, 2], "tokenized_by NAME ids_column tokens"),
    "talk": ([{"role": "user", "content": "x"}], "chat_column talk"),
    "number": (12, "none of them holds texts, token ids or chats"),
}


@pytest.mark.parametrize(("column", "way"), WAYS.items(), ids=WAYS)
def test_what_the_columns_hold_says_how_to_read_them(tmp_path, column, way):
    value, said = way
    with pytest.raises(BadInput, match="no 'text' column") as error:
        texts_of(dataset=jsonl(tmp_path / "data", [{column: value}]))
    assert said in str(error.value)
    with pytest.raises(BadInput, match=r"holds (list|int), not texts") as error:
        texts_of(dataset=jsonl(tmp_path / "again", [{column: value}]), text_column=column)
    assert said in str(error.value)


def test_what_is_of_another_kind_further_down_is_refused_with_its_row(tmp_path):
    rows = [{"talk": [{"role": "user", "content": content}]} for content in ("a", "b", None)]
    with pytest.raises(BadInput, match=r"row 2 of .*data holds list, not chats") as error:
        read(dataset=jsonl(tmp_path / "data", rows), chat_column="talk")
    assert "role and content" in str(error.value)


def test_a_shuffle_buffer_streams_local_rows_and_is_recorded(tmp_path):
    name = jsonl(tmp_path / "data", [{"text": str(number)} for number in range(50)])
    text = open_text(settings(dataset=name, seed=1, shuffle_buffer=5))
    documents = list(text.documents)
    assert text.source["shuffle_buffer"] == 5
    assert documents == read(dataset=name, seed=1, shuffle_buffer=5)
    assert documents != sorted(documents) == [(number, str(number)) for number in range(50)]
    # A row is read from at most five of those that are not read yet: it cannot come early.
    assert all(number <= place + 5 for place, (number, _) in enumerate(documents))
    assert documents != read(dataset=name, seed=1)
    assert "shuffle_buffer" not in open_text(settings(dataset=name, seed=1)).source
    saved = save(tmp_path / "saved", {"train": ["one"]})
    with pytest.raises(BadInput, match=r"shuffle_buffer would be ignored with .* as a whole"):
        open_text(settings(dataset=saved, seed=1, shuffle_buffer=5))


def test_without_a_network_the_sentence_names_what_works_without_one():
    with pytest.raises(RkstoreError) as error:
        open_text(settings(dataset="nobody/no-such-dataset"))
    for part in ("nobody/no-such-dataset", "text FILE", "as dataset", "rkstore demo"):
        assert part in str(error.value)
    assert not isinstance(error.value, BadInput)


def test_the_default_is_wikitext_103_streamed_from_the_hub(monkeypatch):
    import datasets

    asked: list[Any] = []

    def load_dataset_builder(*names: Any, **options: Any) -> Any:
        asked.append((*names, options))
        rows = datasets.Dataset.from_dict({"text": ["one"]}).to_iterable_dataset()
        return SimpleNamespace(name="parquet", as_streaming_dataset=lambda: {"train": rows})

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    text = open_text(settings())
    assert asked == [("Salesforce/wikitext", "wikitext-103-raw-v1", {})]
    assert text.source == {
        "dataset": "Salesforce/wikitext",
        "config": "wikitext-103-raw-v1",
        "split": "train",
        "fingerprint": None,
    }


def test_a_fallback_is_read_only_when_asked_for_and_said_in_the_log_and_in_the_manifest(
    tmp_path, caplog
):
    name = jsonl(tmp_path / "data", [{"text": "one"}])
    text = open_text(settings(dataset="nobody/first", fallback=("nobody/second:config", name)))
    assert list(text.documents) == [(0, "one")]
    assert text.source["dataset"] == "data"
    assert text.source["asked"][2] == "data"
    assert text.source["asked"][:2] == ["nobody/first", "nobody/second:config"]
    first, second, third = caplog.messages
    assert first.startswith("nobody/first: ")
    assert "trying the next of --fallback" in first
    assert second.startswith("nobody/second: ")
    assert third == f"reading {name}"


def test_a_fallback_is_not_read_where_the_dataset_asked_for_is_there(tmp_path, caplog):
    first = jsonl(tmp_path / "first", [{"text": "one"}])
    second = jsonl(tmp_path / "second", [{"text": "two"}])
    text = open_text(settings(dataset=first, fallback=(second,)))
    assert list(text.documents) == [(0, "one")]
    assert text.source["dataset"] == "first"
    assert caplog.messages == [f"reading {first}"]


def test_a_fallback_does_not_stand_in_for_a_dataset_without_text(tmp_path):
    first = jsonl(tmp_path / "first", [{"body": "one"}])
    second = jsonl(tmp_path / "second", [{"text": "two"}])
    with pytest.raises(BadInput, match="no 'text' column"):
        open_text(settings(dataset=first, fallback=(second,)))


def test_where_no_dataset_of_the_list_can_be_had_each_is_named_with_its_reason():
    with pytest.raises(RkstoreError) as error:
        open_text(settings(dataset="nobody/first", fallback=("nobody/second",)))
    for part in ("nobody/first: ", "nobody/second: ", "text FILE", "rkstore demo"):
        assert part in str(error.value)


def test_a_configuration_stands_behind_a_colon(tmp_path):
    name = jsonl(tmp_path / "data", [{"text": "one"}])
    text = open_text(settings(dataset="nobody/first", fallback=(f"{name}:default",)))
    assert text.source["config"] == "default"


@pytest.fixture
def small_python(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two hundred documents in place of the eleven megabytes that every Python carries."""
    documents = {f"lib/{number}.py": f"x = {number}\n" for number in range(200)}
    monkeypatch.setattr(corpus, "_topics", lambda: {("topics/if", "an if statement")})
    monkeypatch.setattr(corpus, "_sources", lambda: set(documents.items()))
    return {**documents, "topics/if": "an if statement"}


def test_the_text_that_python_carries_is_a_dataset_without_a_network(small_python):
    text = open_text(settings(dataset="python"))
    names = sorted(small_python)
    assert [text for _, text in text.documents] == [small_python[name] for name in names]
    together = "".join(small_python[name] for name in names).encode()
    assert text.source == {
        "dataset": "python",
        "python": sys.version.split()[0],
        "documents": 201,
        "sha256": hashlib.sha256(together).hexdigest(),
    }
    shuffled = texts_of(dataset="python", seed=1)
    assert sorted(shuffled) == sorted(small_python.values())
    assert shuffled != [small_python[name] for name in names]


def test_training_and_held_out_documents_are_all_documents_each_once(small_python):
    parts = [dict(corpus.python_documents(part)) for part in ("train", "held-out")]
    assert parts[0] | parts[1] == dict(corpus.python_documents()) == small_python
    assert not parts[0].keys() & parts[1].keys()
    assert all(corpus.is_held_out(name) for name in parts[1])
    assert parts[1]


def test_pythons_manual_and_sources_are_the_text_and_nothing_generated_or_installed(
    tmp_path, monkeypatch
):
    left_out = (
        "test/test_re.py",
        "json/tests/test_x.py",
        "site-packages/torch/x.py",
        "json/__pycache__/x.py",
        "config-3.11-x86/x.py",
        "_sysconfigdata_linux.py",
        "encodings/cp1252.py",
        "notes.txt",
    )
    for name in ("re.py", "json/decoder.py", *left_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "latin1.py").write_bytes(b"# \xe9")
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda _: str(tmp_path))
    documents = list(corpus.python_documents())
    assert documents == sorted(documents)
    sources = {name: text for name, text in documents if not name.startswith("topics/")}
    assert sources == {"lib/re.py": "# re.py\n", "lib/json/decoder.py": "# json/decoder.py\n"}
    assert "statement" in dict(documents)["topics/if"]
    assert len(documents) > 70
