"""JSON that we write: no NaN, no Infinity, anywhere."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from rkstore.store.jsontext import to_json

ROOT = Path(__file__).parents[2]
WRITERS = sorted(
    path
    for where in ("rkstore", "pipelines")
    for path in (ROOT / where).rglob("*.py")
    if "json.dump" in path.read_text("utf-8")
)


def strict(text):
    """What a reader that knows no NaN reads."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_does_not_exist_is_null_however_deep_it_lies():
    value = {"a": [1.5, math.nan, {"b": (math.inf, -math.inf)}], "c": np.float64("nan"), "d": "nan"}
    assert strict(to_json(value, indent=2)) == {
        "a": [1.5, None, {"b": [None, None]}],
        "c": None,
        "d": "nan",
    }


def test_what_exists_is_written_as_json_writes_it():
    value = {"a": [1, 2.5e-8, True, None, "über"], "b": {}}
    for indent in (None, 2):
        assert to_json(value, indent=indent) == json.dumps(value, indent=indent)


@pytest.mark.parametrize("path", WRITERS, ids=lambda path: path.name)
def test_no_program_writes_json_that_may_hold_nan(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert given.get("allow_nan") == "False", f"line {node.lineno}: allow_nan=False"
