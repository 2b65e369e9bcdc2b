"""Dictionaries that other programs wrote, with the code and the reconstruction they computed.

``golden/dictionaries/make_programs.py`` made them, in the environment of each program.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rkstore.dictionaries import load_dictionary

ROOT = Path(__file__).parents[1] / "golden" / "dictionaries"
GOLDEN = sorted(path.parent for path in ROOT.glob("*/expected.safetensors"))


def reconstructed(dictionary, x):
    """Code, and reconstruction of all sites, of rows ``(n, d)``, or ``(sites, n, d)``."""
    rows = {dictionary.wiring.reads[0].hook_name: x}
    if x.dim() == 3:
        rows = {site.hook_name: part for site, part in zip(dictionary.wiring.reads, x, strict=True)}
    with torch.no_grad():
        f, y = dictionary.reconstruct(rows)
    written = [y[site.hook_name] for site in dictionary.wiring.writes]
    return f, torch.stack(written) if x.dim() == 3 else written[0]


def side_by_side(f):
    """The code of every latent: theirs may have one for each layer."""
    return torch.cat(list(f), dim=-1) if f.dim() == 3 else f


def given(path):
    """The sites, where the files say them in words that depend on the model."""
    transcodes = path.name in ("sparsify-transcoder", "sparsify-skip")
    return {"hook_name": "a", "hook_name_out": "b"} if transcodes else {}


def expected(path):
    """What the program computed; of a decoupled code its own order of axes is (row, site)."""
    out = load_file(path / "expected.safetensors")
    if "decoupled" in path.name:
        out["f"] = out["f"].transpose(0, 1)
    return out


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_dictionary_computes_what_its_program_does(path):
    dictionary, _ = load_dictionary(path, **given(path))
    out = expected(path)
    f, y = reconstructed(dictionary, out["x"])
    torch.testing.assert_close(side_by_side(f), side_by_side(out["f"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y, out["y"], atol=1e-5, rtol=1e-5)
    assert (f != 0).sum() > 3
    assert (f == 0).any()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_dictionary_says_what_made_it(path):
    made = json.loads((path / "made.json").read_text("utf-8"))
    assert made["program"]
    assert ("version" in made) != ("commit" in made)
