"""The commands as people write them, one after another in an empty directory.

The Hub is on loopback; its GPT-2 has twelve blocks like the one that is meant, all else is small.
"""

import json
import os
import random
import re
import subprocess
import sys

import pytest
from conftest import write_model
from hub_server import serving

WORDS = 120_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with ``gpt2`` and WikiText."""
    import pyarrow
    import pyarrow.parquet

    root = tmp_path_factory.mktemp("hub")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 4))) for _ in range(50)]
    lines = [" ".join(rng.choices(words, k=40)) for _ in range(WORDS // 40)]
    write_model(root / "gpt2", "\n".join(lines[:100]), layers=12, width=4, context=128)
    table = pyarrow.table({"text": [line for text in lines for line in ("", text)]})
    (root / "wikitext/wikitext-103-raw-v1").mkdir(parents=True)
    pyarrow.parquet.write_table(
        table, root / "wikitext/wikitext-103-raw-v1/train-00000-of-00001.parquet"
    )
    (root / "wikitext/README.md").write_text(
        "---\nconfigs:\n- config_name: wikitext-103-raw-v1\n  data_files:\n  - split: train\n"
        "    path: wikitext-103-raw-v1/train-*\n---\n"
    )
    repositories = {
        "models/gpt2": root / "gpt2",
        "datasets/Salesforce/wikitext": root / "wikitext",
    }
    with serving(repositories) as server:
        yield server


@pytest.fixture
def shell(hub, tmp_path):
    """Call it with a command line; it runs in the same empty directory each time."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment = kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    here = tmp_path / "here"
    here.mkdir()

    def run(line):
        program, *words = line.split()
        assert program == "rkstore"
        done = subprocess.run(
            [sys.executable, "-c", "from rkstore.cli import main; main()", *words],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_four_commands_as_written(shell, hub, tmp_path):
    harvested = shell("rkstore harvest --layers all")
    assert all(f"blocks.{layer}.mlp.hook_post" in harvested.stdout for layer in range(12))
    shell("rkstore probe --store stores/gpt2 --layer 8")
    trained = shell("rkstore train --init rkcnn")
    said, checkpoint = trained.stdout.splitlines()
    assert "blocks.8.mlp.hook_post" in said
    assert "probed last" in said
    evaluated = shell("rkstore evaluate")
    assert any(path.startswith("/gpt2/resolve/") for path in hub.asked)
    assert any(path.startswith("/datasets/Salesforce/wikitext/resolve/") for path in hub.asked)
    assert checkpoint.rsplit("/", 1)[-1] in evaluated.stderr.splitlines()[0]
    [row] = json.loads((tmp_path / "here/results/evaluate/results.json").read_text())["results"]
    assert row["hook_name"] == "blocks.8.mlp.hook_post"
    assert row["notes"] == []
    assert re.search(rf"{row['name']} .*{row['fvu']:.4f}", evaluated.stdout)


@pytest.mark.parametrize("words", [["--help"], ["info", "--help"], ["info", "nowhere"], ["--no"]])
def test_the_package_run_as_a_module_is_the_command(rkstore, tmp_path, words):
    command = [sys.executable, "-m", "rkstore", *words]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == rkstore(*words)
    assert "rkstore" in ran.stdout + ran.stderr
    assert "-m rkstore" not in ran.stdout + ran.stderr
