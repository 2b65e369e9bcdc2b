"""The sentences of exceptions: options on the command line, arguments in Python, keys in YAML."""

import ast
import copy
import pickle
from pathlib import Path

import pytest

import rkstore
from rkstore.errors import BadInput, DamagedStore, RkstoreError, for_python, for_yaml
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.settings import LatentsSettings, SamplesSettings
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.settings import flag_of, options_in
from rkstore.share.settings import ExportSettings, ImportSettings, PullSettings
from rkstore.store.places.ranges import NoRanges
from rkstore.store.places.url import NotThere
from rkstore.store.rows import NoSuchRow
from rkstore.store.sites import Lacking
from rkstore.training.checkpoint import Diverged
from rkstore.training.settings import TrainSettings

OURS = (RkstoreError, BadInput, DamagedStore, Diverged, Lacking, NoRanges, NoSuchRow, NotThere)
FIELDS = sorted(
    set().union(
        *map(options_in, (HarvestSettings, ImportSettings, ExportSettings, PullSettings)),
        *map(options_in, (ProbeSettings, TrainSettings, EvaluateSettings, ReportSettings)),
        *map(options_in, (SamplesSettings, LatentsSettings)),
    )
)
SOURCES = sorted(Path(rkstore.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_is_an_argument_in_python_and_a_key_in_yaml(name):
    said = f"choose another {flag_of(name)}, or --no-{flag_of(name)[2:]} ({flag_of(name)})"
    assert for_python(said) == f"choose another {name}, or {name}=False ({name})"
    key = name.rstrip("_")
    assert for_yaml(said) == f"choose another {key}, or {key}: false ({key})"


@pytest.mark.parametrize(
    "said",
    [
        "bring it here with 'rkstore pull URL --out stores/gpt2'",
        "the model's tokenizer's: 'iconv -f latin1 -t utf-8 --list x', or 'rkstore demo --out x'",
        "it is 'a --layers b'",
        "there is nothing at runs/--layer or in x--layer",
        "e -- f",
    ],
)
def test_commands_and_values_in_a_sentence_stay_as_they_are(said):
    assert for_python(said) == for_yaml(said) == said


def test_an_apostrophe_hides_no_option():
    assert for_python("not the model's: use --tokenizer, a dataset's --split") == (
        "not the model's: use tokenizer, a dataset's split"
    )


@pytest.mark.parametrize("kind", OURS)
def test_an_exception_is_the_same_after_a_process_has_handed_it_on(kind):
    error = kind("--context-size is 1")
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(other) is kind
        assert (str(other), other.sentence) == ("context_size is 1", "--context-size is 1")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_an_exception_told_in_another_keeps_its_options(source):
    names = {kind.__name__ for kind in OURS}
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if not isinstance(node, ast.ExceptHandler) or node.type is None or node.name is None:
            continue
        if not names & {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}:
            continue
        for told in ast.walk(node):
            shown = told.value if isinstance(told, ast.FormattedValue) else None
            assert not (isinstance(shown, ast.Name) and shown.id == node.name), (
                f"line {told.lineno}: write {{{node.name}.sentence}}"
            )


def test_every_exception_of_the_package_is_tried_here():
    names = {kind.__name__ for kind in OURS}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and names & {ast.unparse(b) for b in node.bases}:
                assert node.name in names
