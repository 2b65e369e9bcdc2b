"""Files and datasets to documents: which text is really read, and what number it has."""

import gzip
import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rkstore import corpus, plain
from rkstore.errors import BadInput, RkstoreError
from rkstore.settings import HarvestSettings, default_of, flag_of
from rkstore.text import OF_DATASETS, open_text


def settings(**given: Any) -> HarvestSettings:
    return HarvestSettings(**given)


def jsonl(root: Path, rows: list[dict[str, Any]]) -> str:
    """A local dataset with one split, ``train``."""
    root.mkdir()
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def texts_of(**given: Any) -> list[str]:
    return list(open_text(settings(**given)).documents)


def test_each_file_is_one_document_in_the_order_given(tmp_path):
    names = []
    for name, text in (("b.txt", "second\r\n"), ("a.txt", "först")):
        (tmp_path / name).write_bytes(text.encode())
        names.append(str(tmp_path / name))
    text = open_text(settings(text=tuple(names)))
    assert list(text.documents) == ["second\r\n", "först"]
    assert [file["name"] for file in text.source["files"]] == ["b.txt", "a.txt"]
    assert text.source["files"][1] == {
        "name": "a.txt",
        "bytes": 6,
        "sha256": hashlib.sha256("först".encode()).hexdigest(),
    }


def test_a_seed_shuffles_the_documents_the_same_way_each_time(tmp_path):
    names = []
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(str(number))
        names.append(str(tmp_path / f"{number}.txt"))
    kept, first, second = (texts_of(text=tuple(names), seed=seed) for seed in (0, 1, 2))
    assert kept == list("01234567")
    assert sorted(first) == sorted(second) == kept
    assert kept != first != second
    assert texts_of(text=tuple(names), seed=1) == first


def test_a_file_that_is_not_utf_8_is_refused_with_its_first_wrong_byte(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes("abc é".encode("latin1"))
    with pytest.raises(BadInput, match=r"not UTF-8 \(byte 4\).*iconv") as error:
        texts_of(text=(str(path),))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "empty.txt").write_bytes(content)
    with pytest.raises(BadInput, match=r"empty\.txt is empty"):
        texts_of(text=(str(tmp_path / "empty.txt"),))


def test_a_missing_file_and_a_directory_are_refused_and_named(tmp_path):
    with pytest.raises(BadInput, match=r"missing\.txt: No such file"):
        texts_of(text=(str(tmp_path / "missing.txt"),))
    with pytest.raises(BadInput, match=f"{tmp_path.name}: Is a directory"):
        texts_of(text=(str(tmp_path),))


def test_the_same_local_dataset_is_read_and_described_the_same_each_time(tmp_path):
    rows = [{"text": f"document {i}"} for i in range(5)]
    name = jsonl(tmp_path / "data", rows)
    for seed in (0, 3):
        a, b = (open_text(settings(dataset=name, seed=seed)) for _ in range(2))
        assert a.source == b.source
        read = list(a.documents)
        assert read == list(b.documents)
        assert sorted(read) == [row["text"] for row in rows]
        assert (read == sorted(read)) == (seed == 0)
    assert a.source["dataset"] == "data"
    assert a.source["split"] == "train"


def test_a_directory_of_text_or_parquet_files_is_a_dataset(tmp_path):
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.txt").write_text("one\ntwo\n")
    assert texts_of(dataset=str(tmp_path / "lines")) == ["one", "two"]
    (tmp_path / "parquet").mkdir()
    table = pyarrow.table({"text": ["three", "four"], "id": [1, 2]})
    parquet.write_table(table, tmp_path / "parquet" / "test.parquet")
    assert texts_of(dataset=str(tmp_path / "parquet"), split="test") == ["three", "four"]


@pytest.mark.parametrize("splits", [False, True])
def test_a_dataset_saved_to_disk_is_read_from_there(tmp_path, splits):
    import datasets

    data = datasets.Dataset.from_dict({"text": ["one", "two"]})
    saved = datasets.DatasetDict({"train": data}) if splits else data
    saved.save_to_disk(str(tmp_path / "saved"))
    assert texts_of(dataset=str(tmp_path / "saved")) == ["one", "two"]


@pytest.mark.parametrize("saved", [False, True])
def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path, saved):
    if saved:
        import datasets

        data = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["one"]})})
        data.save_to_disk(str(tmp_path / "data"))
    else:
        jsonl(tmp_path / "data", [{"text": "one"}])
    with pytest.raises(RkstoreError, match=r"dev.*train"):
        texts_of(dataset=str(tmp_path / "data"), split="dev")


def test_a_dataset_without_a_text_column_is_refused_with_the_columns_it_has(tmp_path):
    name = jsonl(tmp_path / "data", [{"body": "x", "id": 1}])
    with pytest.raises(BadInput, match=r"no 'text' column \(it has body, id\)"):
        open_text(settings(dataset=name))


@pytest.mark.parametrize("rows", [0, None])
def test_a_dataset_without_rows_is_refused(tmp_path, rows):
    if rows is None:
        import datasets

        empty = datasets.Dataset.from_dict({"text": []})
        empty.save_to_disk(str(tmp_path / "data"))
    else:
        jsonl(tmp_path / "data", [])
    with pytest.raises(RkstoreError):
        texts_of(dataset=str(tmp_path / "data"))


def test_a_text_column_of_numbers_is_refused(tmp_path):
    name = jsonl(tmp_path / "data", [{"text": 12}, {"text": 13}])
    with pytest.raises(BadInput, match="text"):
        blocks_of(open_text(settings(dataset=name)).documents, context_size=2)


def test_a_row_without_a_text_is_left_out_or_refused(tmp_path):
    name = jsonl(tmp_path / "data", [{"text": "one"}, {"text": None}, {"text": "two"}])
    try:
        blocks = blocks_of(
            open_text(settings(dataset=name)).documents, context_size=7, prepend_bos=False
        )
    except BadInput:
        return
    assert blocks.ids.tolist() == [[*b"one", SEPARATOR, *b"two"]]


def test_without_a_network_the_sentence_names_what_works_without_one():
    with pytest.raises(RkstoreError) as error:
        open_text(settings(dataset="nobody/no-such-dataset"))
    for part in ("nobody/no-such-dataset", "--text", "--dataset", "rkstore demo"):
        assert part in str(error.value)
    assert not isinstance(error.value, BadInput)


def test_the_default_is_wikitext_103_streamed_from_the_hub(monkeypatch):
    import datasets

    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((*names, options))
        return [{"text": "one"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    text = open_text(settings())
    assert asked == [
        (
            "Salesforce/wikitext",
            "wikitext-103-raw-v1",
            {"split": "train", "streaming": True},
        )
    ]
    assert text.source["dataset"] == "Salesforce/wikitext"
    assert text.source["config"] == "wikitext-103-raw-v1"
    assert "asked" not in text.source


def test_a_fallback_is_read_only_when_asked_for_and_said_on_stderr_and_in_the_manifest(
    tmp_path, capsys
):
    name = jsonl(tmp_path / "data", [{"text": "one"}])
    text = open_text(settings(dataset="nobody/first", fallback=("nobody/second:config", name)))
    assert list(text.documents) == ["one"]
    assert text.source["dataset"] == "data"
    assert text.source["asked"][2] == "data"
    assert text.source["asked"][:2] == ["nobody/first", "nobody/second:config"]
    said = capsys.readouterr()
    assert said.out == ""
    first, second, third = said.err.splitlines()
    assert first.startswith("nobody/first: ")
    assert "trying the next of --fallback" in first
    assert second.startswith("nobody/second: ")
    assert third == f"reading {name}"


def test_a_fallback_is_not_read_where_the_dataset_asked_for_is_there(tmp_path, capsys):
    first = jsonl(tmp_path / "first", [{"text": "one"}])
    second = jsonl(tmp_path / "second", [{"text": "two"}])
    text = open_text(settings(dataset=first, fallback=(second,)))
    assert list(text.documents) == ["one"]
    assert text.source["dataset"] == "first"
    assert capsys.readouterr().err == f"reading {first}\n"


def test_a_fallback_does_not_stand_in_for_a_dataset_without_text(tmp_path):
    first = jsonl(tmp_path / "first", [{"body": "one"}])
    second = jsonl(tmp_path / "second", [{"text": "two"}])
    with pytest.raises(BadInput, match="no 'text' column"):
        open_text(settings(dataset=first, fallback=(second,)))


def test_where_no_dataset_of_the_list_can_be_had_each_is_named_with_its_reason():
    with pytest.raises(RkstoreError) as error:
        open_text(settings(dataset="nobody/first", fallback=("nobody/second",)))
    for part in ("nobody/first: ", "nobody/second: ", "--text", "rkstore demo"):
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
    assert list(text.documents) == [small_python[name] for name in names]
    together = "".join(small_python[name] for name in names).encode()
    assert text.source == {
        "dataset": "python",
        "python": sys.version.split()[0],
        "documents": 201,
        "sha256": hashlib.sha256(together).hexdigest(),
    }
    shuffled = list(open_text(settings(dataset="python", seed=1)).documents)
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
