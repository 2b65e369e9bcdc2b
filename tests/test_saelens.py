"""SAELens, in an environment of its own, loads what rkstore trained and computes the same."""

import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rkstore.dictionaries import load_dictionary
from rkstore.settings import TrainSettings
from rkstore.train import train

PYTHON = Path(__file__).parents[1] / ".venv-saelens" / "bin" / "python"

PROGRAM = textwrap.dedent("""
    import sys
    from safetensors.torch import load_file, save_file
    from sae_lens import SAE
    sae = SAE.load_from_disk(sys.argv[1], device="cpu")
    x = load_file(sys.argv[2])["x"]
    f = sae.encode(x)
    save_file({"f": f.contiguous(), "reconstruction": sae.decode(f).contiguous()}, sys.argv[3])
    print(sae.cfg.metadata.hook_name)
""")


@pytest.mark.skipif(not PYTHON.exists(), reason="no SAELens: 'make saelens' installs it")
@pytest.mark.parametrize("dictionary", ["relu", "topk", "batchtopk"])
def test_saelens_encodes_and_decodes_the_same(make_store, tmp_path, dictionary):
    store, _ = make_store(rows=400)
    checkpoint = train(
        TrainSettings(
            store=str(store.root),
            layer=0,
            dictionary=dictionary,
            l1=0.01,
            k=4,
            d_sae=24,
            steps=40,
            batch_size=32,
            out=str(tmp_path / "checkpoints"),
        )
    )
    x = torch.from_numpy(store.read("blocks.0.mlp.hook_post", 0, 100))
    save_file({"x": x}, tmp_path / "x.safetensors")
    files = [str(tmp_path / name) for name in ("x.safetensors", "out.safetensors")]
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(checkpoint), *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("blocks.0.mlp.hook_post")
    theirs = load_file(files[1])
    ours, _ = load_dictionary(checkpoint)
    with torch.no_grad():
        torch.testing.assert_close(theirs["f"], ours.encode(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs["reconstruction"], ours(x), atol=1e-5, rtol=1e-5)
