"""Other programs, in an environment of their own, load what is written and compute the same."""

import subprocess
from pathlib import Path

import pytest
import torch
from made import made, rows, stacked
from safetensors.torch import load_file, save_file
from test_layouts import HELD, METADATA

from rkstore.dictionaries.disk import save_dictionary

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PROGRAM = ROOT / "tests" / "peers" / "coded.py"
PACKAGES = {
    "dictionary-learning": "dictionary_learning",
    "sparsify": "sparsify",
    "circuit-tracer": "circuit_tracer",
}


def installed(layout):
    asked = f"import importlib.util as i; print(i.find_spec('{PACKAGES[layout]}') is not None)"
    if not PYTHON.exists():
        return False
    return "True" in subprocess.run([PYTHON, "-c", asked], capture_output=True, text=True).stdout


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", PACKAGES)
def test_a_program_computes_the_same_with_what_is_written_for_it(tmp_path, layout):
    """All dictionaries in one process: most of its time is the import."""
    if not installed(layout):
        pytest.skip(f"no {layout}: 'make peers' installs it")
    cases = [(kind, record) for name, kind, record, _ in HELD if name == layout]
    dictionaries, files = [made(**kind) for kind, _ in cases], []
    for i, (dictionary, (_, record)) in enumerate(zip(dictionaries, cases, strict=True)):
        directory, *ends = (tmp_path / f"{i}{end}" for end in ("", "-x", "-out"))
        directory.mkdir()
        save_dictionary(dictionary, directory, METADATA | record, layout)
        save_file({"x": stacked(rows(dictionary), dictionary.wiring.reads)}, ends[0])
        files += [directory, *ends]
    done = subprocess.run([PYTHON, PROGRAM, layout, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for dictionary, out in zip(dictionaries, files[2::3], strict=True):
        theirs, x = load_file(out), rows(dictionary)
        with torch.no_grad():
            f, y = dictionary.reconstruct(x)
        code = theirs["f"]
        close(torch.cat(list(code), dim=-1) if code.dim() == 3 else code, f)
        close(theirs["y"], stacked(y, dictionary.wiring.writes))
