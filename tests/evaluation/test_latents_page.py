"""The page of drawn latents: all of them, each with its name, or none."""

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.errors import BadInput

SITE = "blocks.1.mlp.hook_post"


def test_all_latents_that_are_drawn_are_written_and_need_a_name(harvested, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "pipelines"), *sys.path])
    import latents_page

    made = Dictionary.of_site(64, 8, select_named("relu", {}), hook_name=SITE)
    with torch.no_grad():
        made.W_enc.copy_(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))
    (tmp_path / "sae").mkdir()
    save_dictionary(made, tmp_path / "sae", {"hook_name": SITE, "model_name": "tiny"})
    names, out = tmp_path / "names.json", tmp_path / "page.md"
    out.write_text(f"# Before\n\n{latents_page.BEGIN}\n{latents_page.END}\n\nbehind\n")
    words = [str(tmp_path / "sae"), "--store", harvested.where, "--draw", "8"]
    words += ["--names", str(names), "--out", str(out)]
    names.write_text(json.dumps({str(latent): f"name {latent}" for latent in range(7)}))
    with pytest.raises(BadInput, match="has no name for 7"):
        CliRunner().invoke(latents_page.main, words, catch_exceptions=False)
    names.write_text(json.dumps({str(latent): f"name {latent}" for latent in range(8)}))
    CliRunner().invoke(latents_page.main, words, catch_exceptions=False)
    page = out.read_text("utf-8")
    assert [f"## Latent {i}: name {i}" in page for i in range(8)] == [True] * 8
    assert page.startswith("# Before")
    assert page.endswith("behind\n")
    assert "## Groups" not in page
