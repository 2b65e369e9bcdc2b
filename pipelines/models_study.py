"""What harvesting costs on real models, and what each architecture offers: ``docs/models.json``.

    make smollm2
    python pipelines/models_study.py --model smollm2=models/smollm2 --model gemma3=DIR \\
        --text valid.txt --page docs/models.md

The text is WikiText-2's validation text, one file. A model whose directory is not there keeps the
numbers that are on record. ``--page`` writes the tables between the markers of the page.
"""

import functools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from results import start

from rkstore import __version__
from rkstore.cli.options import Command
from rkstore.errors import BadInput
from rkstore.evaluation.record import as_json
from rkstore.evaluation.report.tables import table
from rkstore.harvest import run as harvesting
from rkstore.harvest.load import EMBEDDED_PATH, load_model, load_plain
from rkstore.harvest.pairs import pairs_of
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.files import write_together
from rkstore.store.sites import block_of
from rkstore.store.store import Store

# What people harvest, by name: the options.
CHOICES: Mapping[str, Mapping[str, Any]] = {
    "`--hook mlp.hook_post`": {"hook": ("mlp.hook_post",)},
    "`--hook hook_resid_post`": {"hook": ("hook_resid_post",)},
    "`--hook attn.hook_z`": {"hook": ("attn.hook_z",)},
    "`--pair mlp`": {"pair": ("mlp",)},
}

# Of the small models whose hooks are listed: every width says what it is.
D_MODEL, D_MLP, HEADS, D_HEAD = 48, 80, 4, 10
WIDTHS = {
    D_MODEL: "d_model",
    D_MLP: "d_mlp",
    4 * D_MODEL: "4 d_model",
    HEADS * D_HEAD: "heads · d_head",
}
DENSE = {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 32,
}
GROUPED = DENSE | {"num_key_value_heads": 2}
GPT2 = {"n_embd": D_MODEL, "n_layer": 2, "n_head": HEADS, "n_positions": 32}

# transformers' class without "ForCausalLM", its config, and models that have it.
ARCHITECTURES: Mapping[str, tuple[dict[str, Any], str]] = {
    "GPT2": (GPT2, "GPT-2, DistilGPT-2"),
    "GPTNeoX": (DENSE, "Pythia"),
    "GPTJ": (GPT2 | {"rotary_dim": 4}, "GPT-J"),
    "Llama": (GROUPED, "Llama, SmolLM2"),
    "Qwen3": (GROUPED | {"head_dim": D_HEAD}, "Qwen 3"),
    "Gemma": (GROUPED | {"head_dim": D_HEAD}, "Gemma"),
    "Gemma2": (GROUPED | {"head_dim": D_HEAD}, "Gemma 2"),
    "Gemma3": (GROUPED | {"head_dim": D_HEAD}, "Gemma 3"),
    "Olmo2": (GROUPED, "OLMo 2"),
    "Granite": (GROUPED, "Granite"),
    "Mixtral": (GROUPED | {"num_local_experts": 4}, "Mixtral"),
    "Phi": (DENSE, "Phi 1, 2"),
    "Falcon": (
        {"hidden_size": D_MODEL, "num_hidden_layers": 2, "num_attention_heads": HEADS},
        "Falcon",
    ),
    "OPT": (
        {
            "hidden_size": D_MODEL,
            "word_embed_proj_dim": D_MODEL,
            "ffn_dim": D_MLP,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 32,
        },
        "OPT",
    ),
    "Bloom": ({"hidden_size": D_MODEL, "n_layer": 2, "n_head": HEADS}, "BLOOM"),
    "Mpt": (
        {"d_model": D_MODEL, "n_layers": 2, "n_heads": HEADS, "max_seq_len": 32},
        "MPT",
    ),
}

# Layers, d_model and d_mlp, by each model's config.json on the Hub.
SHAPES: Mapping[str, tuple[int, int, int]] = {
    "GPT-2": (12, 768, 3072),
    "GPT-2 medium": (24, 1024, 4096),
    "GPT-2 large": (36, 1280, 5120),
    "Pythia 70M": (6, 512, 2048),
    "Pythia 160M": (12, 768, 3072),
    "Pythia 410M": (24, 1024, 4096),
    "SmolLM2-135M": (30, 576, 1536),
    "Llama 3.2 1B": (16, 2048, 8192),
    "Llama 3.1 8B": (32, 4096, 14336),
    "Gemma 3 270M": (18, 640, 2048),
    "Gemma 2 2B": (26, 2304, 9216),
}

# The parts of a block whose widths the page lists.
PARTS = ("hook_resid_post", "mlp.hook_post", "attn.hook_z")


@click.command(cls=Command)
@click.option("--model", "models", multiple=True, help="NAME=DIR; may be repeated.")
@click.option("--text", type=Path, help="The text they read, one file.")
@click.option("--tokens", default=4096, show_default=True, help="Of each harvest.")
@click.option("--repetitions", default=3, show_default=True)
@click.option("--out", type=Path, default="docs/models.json", show_default=True)
@click.option("--page", type=Path, help="Page to write the tables into.")
def main(
    models: Sequence[str],
    text: Path | None,
    tokens: int,
    repetitions: int,
    out: Path,
    page: Path | None,
) -> None:
    """Measure harvests of the models, and list what each architecture offers."""
    known = json.loads(out.read_text("utf-8")) if out.exists() else {"models": {}}
    if models and text is None:
        raise BadInput("give the text that the models read: --text FILE")
    for given in models:
        name, _, directory = given.partition("=")
        if not Path(directory).is_dir():
            click.echo(
                f"{name} is left out: there is no directory {directory or '(give NAME=DIR)'}"
            )
            continue
        known["models"][name] = measured(Path(directory), str(text), tokens, repetitions)
    known |= {"rkstore": __version__, "threads": torch.get_num_threads()}
    known["architectures"] = {name: offered(name) for name in ARCHITECTURES}
    write_together({out: as_json(known)})
    if page:
        fill(page, known)


def measured(directory: Path, text: str, tokens: int, repetitions: int) -> dict[str, Any]:
    """A model's shape, and the cost of each choice on the same tokens."""
    rows = [
        harvested(name, options, directory, text, tokens, repetitions)
        for name, options in CHOICES.items()
    ]
    config = json.loads((directory / "config.json").read_text("utf-8"))
    return {
        "architecture": config["architectures"][0],
        "layers": config["num_hidden_layers"],
        "d_model": config["hidden_size"],
        "d_mlp": config["intermediate_size"],
        "tokens": tokens,
        "repetitions": repetitions,
        "harvests": rows,
    }


def harvested(
    name: str,
    options: Mapping[str, Any],
    directory: Path,
    text: str,
    tokens: int,
    repetitions: int,
) -> dict[str, Any]:
    """A harvest of all layers and, in turn with it, the model without hooks or files."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "store"
        settings = HarvestSettings(
            model=str(directory), text=(text,), tokens=tokens, out=str(out), **options
        )
        ready = harvesting.prepare(settings)
        plain = bare_pass(directory, ready)
        plain()
        times: list[tuple[float, float]] = []
        for _ in range(repetitions):
            shutil.rmtree(out, ignore_errors=True)
            times.append((seconds(lambda: harvesting.run(ready)), seconds(plain)))
        store = Store(out)
        return {
            "choice": name,
            "sites": len(store.hook_names),
            "values_per_token": sum(store.manifest.width(hook) for hook in store.hook_names),
            "tokens_per_s": tokens / statistics.median(ours for ours, _ in times),
            "bare_tokens_per_s": tokens / statistics.median(bare for _, bare in times),
            "ratio": statistics.median(ours / bare for ours, bare in times),
            "bits_per_value": bits(store),
            "codec": store.manifest.codec,
            "codec_fvu": max(store.codec_fvu(hook) for hook in store.hook_names),
            "massive_rows": max(store.massive_rows(hook) for hook in store.hook_names),
        }


def bare_pass(directory: Path, ready: harvesting.Harvest) -> Any:
    """The model of transformers over the same batches; logits of the last position alone."""
    # Loaded again: the modules of the harvest's model have hooks around them.
    model, _ = load_plain(str(directory))
    ids = torch.from_numpy(ready.blocks.ids).long()

    def over_all() -> None:
        with torch.inference_mode():
            for batch in torch.split(ids, ready.batch_size):
                model(batch, logits_to_keep=1, use_cache=False)

    return over_all


def seconds(work: Any) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bits(store: Store) -> float:
    """Mean bits on disk of a stored value."""
    values = store.rows * sum(store.manifest.width(hook) for hook in store.hook_names)
    return 8 * sum(store.stored_bytes(hook) for hook in store.hook_names) / values


@functools.cache
def offered(kind: str) -> dict[str, Any]:
    """The hooks of a block of an architecture, on a small model with random weights."""
    import transformers

    options, models = ARCHITECTURES[kind]
    of_config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    of_model = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM"))
    special = {"vocab_size": 4096, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as work:
        of_model(of_config(**special, **options)).save_pretrained(work)
        for file in EMBEDDED_PATH.glob("tokenizer*"):
            shutil.copy(file, work)
        model = load_model(work)
    block = next(iter(model.blocks("0")))
    widths = {block_of(name)[1]: w for name, w in model.widths.items() if block_of(name)[0] == 0}
    (pair,) = pairs_of(model, ["mlp"], "0")
    return {
        "models": models,
        "hooks": len(widths),
        "widths": {part: WIDTHS.get(widths.get(part, 0)) for part in PARTS},
        "pair": [name.removeprefix(f"{block}.") for name in (pair.reads, pair.writes)],
    }


def costs(document: Mapping[str, Any]) -> str:
    """The table of harvests."""
    head = [
        "model", "harvest, all layers", "values a token", "tokens/s", "bare pass, tokens/s",
        "time ÷ bare", "bits/value", "codec FVU, worst site",
    ]  # fmt: skip
    rows = [
        [
            name,
            row["choice"],
            f"{row['values_per_token']:,}",
            f"{row['tokens_per_s']:,.0f}",
            f"{row['bare_tokens_per_s']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['bits_per_value']:.2f}",
            f"{row['codec_fvu']:.1e}",
        ]
        for name, model in document["models"].items()
        for row in model["harvests"]
    ]
    return table(head, rows)


def architectures(document: Mapping[str, Any]) -> str:
    """The table of architectures."""
    head = ["transformers' class", "models", *(f"`{part}`" for part in PARTS), "`--pair mlp`"]
    rows = [
        [
            kind,
            found["models"],
            *(found["widths"][part] or "–" for part in PARTS),
            " → ".join(f"`{name}`" for name in found["pair"]),
        ]
        for kind, found in document["architectures"].items()
    ]
    return table(head, rows)


def sizes(document: Mapping[str, Any]) -> str:
    """What a million tokens of published models take, at the mean bits that were measured."""
    harvests = [row for model in document["models"].values() for row in model["harvests"]]
    gigabytes = statistics.mean(row["bits_per_value"] for row in harvests) / 8 / 1000
    head = [
        "model", "layers", "d_model", "d_mlp", "one residual site, GB", "all `mlp.hook_post`, GB",
    ]  # fmt: skip
    rows = [
        [
            name,
            str(layers),
            f"{d_model:,}",
            f"{d_mlp:,}",
            f"{d_model * gigabytes:.2f}",
            f"{layers * d_mlp * gigabytes:.1f}",
        ]
        for name, (layers, d_model, d_mlp) in SHAPES.items()
    ]
    return table(head, rows)


TABLES = {"costs": costs, "architectures": architectures, "sizes": sizes}


def fill(page: Path, document: Mapping[str, Any]) -> None:
    """Write every table between the markers of its name."""
    text = page.read_text("utf-8")
    for name, made in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise BadInput(f"{page} lacks the markers of the table of {name}: {begin.strip()} …")
        text = f"{before}{begin}\n{made(document)}\n\n{end}{after}"
    write_together({page: text.encode()})


if __name__ == "__main__":
    start(main)
