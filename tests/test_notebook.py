"""The notebooks run, and show what their cells print."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


console, notebook = load("console"), load("notebook")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_its_cells_print(path, tmp_path):
    """Each Python has a text of its own: where a cell shows words of it, the lines are counted."""
    shown = nbformat.read(path, as_version=4)
    for cell, now in zip(shown.cells, notebook.run(path, tmp_path).cells, strict=True):
        texts = [console.shape(notebook.printed(one)) for one in (cell, now)]
        if "varies" in cell.metadata.get("tags", ()):
            texts = [text.count("\n") for text in texts]
        assert texts[0] == texts[1], cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_and_says_nothing_of_the_machine(path):
    text = path.read_text("utf-8")
    shown = nbformat.read(path, as_version=4)
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert len(text) < 100_000
    assert set(shown.metadata) == {"kernelspec"}
    assert all(set(cell.metadata) <= {"tags"} for cell in shown.cells)
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.get("name") != "stderr" for output in outputs)
    for output in outputs:
        output.get("data", {}).pop("image/png", None)
    told = json.dumps(outputs, allow_nan=False)
    assert not [path for path in ("/home", "/root", "/tmp", "/work", "packages") if path in told]
