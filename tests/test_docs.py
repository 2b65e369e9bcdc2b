"""Every command and program of the documentation runs, and prints what the page shows."""

import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from rkstore.evaluation.settings import CompareSettings, EvaluateSettings
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import Settings, from_yaml
from rkstore.training.settings import TrainSettings

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


console = load(ROOT / "docs" / "console.py")

# A directory with models/smollm2 (make smollm2) and WikiText-2's valid.txt.
REAL = os.environ.get("RKSTORE_REAL")

PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "adding",
            "coming",
            "dictionaries",
            "evaluation",
            "evaluation_latents",
            "exchange",
            "inputs",
            "lookup",
            "planted",
            "probing",
            "samples",
            "scale",
            "sharing",
            "training",
        )
    ),
]
COMMANDS = {
    "harvest": HarvestSettings,
    "probe": ProbeSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "compare": CompareSettings,
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_commands_print(page, tmp_path):
    for block in console.blocks((ROOT / page).read_text("utf-8")):
        found = console.run(block[1], block[2], tmp_path)
        assert console.shape(found) == console.shape(block[2])


@pytest.mark.parametrize("codec", ["int8", "int6", "int4"])
def test_the_program_of_the_format_page_reads_a_store(make_store, tmp_path, codec):
    site = "blocks.6.mlp.hook_post"
    x = np.random.default_rng(0).standard_normal((1040, 12)).astype(np.float32)
    x[[3, 900]] *= 200  # massive
    x[40, 5] = 9.0  # beyond the codes
    sizes = {"rows": 1040, "chunk_rows": 512, "shard_rows": 1024, "sites": {site: 12}}
    source = {"model": {"name": "demo"}}
    store, _ = make_store("stores/demo", codec=codec, values={site: x}, source=source, **sizes)
    assert store.massive_rows(site) == 2
    [block] = console.blocks((ROOT / "docs/format.md").read_text("utf-8"))
    same = "\nimport rkstore\nassert (x == rkstore.open(store).read(hook, 0, len(x))).all()\n"
    console.run(block[1], block[2] + same, tmp_path)


def test_the_page_on_adding_lists_every_file():
    """A line names a file, or a folder, whose files it stands for unless they are listed."""
    page = (ROOT / "docs/adding.md").read_text("utf-8")
    listing = page.partition("```\nrkstore/")[2].partition("```")[0]
    listed, above = [], [Path("rkstore")]
    for line in listing.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        path = Path(*above[:depth][-1:], line.split()[0])
        above = [*above[:depth], path]
        listed.append(path)
        assert (ROOT / path).is_dir() == line.split()[0].endswith("/"), path
        assert (ROOT / path).exists(), path
    open_folders = {path.parent for path in listed}
    for file in sorted((ROOT / "rkstore").rglob("*.py")):
        path = file.relative_to(ROOT)
        if path.name != "__init__.py":
            assert path in listed or path.parent in set(listed) - open_folders, path


def test_a_shape_keeps_words_and_drops_numbers():
    assert console.shape("kept 12 of 3,400  0.5") == console.shape("kept 7 of 88 1e-3")
    assert console.shape("kept 12") != console.shape("lost 12")


def test_the_page_on_codecs_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    measured = [
        json.loads((ROOT / f"docs/{name}.json").read_text("utf-8"))
        for name in ("codec_values", "codecs")
    ]
    page = load(ROOT / "pipelines" / "codec_page.py").page(*measured)
    assert (ROOT / "docs/codecs.md").read_text("utf-8") == page


def test_the_dictionaries_of_every_codec_saw_the_same_rows_in_the_same_order():
    orders = {}
    for row in json.loads((ROOT / "docs/codecs.json").read_text("utf-8"))["dictionaries"]:
        key = row["model"], row["site"], row["seed"]
        orders.setdefault(key, set()).add((row["order_of_rows"], row["rows"], row["left_out"]))
    assert all(len(found) == 1 for found in orders.values())


def test_the_page_on_rkcnn_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    runs = [
        json.loads((ROOT / f"docs/{name}.json").read_text("utf-8"))
        for name in ("rkcnn", "rkcnn_front", "rkcnn_again")
    ]
    page = load(ROOT / "pipelines" / "rkcnn_page.py").page(*runs)
    assert (ROOT / "docs/rkcnn.md").read_text("utf-8") == page


def test_the_page_on_dictionaries_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    record = json.loads((ROOT / "docs/dictionaries.json").read_text("utf-8"))
    table = load(ROOT / "pipelines" / "zoo_study.py").measured(record)
    assert f"\n{table}\n" in (ROOT / "docs/dictionaries.md").read_text("utf-8")


def test_the_page_on_training_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    study = load(ROOT / "pipelines" / "training_study.py")
    records = [json.loads(path.read_text("utf-8")) for path in study.records(ROOT / "docs")]
    assert len(records) == 2
    assert f"\n{study.measured(records)}\n" in (ROOT / "docs/training.md").read_text("utf-8")


def test_the_page_on_exchange_has_the_table_of_the_layouts():
    page = (ROOT / "docs/exchange.md").read_text("utf-8")
    layouts = load(ROOT / "docs" / "layouts.py")
    assert f"{layouts.BEGIN}{layouts.table()}{layouts.END}" in page
    assert [name for name in layouts.LAYOUTS if f"| `{name}` |" not in page] == []


def test_the_page_on_evaluation_says_what_was_measured_with_the_model(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    record = json.loads((ROOT / "docs/evaluation.json").read_text("utf-8"))
    study = load(ROOT / "pipelines" / "evaluation_study.py")
    texts = [page.read_text("utf-8") for page in (ROOT / "docs").glob("evaluation*.md")]
    [page] = [text for text in texts if study.BEGIN in text]
    assert f"\n{study.measured(record)}\n" in page


def test_the_page_on_models_says_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    record = json.loads((ROOT / "docs/models.json").read_text("utf-8"))
    study, text = (
        load(ROOT / "pipelines" / "models_study.py"),
        (ROOT / "docs/models.md").read_text(),
    )
    assert [f"\n{made(record)}\n" in text for made in study.TABLES.values()] == [True] * 3


@pytest.mark.parametrize("kind", ["GPT2", "GPTNeoX", "Llama", "Gemma2", "Gemma3"])
def test_an_architecture_offers_what_the_page_on_models_says(monkeypatch, kind):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    record = json.loads((ROOT / "docs/models.json").read_text("utf-8"))
    assert (
        load(ROOT / "pipelines" / "models_study.py").offered(kind) == record["architectures"][kind]
    )


@pytest.mark.skipif(not REAL, reason="RKSTORE_REAL names no directory with models/ and valid.txt")
def test_the_page_on_models_shows_what_its_commands_print(tmp_path):
    for given in ("models", "valid.txt"):
        (tmp_path / given).symlink_to(Path(REAL).absolute() / given)
    for block in console.blocks((ROOT / "docs/models.md").read_text("utf-8")):
        assert console.shape(console.run(block[1], block[2], tmp_path)) == console.shape(block[2])


def test_the_readme_quotes_the_page_on_models():
    page = (ROOT / "docs/models.md").read_text("utf-8")
    [quoted] = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert [line for line in quoted.splitlines() if line not in page] == []


def settings_of(text, name):
    """The settings of the command or the pipeline that a configuration says it is for."""
    [(program, word)] = set(
        re.findall(rf"(rkstore |pipelines/)(\S+) --config configs/{name}", text)
    )
    if program == "rkstore ":
        return COMMANDS[word]
    kinds = [
        kind for kind in vars(load(ROOT / "pipelines" / word)).values() if isinstance(kind, type)
    ]
    own = [kind for kind in kinds if kind.__module__ == word.removesuffix(".py")]
    [chosen] = [
        kind
        for kind in own
        # A sweep also has the settings of the trainings that it sweeps over.
        if issubclass(kind, Settings) and not issubclass(kind, TrainSettings)
    ]
    return chosen


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_names_its_command_and_is_valid_for_it(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    chosen = from_yaml(settings_of(path.read_text("utf-8"), path.name), path, {})
    for key, value in yaml.safe_load(path.read_text("utf-8")).items():
        found = getattr(chosen, key)
        value = str(value) if isinstance(found, str) else value  # a layer may be a number
        several = tuple(value) if isinstance(value, list) else (value,)
        assert found == (several if isinstance(found, tuple) else value)


@pytest.mark.parametrize(
    "page", sorted(["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target
