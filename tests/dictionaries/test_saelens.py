"""SAELens, in an environment of its own, loads what rkstore trained and computes the same.

Its transformer-lens is another than ours, and rkstore works there, too.
"""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import tree
from safetensors.torch import load_file, save_file

from rkstore.dictionaries import load_dictionary, save_dictionary
from rkstore.harvest.run import prepare, run
from rkstore.store.store import Store
from rkstore.store.verify import verify
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

PYTHON = Path(__file__).parents[2] / ".venv-saelens" / "bin" / "python"

needs_saelens = pytest.mark.skipif(
    not PYTHON.exists(), reason="no SAELens: 'make saelens' installs it"
)
needs_rkstore_there = pytest.mark.skipif(
    not PYTHON.with_name("rkstore").exists(), reason="no rkstore there: 'make saelens' installs it"
)

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


@needs_saelens
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


READS, WRITES = "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"
AUTOENCODER = {"hook": READS}
TRANSCODER = {"hook": READS, "hook_out": WRITES, "wiring": "transcoder"}

# What is trained, and SAELens' architectures of its training and of its inference.
TRAINED = {
    "standard": (AUTOENCODER | {"dictionary": "relu"}, "standard", "standard"),
    "gated": (AUTOENCODER | {"dictionary": "gated"}, "gated", "gated"),
    "topk": (AUTOENCODER | {"dictionary": "topk"}, "topk", "topk"),
    "abstopk": (AUTOENCODER | {"dictionary": "abstopk"}, "abstopk", "abstopk"),
    "jumprelu": (AUTOENCODER | {"dictionary": "jumprelu"}, "jumprelu", "jumprelu"),
    "batchtopk": (AUTOENCODER | {"dictionary": "batchtopk"}, "batchtopk", "jumprelu"),
    "matryoshka": (
        AUTOENCODER | {"dictionary": "batchtopk", "prefixes": (0.25, 1)},
        *("matryoshka_batchtopk", "jumprelu"),
    ),
    "weighed": (
        AUTOENCODER | {"dictionary": "jumprelu", "code_norm": "sae", "unit_decoder": False},
        *("jumprelu", "jumprelu"),
    ),
    "transcoder": (TRANSCODER | {"dictionary": "relu"}, "standard", "transcoder"),
    "skip": (TRANSCODER | {"dictionary": "relu", "skip": True}, "standard", "skip_transcoder"),
    "jumprelu_transcoder": (
        TRANSCODER | {"dictionary": "jumprelu"},
        *("jumprelu", "jumprelu_transcoder"),
    ),
    "batchtopk_transcoder": (
        TRANSCODER | {"dictionary": "batchtopk"},
        *("batchtopk", "jumprelu_transcoder"),
    ),
    "batchtopk_skip": (
        TRANSCODER | {"dictionary": "batchtopk", "skip": True},
        *("batchtopk", "jumprelu_skip_transcoder"),
    ),
}

# What SAELens saves again is what it loaded, so the way back is read, too.
LOAD_ALL = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    import torch
    from safetensors.torch import load_file, save_file
    from sae_lens import SAE
    root, found = Path(sys.argv[1]), {}
    x = load_file(root / "x.safetensors")["x"]
    for path in sorted(root.glob("sae_*")):
        sae = SAE.load_from_disk(path, device="cpu")
        with torch.no_grad():
            out = {"f": sae.encode(x).contiguous(), "y": sae(x).contiguous()}
        save_file(out, path / "out.safetensors")
        sae.save_model(path / "again")
        found[path.name] = {"architecture": sae.cfg.architecture()} | sae.cfg.metadata.to_dict()
    print(json.dumps(found))
""")


@needs_saelens
def test_every_architecture_goes_there_trained_and_comes_back(make_store, tmp_path):
    store, values = make_store(rows=400)
    dictionaries = {}
    for name, (given, *_) in TRAINED.items():
        usual = {"l1": 0.01, "l0": 0.01, "k": 4, "d_sae": 24, "steps": 40, "batch_size": 32}
        out = str(tmp_path / "checkpoints" / name)
        checkpoint = train(TrainSettings(store=str(store.root), out=out, **usual | given))
        dictionaries[name], metadata = load_dictionary(checkpoint)
        (tmp_path / f"sae_{name}").mkdir()
        save_dictionary(dictionaries[name], tmp_path / f"sae_{name}", metadata, "saelens")
    x = torch.from_numpy(values[READS][:100])
    save_file({"x": x}, tmp_path / "x.safetensors")
    done = subprocess.run([PYTHON, "-c", LOAD_ALL, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for name, (given, training, inference) in TRAINED.items():
        theirs = load_file(tmp_path / f"sae_{name}" / "out.safetensors")
        again, metadata = load_dictionary(tmp_path / f"sae_{name}" / "again")
        with torch.no_grad():
            for one in (dictionaries[name], again):
                f, y = one.reconstruct(x)
                torch.testing.assert_close(f, theirs["f"], atol=1e-5, rtol=1e-5, msg=name)
                torch.testing.assert_close(y, theirs["y"], atol=1e-5, rtol=1e-5, msg=name)
        found = said[f"sae_{name}"]
        assert (found["training_architecture"], found["architecture"]) == (training, inference)
        assert (found["hook_name"], found.get("hook_name_out")) == (READS, given.get("hook_out"))
        assert metadata["rkstore"]["store_fingerprint"] == store.manifest.fingerprint
    widths = said["sae_matryoshka"]["training_architecture_details"]["matryoshka_widths"]
    assert widths == [6, 24]


@needs_rkstore_there
def test_a_harvest_beside_saelens_writes_the_same_bytes(harvest_settings, tmp_path):
    """All but the versions of the libraries, and the store's fingerprint, which is of them too."""
    settings = harvest_settings(out=str(tmp_path / "ours"))
    ours = run(prepare(settings))
    names = ("model", "codec", "tokens", "context_size", "shard_rows", "batch_size")
    words = [f"--{name.replace('_', '-')}={getattr(settings, name)}" for name in names]
    words += [f"--text={settings.text[0]}", f"--out={tmp_path / 'theirs'}"]
    done = subprocess.run(
        [PYTHON, "-c", "from rkstore.cli import main; main()", "harvest", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PYTHON.parents[2])},
    )
    assert done.returncode == 0, done.stderr
    theirs = Store(tmp_path / "theirs")
    assert list(verify(theirs)) == []
    recorded, files = [], []
    for store, major in ((ours, "4"), (theirs, "3")):
        mark = store.manifest.fingerprint.encode()
        content = {path: x.replace(mark, b"") for path, x in tree(store.root).items()}
        del content["shards.jsonl"]  # the hashes of the files, chained to the fingerprint
        said = json.loads(content.pop("manifest.json"))
        assert said["source"].pop("libraries")["transformer-lens"].split(".")[0] == major
        recorded.append(said)
        files.append(content)
    assert recorded[0] == recorded[1]
    assert files[0] == files[1]
