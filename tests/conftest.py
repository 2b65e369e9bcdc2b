"""What the tests share: a tiny language model, a text, and stores of known values.

Heavy libraries are imported inside the fixtures that need them, so that a test of
the store does not wait for torch, and so that a subprocess can import this file.
"""

import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkstore.errors import BadInput
from rkstore.store.codecs import Codec, Encoded
from rkstore.store.manifest import COLUMNS, SCHEMA, Manifest
from rkstore.store.massive import Usual
from rkstore.store.sites import Pair, Site
from rkstore.store.store import Store
from rkstore.store.writing.encoder import FIT_ROWS
from rkstore.store.writing.writer import StoreWriter

# Fixtures of servers on loopback.
pytest_plugins = ["servers"]

# Rows that fill three shards and part of a fourth, whose last chunk is a part as well.
ROWS, SHARD_ROWS, CHUNK_ROWS, CONTEXT = 216, 64, 16, 8
SITES = {"blocks.0.mlp.hook_post": 12, "blocks.1.mlp.hook_post": 12, "blocks.1.hook_mlp_out": 5}

MODEL_LAYERS, MODEL_WIDTH, MODEL_MLP, MODEL_CONTEXT = 3, 16, 64, 32

END = "<|endoftext|>"

# Read by the Hub's libraries when they are imported, which no test has done yet:
# none may need a network, or touch the cache of whoever runs it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_HF_HOME = tempfile.TemporaryDirectory(prefix="rkstore-tests-")
os.environ["HF_HOME"] = _HF_HOME.name
os.environ["RKSTORE_CACHE"] = f"{_HF_HOME.name}/rkstore"


def make_manifest(
    *,
    codec: str = "float32",
    format: str = "zarr",
    compression: str = "",
    rows: int = ROWS,
    shard_rows: int = SHARD_ROWS,
    chunk_rows: int = CHUNK_ROWS,
    context_size: int = CONTEXT,
    sites: dict[str, int] = SITES,
    pairs: tuple[Pair, ...] = (),
    source: dict[str, Any] | None = None,
    schema: int = SCHEMA,
) -> Manifest:
    """A manifest of small numbers, each of which can be chosen."""
    return Manifest(
        rows=rows,
        context_size=context_size,
        shard_rows=shard_rows,
        chunk_rows=chunk_rows,
        codec=codec,
        format=format,
        compression=compression,
        sites=tuple(Site(name, width) for name, width in sites.items()),
        source={"model": {"name": "random", "revision": None}} if source is None else source,
        schema=schema,
        pairs=pairs,
    )


def make_values(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    """Random rows for every site and every column of a manifest, by name.

    The activations look like those behind a GELU: many just below zero, few large,
    and dimensions of very different size.
    """
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    for site in manifest.sites:
        x = rng.standard_normal((manifest.rows, site.width)) * np.geomspace(0.1, 10, site.width)
        values[site.hook_name] = np.where(x > 0, x, 0.02 * x).astype(np.float32)
    row = np.arange(manifest.rows)
    values["token_id"] = rng.integers(0, 300, manifest.rows).astype(np.int32)
    values["document"] = (row // 30).astype(np.int32)
    values["position"] = (row % manifest.context_size).astype(np.int32)
    return values


def shard_of(
    manifest: Manifest, values: dict[str, np.ndarray], shard: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What ``StoreWriter.write_shard`` takes for one shard of the values."""
    rows = slice(*manifest.rows_of_shard(shard))
    return (
        {name: values[name][rows] for name in manifest.hook_names},
        {name: values[name][rows] for name in COLUMNS},
    )


def write_store(
    root: Path, manifest: Manifest, values: dict[str, np.ndarray], shards: int | None = None
) -> None:
    """Write the shards that are not there yet, ``shards`` of them at most."""
    with StoreWriter(root, manifest) as writer:
        last = manifest.shards if shards is None else writer.next_shard + shards
        while writer.next_shard < min(last, manifest.shards):
            writer.write_shard(*shard_of(manifest, values, writer.next_shard))


def stored(manifest: Manifest, values: np.ndarray) -> np.ndarray:
    """The values as their codec gives them back, learned and encoded shard by shard."""
    codec, size = manifest.stored_codec, manifest.shard_rows
    return np.concatenate(
        [codec.decode(encoded(codec, values[i : i + size])) for i in range(0, len(values), size)]
    )


def encoded(codec: Codec, x: np.ndarray) -> Encoded:
    """The rows of one shard as they are stored."""
    first = x[:FIT_ROWS]
    usual = Usual.of(first)
    return codec.encode(x, codec.fit(first[~usual.massive(first)]), usual.massive(x))


def tree(root: Path) -> dict[str, bytes]:
    """Every file under a directory, by path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    """Change one byte of a file; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What a sync is for shows in a power cut only, and waiting for it is most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., tuple[Store, dict[str, np.ndarray]]]:
    """Call it to write a small store of random values; returns the store and the values.

    Takes the arguments of :func:`make_manifest` and ``name`` (a directory under
    ``tmp_path``), ``seed`` or ``values``, and ``shards`` (how many to write; all by default).
    """

    def make(
        name: str = "store",
        *,
        seed: int = 0,
        values: dict[str, np.ndarray] | None = None,
        shards: int | None = None,
        **options: Any,
    ) -> tuple[Store, dict[str, np.ndarray]]:
        manifest = make_manifest(**options)
        values = make_values(manifest, seed) | (values or {})
        write_store(tmp_path / name, manifest, values, shards)
        return Store(tmp_path / name), values

    return make


def write_text(path: Path) -> None:
    """Two thousand words of a small made-up language, in UTF-8 with non-ASCII letters."""
    words = ["the", "cat", "sat", "on", "a", "mat", "über", "naïve", "rivers", "42", ",", ".", "\n"]
    path.write_text(" ".join(random.Random(0).choices(words, k=2000)), "utf-8")


def write_model(
    root: Path,
    text: str,
    *,
    layers: int = MODEL_LAYERS,
    width: int = MODEL_WIDTH,
    context: int = MODEL_CONTEXT,
) -> None:
    """A GPT-2 of a few layers with random weights, saved with its own tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END, eos_token=END, model_max_length=context
    )
    tokenizer.save_pretrained(root)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        initializer_range=0.3,  # large enough that the layers differ from noise
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(root)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of :func:`write_text`."""
    path = tmp_path_factory.mktemp("text") / "story.txt"
    write_text(path)
    return path


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """The model of :func:`write_model`."""
    root = tmp_path_factory.mktemp("models") / "tiny"
    write_model(root, text_file.read_text("utf-8"))
    return root


@pytest.fixture(scope="session")
def model(model_dir: Path) -> Any:
    """The tiny model, loaded by rkstore."""
    from rkstore.harvest.load import load_model

    return load_model(str(model_dir))


@pytest.fixture(scope="session")
def harvest_settings(model_dir: Path, text_file: Path) -> Callable[..., Any]:
    """Call it for settings of a small harvest; any of them can be given.

    float16, whose error each value bounds by itself. Twenty blocks of 16 tokens in shards of
    four, and batches that do not divide a shard.
    """
    from rkstore.harvest.settings import HarvestSettings

    def make(**given: Any) -> HarvestSettings:
        usual: dict[str, Any] = {
            "model": str(model_dir),
            "text": (str(text_file),),
            "tokens": 18 * 16,
            "context_size": 16,
            "shard_rows": 64,
            "batch_size": 3,
            "codec": "float16",
        }
        return HarvestSettings(**(usual | given))

    return make


@pytest.fixture(scope="session")
def harvested(
    tmp_path_factory: pytest.TempPathFactory, harvest_settings: Callable[..., Any]
) -> Iterator[Store]:
    """A store harvested from the tiny model, all layers. Read it; do not change it."""
    from rkstore.harvest.run import prepare, run

    out = tmp_path_factory.mktemp("harvested") / "tiny"
    store = run(prepare(harvest_settings(out=str(out))))
    before = tree(out)
    yield store
    assert tree(out) == before, "a test changed the store that all tests share"


@pytest.fixture
def rkstore(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Call it with a command's words; returns exit status, stdout and stderr.

    It runs in an empty directory, so that relative paths are the test's own.
    """
    from rkstore.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rkstore", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Store]:
    """Call it with a path, a format and options; returns the store that the import wrote."""
    from rkstore.share.exchange.importing import import_store
    from rkstore.share.settings import ImportSettings

    def run(path: Path, kind: str, out: str = "imported", **options: Any) -> Store:
        say = options.pop("say", lambda _: None)
        usual: dict[str, Any] = {"codec": "float32", "shard_rows": 16}
        settings = ImportSettings(from_=kind, out=str(tmp_path / out), **(usual | options))
        return import_store(path, settings, say)

    return run


@pytest.fixture
def refused(bring: Callable[..., Store]) -> Callable[..., str]:
    """Call it like ``bring`` with an import that must be refused; returns the sentence."""

    def run(path: Path, kind: str, error: type[Exception] = BadInput, **options: Any) -> str:
        with pytest.raises(error) as caught:
            bring(path, kind, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run
