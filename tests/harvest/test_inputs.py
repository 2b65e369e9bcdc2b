"""Every kind of input gives the store that the same text gives by ``--text``."""

import gzip
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import END, tree

from rkstore.errors import BadInput
from rkstore.harvest.chat import DATE
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.store import Store

CONTEXT, WIDE = 16, 20

Options = dict[str, Any]


@pytest.fixture(scope="module")
def texts(model) -> list[str]:
    """Eight texts of :data:`WIDE` tokens each, one of them twice as long, and a blank one."""
    words, draw, found = ["the", "cat", "sat", "über", "mat", ",", "rivers"], random.Random(1), []
    while len(found) < 8:
        text = " ".join(draw.choices(words, k=12))
        tokens = model.tokenizer(text)["input_ids"]
        if len(tokens) == WIDE and text not in found:
            found.append(text)
    return [found[0], "", found[1] + "\n" + found[2], *found[3:]]


@pytest.fixture
def harvest(harvest_settings, tmp_path) -> Callable[..., Store]:
    """Call it with options; returns the store."""

    def make(out: str = "store", **options: Any) -> Store:
        usual: Options = {"tokens": 7 * CONTEXT, "shard_rows": 32, "layers": "1", "text": ()}
        return run(prepare(harvest_settings(**(usual | {"out": str(tmp_path / out)} | options))))

    return make


@pytest.fixture(scope="module")
def expected(harvest_settings, texts, tmp_path_factory) -> Store:
    """The store of the same texts by ``--text``."""
    root = tmp_path_factory.mktemp("expected")
    options: Options = {"tokens": 7 * CONTEXT, "shard_rows": 32, "layers": "1"}
    paths = tuple(write_texts(root / "data", texts))
    return run(prepare(harvest_settings(**options, text=paths, out=str(root / "store"))))


@pytest.fixture
def refusal(harvest) -> Callable[..., str]:
    """Call it with options that must be refused; returns the sentence."""

    def make(**options: Any) -> str:
        with pytest.raises(BadInput) as error:
            harvest(**options)
        assert "\n" not in error.value.sentence
        return error.value.sentence

    return make


@pytest.fixture(scope="module")
def chat_dir(model_dir, tmp_path_factory) -> Path:
    """The tokenizer of the model, with a template that writes BOS, the contents and no more."""
    return _with_template(
        model_dir,
        tmp_path_factory.mktemp("chat") / "chat",
        "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}",
    )


def _with_template(model_dir: Path, out: Path, template: str) -> Path:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(out)
    return out


def write_texts(root: Path, texts: list[str], end: str = ".txt") -> list[str]:
    """A file for each text, in order."""
    root.mkdir(parents=True)
    for number, text in enumerate(texts):
        raw = text.encode()
        name = root / f"{number}{end}"
        name.write_bytes(gzip.compress(raw, mtime=0) if end.endswith(".gz") else raw)
    return [str(root / f"{number}{end}") for number in range(len(texts))]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def made(texts, model, chat_dir, model_dir, tmp_path, monkeypatch) -> dict[str, Any]:
    return {
        "texts": texts,
        "ids": [model.tokenizer(text)["input_ids"] if text else [] for text in texts],
        "bos": model.bos,
        "model": str(model_dir),
        "chat": str(chat_dir),
        "root": tmp_path,
        "monkeypatch": monkeypatch,
    }


def as_text(end: str, how: str) -> Callable[[Any], Options]:
    def write(made: Any) -> Options:
        paths = write_texts(made["root"] / "data" / "sub", made["texts"], end)
        root = made["root"] / "data"
        return {"text": {"files": tuple(paths), "a directory": str(root)}.get(how, f"{root}/{how}")}

    return write


def as_stdin(made: Any) -> Options:
    paths = write_texts(made["root"] / "data", made["texts"])
    stdin = SimpleNamespace(buffer=io.BytesIO(made["texts"][2].encode()))
    made["monkeypatch"].setattr(sys, "stdin", stdin)
    return {"text": (*paths[:2], "-", *paths[3:])}


def as_text_dataset(made: Any) -> Options:
    write_texts(made["root"] / "data", made["texts"])
    return {"dataset": str(made["root"] / "data")}


def as_rows(name: str, column: str = "text") -> Callable[[Any], Options]:
    def write(made: Any) -> Options:
        path = made["root"] / name
        rows = [{column: text, "number": n} for n, text in enumerate(made["texts"])]
        _write(path, rows)
        return {"dataset": str(path)} | ({} if column == "text" else {"text_column": column})

    return write


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows in the format that a file's name says."""
    import datasets
    import pandas

    raw = {".json": json.dumps(rows).encode(), ".parquet": b"", ".csv": b"", "": b""}
    end = Path(path.name.removesuffix(".gz")).suffix
    if end == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif end == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif path.name == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    else:
        content = raw.get(end) or lines(rows)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def as_ids(
    name: str, column: str, bos: bool = False, pad: bool = False
) -> Callable[[Any], Options]:
    def write(made: Any) -> Options:
        rows = []
        for ids in made["ids"]:
            own = [made["bos"], *ids] if bos and ids else ids
            more = 45 - len(own) if pad else 0
            row: dict[str, Any] = {column: own + [made["bos"]] * more}
            if pad:
                row["attention_mask"] = [1] * len(own) + [0] * more
            rows.append(row)
        path = made["root"] / name
        _write(path, rows)
        asked = {} if column in ("input_ids", "tokens") else {"ids_column": column}
        return {"dataset": str(path), "tokenized_by": made["model"], **asked}

    return write


def as_chat(made: Any) -> Options:
    chats = [[{"role": "user", "content": t}] if t else [] for t in made["texts"]]
    _write(made["root"] / "chat.jsonl", [{"messages": chat} for chat in chats])
    dataset = str(made["root"] / "chat.jsonl")
    return {"dataset": dataset, "chat_column": "messages", "tokenizer": made["chat"]}


INPUTS: dict[str, Callable[[Any], Options]] = {
    "text directory": as_text(".txt", "a directory"),
    "text pattern": as_text(".txt", "**/*.txt"),
    "text gzip": as_text(".txt.gz", "files"),
    "text gzip directory": as_text(".txt.gz", "a directory"),
    "stdin": as_stdin,
    "dataset of text files": as_text_dataset,
    "jsonl": as_rows("a.jsonl"),
    "jsonl.gz": as_rows("a.jsonl.gz"),
    "gz": as_rows("a.gz"),
    "json": as_rows("a.json"),
    "parquet": as_rows("a.parquet"),
    "csv": as_rows("a.csv"),
    "saved": as_rows("saved"),
    "text column": as_rows("a.parquet", "body"),
    "ids": as_ids("a.jsonl", "input_ids"),
    "ids in parquet with BOS": as_ids("a.parquet", "tokens", bos=True),
    "ids saved with padding": as_ids("saved", "input_ids", bos=True, pad=True),
    "ids of another column": as_ids("a.parquet", "ids"),
    "chat": as_chat,
}

# What a manifest says of where the text came from, besides the name of what was given.
RECORDED: dict[str, tuple[str, ...]] = {
    "text column": ("column",),
    **{name: ("column", "tokenized_by", "rows") for name in INPUTS if name.startswith("ids")},
    "chat": ("column", "chat_template"),
}

# A manifest names the source, and these name the manifest.
OF_SOURCE = ("manifest.json", "shards.jsonl", "zarr.json")


def rows_of(store: Store, *without: str) -> dict[str, bytes]:
    """The files of a store that hold rows."""
    files = {k: v for k, v in tree(store.root).items() if not k.endswith(OF_SOURCE)}
    return {k: v for k, v in files.items() if k.partition("/")[0] not in without}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_gives_the_same_rows_as_the_same_text_in_files(name, harvest, made, expected):
    options = INPUTS[name](made)
    store = harvest(**options)
    assert rows_of(store) == rows_of(expected)
    assert set(store.column("document")) == {0, 2, 3, 4, 5}
    source = store.manifest.source["text"]
    assert ("dataset" in source) == ("dataset" in options)
    for key in RECORDED.get(name, ()):
        assert source[key]
    assert ("column" in source) == ("column" in RECORDED.get(name, ()))


def test_standard_input_that_is_given_again_continues_a_harvest(harvest, made):
    options = as_stdin(made)
    whole = tree(harvest(**options).root)
    (made["root"] / "store" / "shards.jsonl").write_bytes(
        whole["shards.jsonl"].split(b"\n")[0] + b"\n"
    )
    made["monkeypatch"].undo()
    assert tree(harvest(**as_stdin({**made, "root": made["root"] / "again"})).root) == whole
    with pytest.raises(BadInput, match=r"another|differ"):
        harvest(**as_stdin({**made, "texts": ["the cat"] * 9, "root": made["root"] / "other"}))


@pytest.mark.parametrize("dtype", ["<u2", ">i4", "i8"])
def test_the_rows_of_a_npy_file_are_documents(harvest, made, dtype):
    root, dense = made["root"], [0, *range(3, len(made["texts"]))]
    expected = harvest("expected", text=tuple(
        write_texts(root / "data", [made["texts"][n] for n in dense])
    ))  # fmt: skip
    np.save(root / "ids.npy", np.array([made["ids"][n] for n in dense], dtype))
    options = {"dataset": str(root / "ids.npy"), "tokenized_by": made["model"]}
    store = harvest(**options)
    assert rows_of(store) == rows_of(expected)
    source = store.manifest.source["text"]
    assert (source["dataset"], source["rows"]) == ("ids.npy", "documents")
    part = harvest("part", split="train[2:]", **options)
    assert min(part.column("document")) == 2


def test_a_npy_file_of_one_dimension_is_one_document(harvest, made):
    (made["root"] / "a.txt").write_text(made["texts"][2])
    expected = harvest("expected", text=(str(made["root"] / "a.txt"),))
    np.save(made["root"] / "ids.npy", np.array([made["bos"], *made["ids"][2]]))
    store = harvest(dataset=str(made["root"] / "ids.npy"), tokenized_by=made["model"])
    assert rows_of(store) == rows_of(expected)


# Whole contexts.


def as_saelens(root: Path, rows: list[list[int]], **said: Any) -> str:
    """A set as SAELens' PretokenizeRunner saves it: read as tensors, with its record."""
    import datasets

    data = datasets.Dataset.from_dict({"input_ids": rows})
    data.set_format(type="torch", columns=["input_ids"])
    data.save_to_disk(root)
    usual = {
        "sae_lens_version": "6.0",
        "original_dataset": "/home/ada/data",
        "context_size": CONTEXT,
    }
    usual |= {"begin_batch_token": "bos", "tokenizer_name": "org/tiny"}
    (root / "sae_lens.json").write_text(json.dumps(usual | said))
    return str(root)


@pytest.fixture
def contexts(expected) -> list[list[int]]:
    """The contexts of the store by ``--text``."""
    rows: list[list[int]] = expected.column("token_id").reshape(-1, CONTEXT).tolist()
    return rows


@pytest.mark.parametrize("kind", ["parquet", "npy", "saelens"])
def test_whole_contexts_are_blocks_as_they_are(harvest, made, expected, contexts, kind):
    rows = contexts
    path, given = made["root"] / f"set.{kind}", {"whole_contexts": kind != "saelens"}
    if kind == "parquet":
        _write(path, [{"input_ids": row} for row in rows])
    elif kind == "npy":
        np.save(path, np.array(rows))
    else:
        as_saelens(path, rows)
    store = harvest(dataset=str(path), tokenized_by=made["model"], **given)
    assert rows_of(store, "document") == rows_of(expected, "document")
    assert store.column("document").tolist() == np.repeat(np.arange(len(rows)), CONTEXT).tolist()
    source = store.manifest.source
    assert source["text"]["rows"] == "contexts"
    assert source["tokens"]["prepend_bos"] is True
    assert source["text"].get("sae_lens", {}).get("context_size") == (
        CONTEXT if kind == "saelens" else None
    )
    assert "/home/ada" not in json.dumps(source)


def test_shuffled_contexts_keep_their_numbers(harvest, made, contexts):
    rows = contexts
    np.save(made["root"] / "set.npy", np.array(rows))
    options = {"dataset": str(made["root"] / "set.npy"), "tokenized_by": made["model"], "seed": 3}
    store = harvest(whole_contexts=True, **options)
    numbers = store.column("document").reshape(-1, CONTEXT)[:, 0]
    assert sorted(numbers) == list(range(len(rows))) != numbers.tolist()
    assert store.column("token_id").reshape(-1, CONTEXT).tolist() == [rows[n] for n in numbers]


def test_contexts_that_are_not_what_the_options_say_are_refused(refusal, made, contexts):
    rows = contexts
    path, bos = made["root"] / "set.jsonl", made["bos"]

    def said(changed: list[list[int]], **options: Any) -> str:
        path.write_bytes(lines([{"input_ids": row} for row in changed]))
        usual = {"dataset": str(path), "tokenized_by": made["model"], "whole_contexts": True}
        return refusal(**(usual | options))

    assert "row 1 of set.jsonl has 15 tokens and --context-size is 16" in said(
        [rows[0], rows[1][1:]]
    )
    assert "row 0 of set.jsonl has 16 tokens and --context-size is 8" in said(rows, context_size=8)
    assert "begins with BOS (0): leave out --no-prepend-bos" in said(rows, prepend_bos=False)
    other = [rows[0], [5, *rows[1][1:]]]
    assert "row 1 of set.jsonl does not begin with BOS (0)" in said(other)
    assert "row 0 of set.jsonl is padded with 0" in said([[*rows[0][:-2], bos, bos]])
    assert "row 1 of set.jsonl holds the id 299" in said([rows[0], [*rows[1][:-1], 299]])


def test_what_saelens_says_of_its_set_is_compared(refusal, made, contexts, tmp_path):
    rows = contexts
    options = {"tokenized_by": made["model"]}
    path = as_saelens(tmp_path / "other", rows, tokenizer_name="org/another")
    assert "says that org/another tokenised it" in refusal(dataset=path, **options)
    path = as_saelens(tmp_path / "long", rows, context_size=64)
    assert "have 64 tokens: give --context-size 64" in refusal(dataset=path, **options)
    path = as_saelens(tmp_path / "odd", rows, tokenizer_name=None)
    assert "must name tokenizer_name and context_size" in refusal(dataset=path, **options)
    path = as_saelens(tmp_path / "text", rows)
    assert "give --tokenized-by NAME --ids-column input_ids" in refusal(dataset=path)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_set_on_the_hub_is_what_its_record_says(harvest, made, contexts, monkeypatch, recorded):
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def download(name: str, file: str, repo_type: str) -> str:
        assert (name, file, repo_type) == ("org/set", "sae_lens.json", "dataset")
        if not recorded:
            raise EntryNotFoundError("404")
        return str(made["root"] / "set" / "sae_lens.json")

    as_saelens(made["root"] / "set", contexts)
    _write(made["root"] / "set.parquet", [{"input_ids": contexts[0]}])
    local, load = str(made["root"] / "set.parquet"), datasets.load_dataset_builder
    monkeypatch.setattr(
        datasets, "load_dataset_builder", lambda *_, **__: load("parquet", data_files=local)
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    options = {"tokenized_by": made["model"], "tokens": CONTEXT, "context_size": CONTEXT}
    if not recorded:  # then the rows are documents, a token short of a context without their BOS
        options["context_size"] = options["tokens"] = CONTEXT - 1
    source = harvest(dataset="org/set", **options).manifest.source["text"]
    assert source["dataset"] == "org/set"
    assert source["rows"] == ("contexts" if recorded else "documents")


# Ids that are not those of documents.


def test_ids_that_the_vocabulary_lacks_are_refused_with_their_row(refusal, made):
    path = made["root"] / "a.jsonl"
    for id in (290, -1, 2**40):
        path.write_bytes(lines([{"input_ids": [1, 2]}, {"input_ids": [3, id]}]))
        said = refusal(dataset=str(path), tokenized_by=made["model"])
        assert (
            f"row 1 of a.jsonl holds the id {id}, and the vocabulary of tiny has 290 tokens" in said
        )


def test_a_special_token_within_a_document_is_refused(refusal, made):
    path = made["root"] / "a.jsonl"
    path.write_bytes(lines([{"input_ids": [0, 5, 6]}, {"input_ids": [0, 5, 0, 6]}]))
    said = refusal(dataset=str(path), tokenized_by=made["model"])
    assert f"row 1 of a.jsonl holds the special token 0 ({END}) behind its beginning" in said
    assert "attention_mask" in said
    assert "--whole-contexts" in said


@pytest.mark.parametrize("mask", [[1, 1], [1, 0, 1], [1, 1, 2]])
def test_a_mask_that_is_not_of_padding_is_refused(refusal, made, mask):
    path = made["root"] / "a.jsonl"
    path.write_bytes(lines([{"input_ids": [5, 6, 7], "attention_mask": mask}]))
    said = refusal(dataset=str(path), tokenized_by=made["model"])
    assert "attention_mask of row 0 of " in said


def test_another_vocabulary_than_the_models_is_refused(refusal, made, tmp_path):
    from transformers import AutoTokenizer

    larger = AutoTokenizer.from_pretrained(made["model"])
    larger.add_tokens(["cats"])
    larger.save_pretrained(tmp_path / "larger")
    np.save(tmp_path / "a.npy", np.arange(1, 20))
    said = refusal(dataset=str(tmp_path / "a.npy"), tokenized_by=str(tmp_path / "larger"))
    assert (
        "the tokenizer larger has another vocabulary than tiny, for example 'cats' is 290" in said
    )


ARRAYS = {
    "cannot read": np.array([[1], None], object),
    "holds float32 of shape (3,)": np.zeros(3, np.float32),
    "of shape (1, 1, 3)": np.zeros((1, 1, 3), int),
    "has no rows": np.zeros((0, 3), int),
}


@pytest.mark.parametrize(("said", "array"), ARRAYS.items(), ids=ARRAYS)
def test_a_npy_file_of_anything_else_is_refused(refusal, made, said, array):
    path = made["root"] / "a.npy"
    np.save(path, array, allow_pickle=True)
    assert said in refusal(dataset=str(path), tokenized_by=made["model"])
    assert "give --tokenized-by" in refusal(dataset=str(path))


def test_two_columns_of_ids_are_refused_with_the_option_that_chooses(refusal, harvest, made):
    path = made["root"] / "a.jsonl"
    path.write_bytes(lines([{"input_ids": [5] * 20, "tokens": [6] * 20}]))
    options = {"dataset": str(path), "tokenized_by": made["model"]}
    assert "has input_ids and tokens: choose with --ids-column" in refusal(**options)
    assert set(harvest(ids_column="tokens", **options).column("token_id")) == {0, 6}


# Ids of documents.


@pytest.mark.parametrize("kind", ["text", "ids"])
def test_own_ids_of_documents_are_kept_with_their_numbers(harvest, made, expected, kind):
    rows = [
        {"text": text, "input_ids": ids, "id": f"ü {n}", "number": 10 * n}
        for n, (text, ids) in enumerate(zip(made["texts"], made["ids"], strict=True))
    ]
    path = made["root"] / "a.parquet"
    _write(path, rows)
    asked = {"tokenized_by": made["model"]} if kind == "ids" else {}
    for column, id in (("id", "ü {}"), ("number", None)):
        store = harvest(column, dataset=str(path), id_column=column, **asked)
        assert rows_of(store, "documents") == rows_of(expected)
        kept = [json.loads(line) for line in store.file("documents/ids.jsonl").splitlines()]
        ids = {n: id.format(n) if id else 10 * n for n in (0, 2, 3, 4, 5)}
        assert kept == [{"document": n, "id": own} for n, own in ids.items()]
        assert [(one.number, one.id) for one in store.documents()] == [
            (line["document"], line["id"]) for line in kept
        ]
        assert store.manifest.source["text"]["id_column"] == column
        again = harvest(column, dataset=str(path), id_column=column, **asked)
        assert tree(again.root) == tree(store.root)
    assert "documents/ids.jsonl" not in expected.manifest.files
    assert {one.id for one in expected.documents()} == {None}


def test_a_second_model_keeps_the_ids_of_the_documents(harvest, made, model_dir):
    path = made["root"] / "a.jsonl"
    path.write_bytes(lines([{"text": "the cat sat " * 30, "id": 7}]))
    first = harvest(dataset=str(path), id_column="id")
    second = run(prepare(HarvestSettings(
        model=str(model_dir), paired_with=str(first.root), out=str(made["root"] / "second"),
        layers="0",
    )))  # fmt: skip
    assert second.file("documents/ids.jsonl") == first.file("documents/ids.jsonl")


def test_what_is_no_id_is_refused_with_its_row(refusal, made):
    path = made["root"] / "a.jsonl"
    path.write_bytes(lines([{"text": "one", "id": "a"}, {"text": "two", "id": None}]))
    said = refusal(dataset=str(path), id_column="id")
    assert "the 'id' column of row 1 of" in said
    assert "has no 'url' column (it has text, id)" in refusal(dataset=str(path), id_column="url")


# Chats.


def chats(root: Path, *contents: str) -> str:
    chat = [{"role": "user", "content": content} for content in contents]
    (root / "chat.jsonl").write_bytes(lines([{"messages": chat}]))
    return str(root / "chat.jsonl")


def test_the_special_tokens_of_a_template_are_special_tokens(harvest, model_dir, tmp_path):
    template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    words = _with_template(model_dir, tmp_path / "words", template)
    options = {"chat_column": "messages", "tokenizer": str(words), "context_size": 8, "tokens": 8}
    store = harvest(dataset=chats(tmp_path, "abc", "def"), prepend_bos=False, **options)
    assert store.column("token_id").tolist().count(0) == 2


def test_a_template_that_writes_the_date_always_writes_the_same(
    harvest, model, model_dir, tmp_path
):
    template = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    words = _with_template(model_dir, tmp_path / "words", template)
    options = {"chat_column": "messages", "tokenizer": str(words), "context_size": 8, "tokens": 8}
    store = harvest(dataset=chats(tmp_path, "abc" * 9), **options)
    assert model.tokenizer.decode(store.column("token_id")[1:]).startswith(DATE[:7])
    assert store.manifest.source["text"]["chat_template"]["date"] == DATE


def test_a_chat_that_cannot_be_rendered_is_refused(refusal, made, model_dir, tmp_path):
    options = {"dataset": chats(tmp_path, "abc"), "chat_column": "messages"}
    assert "the tokenizer of tiny has no chat template: give --tokenizer" in refusal(**options)
    words = _with_template(
        model_dir, tmp_path / "w", "{{ raise_exception('roles must alternate') }}"
    )
    said = refusal(tokenizer=str(words), **options)
    assert "cannot render row 0 of chat.jsonl: roles must alternate" in said
    options["dataset"] = chats(tmp_path, f"what does {END} mean?")
    said = refusal(tokenizer=made["chat"], **options)
    assert f"row 0 of chat.jsonl spells out {END}" in said


def test_options_of_an_engine_that_is_not_chosen_are_refused(harvest_settings):
    for given in ({"workers": 3}, {"address": "auto"}):
        with pytest.raises(BadInput, match="would be ignored with engine local"):
            prepare(harvest_settings(**given))
