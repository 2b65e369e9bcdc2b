"""Harvest: the one run of the model, and that its store is what the model computed."""

import dataclasses
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MODEL_LAYERS, MODEL_MLP, MODEL_WIDTH, stored, tree

from rkstore.cli.terminal import describe_harvest, describe_store
from rkstore.errors import BadInput
from rkstore.harvest.run import Harvest, prepare, run
from rkstore.store.codecs import CODECS
from rkstore.store.formats import FORMATS
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.verify import verify

CONTEXT, BLOCKS = 16, 18


class Interrupted(Exception):
    """Stands for whatever ends a harvest between two shards."""


def interrupt(shard: int) -> None:
    raise Interrupted(shard)


def twin_tokens(model_dir: Path, text: str) -> np.ndarray:
    """Blocks of BOS and fifteen tokens, made by the tokenizers library alone."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    own = np.array(ids[: BLOCKS * (CONTEXT - 1)]).reshape(BLOCKS, CONTEXT - 1)
    return np.concatenate([np.zeros((BLOCKS, 1), int), own], axis=1)


def test_a_harvest_has_the_rows_that_were_asked_for(harvested: Store):
    assert harvested.complete
    assert harvested.rows == BLOCKS * CONTEXT
    assert harvested.manifest.context_size == CONTEXT
    assert harvested.manifest.shard_rows == 64
    assert harvested.manifest.shards == 5
    assert list(verify(harvested)) == []


def test_all_layers_of_the_hidden_layer_are_stored_by_default(harvested: Store):
    names = [f"blocks.{i}.mlp.hook_post" for i in range(MODEL_LAYERS)]
    assert harvested.manifest.sites == tuple(Site(name, MODEL_MLP) for name in names)


def test_the_columns_say_which_token_each_row_is(harvested: Store, model_dir, text_file):
    expected = twin_tokens(model_dir, text_file.read_text("utf-8"))
    np.testing.assert_array_equal(harvested.column("token_id"), expected.ravel())
    np.testing.assert_array_equal(harvested.column("position"), np.tile(np.arange(CONTEXT), BLOCKS))
    np.testing.assert_array_equal(harvested.column("document"), np.zeros(BLOCKS * CONTEXT))


def test_the_values_are_those_of_the_plain_transformers_model(harvested, model_dir, text_file):
    from transformers import GPT2LMHeadModel

    plain = GPT2LMHeadModel.from_pretrained(model_dir).eval()
    outputs: list[torch.Tensor] = []
    for block in plain.transformer.h:
        block.mlp.act.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    tokens = twin_tokens(model_dir, text_file.read_text("utf-8"))
    with torch.inference_mode():
        plain(torch.from_numpy(tokens))
    for i, output in enumerate(outputs):
        x = harvested.read(f"blocks.{i}.mlp.hook_post")
        # float16 keeps eleven bits; below its normal numbers, steps of 2⁻²⁴.
        expected = output.reshape(-1, MODEL_MLP).numpy()
        np.testing.assert_allclose(x, expected, rtol=2.0**-10, atol=1e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_stored_is_what_the_model_computed_as_the_codec_keeps_it(
    harvest_settings, tmp_path, codec
):
    harvest = prepare(harvest_settings(codec=codec, layers="1", out=str(tmp_path / "store")))
    store = run(harvest)
    (site,) = harvest.manifest.sites
    # The model's own batches, shard by shard: four blocks are three and one.
    parts = []
    for shard in range(0, BLOCKS, 4):
        blocks = harvest.blocks.ids[shard : shard + 4]
        for batch in (blocks[:3], blocks[3:]):
            if len(batch):
                parts.append(harvest.model.activations(batch, [site])[site.hook_name])
    x = np.concatenate(parts)
    np.testing.assert_array_equal(store.read(site.hook_name), stored(harvest.manifest, x))
    np.testing.assert_allclose(store.statistics(site.hook_name).mean, x.mean(0, np.float64), 1e-9)


def test_documents_are_counted_and_separated(harvest_settings, tmp_path, model):
    names = []
    for name, text in (("a.txt", "the cat sat on a mat . " * 3), ("b.txt", "rivers , 42 . " * 9)):
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    store = run(prepare(harvest_settings(text=tuple(names), out=str(tmp_path / "store"))))
    first, second = model.encode([Path(name).read_text() for name in names])
    stream = [*first, model.bos, *second]
    own = len(stream) // (CONTEXT - 1) * (CONTEXT - 1)
    tokens = store.column("token_id").reshape(-1, CONTEXT)
    assert tokens[:, 1:].ravel().tolist() == stream[:own]
    document = store.column("document").reshape(-1, CONTEXT)[:, 1:].ravel()
    np.testing.assert_array_equal(document, (np.arange(own) >= len(first)).astype(int))


def test_blocks_need_not_begin_with_bos(harvest_settings, tmp_path, model, text_file):
    store = run(prepare(harvest_settings(prepend_bos=False, out=str(tmp_path / "store"))))
    (expected,) = model.encode([text_file.read_text("utf-8")])
    np.testing.assert_array_equal(store.column("token_id"), expected[: store.rows])
    assert store.manifest.source["tokens"]["prepend_bos"] is False


def test_the_manifest_says_where_the_values_came_from(harvested: Store, model, text_file):
    source = harvested.manifest.source
    said = model.describe()
    assert source["model"] == said["model"]
    assert source["tokenizer"] == said["tokenizer"]
    (file,) = source["text"]["files"]
    assert file["name"] == text_file.name
    assert file["bytes"] == text_file.stat().st_size
    assert source["tokens"]["prepend_bos"] is True
    assert source["tokens"]["seed"] == 0
    assert len(source["tokens"]["sha256"]) == 64
    assert source["run"] == {"batch_size": 3, "device": "cpu"}
    for library in ("rkstore", "torch", "transformers", "transformer-lens", "tokenizers"):
        assert source["libraries"][library]


def test_the_store_says_nothing_of_the_machine_it_was_made_on(harvested: Store, text_file):
    together = b"".join(content for path, content in tree(harvested.root).items() if "json" in path)
    for private in (text_file.parent, harvested.root, Path.home()):
        assert str(private).encode() not in together


def test_two_harvests_have_the_same_bytes(harvested: Store, harvest_settings, tmp_path):
    run(prepare(harvest_settings(out=str(tmp_path / "again"))))
    assert tree(tmp_path / "again") == tree(harvested.root)


@pytest.mark.parametrize("codec", ["float16", "int8"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_harvest_interrupted_behind_every_shard_ends_with_the_same_bytes(
    harvest_settings, tmp_path, format, codec
):
    harvest = prepare(harvest_settings(format=format, codec=codec, out=str(tmp_path / "once")))
    run(harvest)
    pieces = dataclasses.replace(harvest, out=tmp_path / "pieces")
    for shard in range(harvest.manifest.shards):
        with pytest.raises(Interrupted, match=str(shard)):
            run(pieces, on_shard=interrupt)
        assert Store(pieces.out).rows == harvest.manifest.rows_recorded(shard + 1)
    run(pieces)
    assert tree(pieces.out) == tree(harvest.out)


def test_a_harvest_prepared_anew_goes_on_where_the_last_one_ended(
    harvested: Store, harvest_settings, tmp_path
):
    settings = harvest_settings(out=str(tmp_path / "store"))
    with pytest.raises(Interrupted):
        run(prepare(settings), on_shard=interrupt)
    shards: list[int] = []
    run(prepare(settings), on_shard=shards.append)
    assert shards == [1, 2, 3, 4]
    assert tree(tmp_path / "store") == tree(harvested.root)


def test_a_harvest_of_a_local_dataset_can_be_taken_up_again(harvest_settings, tmp_path, text_file):
    (tmp_path / "data").mkdir()
    shutil.copy(text_file, tmp_path / "data" / "train.txt")
    options = {"text": (), "dataset": str(tmp_path / "data"), "seed": 3}
    once = run(prepare(harvest_settings(out=str(tmp_path / "once"), **options)))
    again = harvest_settings(out=str(tmp_path / "again"), **options)
    with pytest.raises(Interrupted):
        run(prepare(again), on_shard=interrupt)
    assert run(prepare(again)).manifest == once.manifest
    assert tree(tmp_path / "again") == tree(tmp_path / "once")


def test_running_a_complete_harvest_again_changes_nothing_and_runs_no_model(
    harvested: Store, harvest_settings, tmp_path
):
    out = Path(shutil.copytree(harvested.root, tmp_path / "store"))
    times = {path: (out / path).stat().st_mtime_ns for path in tree(out)}
    harvest = prepare(harvest_settings(out=str(out)))
    store = run(dataclasses.replace(harvest, model=None), on_shard=interrupt)
    assert store.rows == BLOCKS * CONTEXT
    assert tree(out) == tree(harvested.root)
    assert {path: (out / path).stat().st_mtime_ns for path in tree(out)} == times


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"codec": "int8"}, "codec"),
        ({"batch_size": 4}, "source.run.batch_size"),
        ({"layers": "0"}, "sites"),
        ({"prepend_bos": False}, "source.tokens"),
        ({"dtype": "bfloat16"}, "source.model.dtype"),
    ],
)
def test_a_harvest_of_another_configuration_is_refused_and_the_key_named(
    harvested: Store, harvest_settings, tmp_path, change, key
):
    out = Path(shutil.copytree(harvested.root, tmp_path / "store"))
    with pytest.raises(BadInput, match="another configuration") as error:
        run(prepare(harvest_settings(out=str(out), **change)))
    assert key in str(error.value)
    assert tree(out) == tree(harvested.root)


def test_a_shard_is_made_of_whole_blocks_and_chunks(harvest_settings):
    for shard_rows, expected in ((1, 16), (70, 64), (73, 80), (10_000, 10_000)):
        manifest = prepare(harvest_settings(shard_rows=shard_rows)).manifest
        assert manifest.shard_rows == expected
        assert manifest.shard_rows % manifest.context_size == 0
        assert manifest.shard_rows % manifest.chunk_rows == 0
        assert manifest.chunk_rows <= 512


def test_preparing_a_harvest_writes_nothing(harvest_settings, tmp_path):
    harvest = prepare(harvest_settings(out=str(tmp_path / "store")))
    assert harvest.manifest.rows == BLOCKS * CONTEXT
    assert list(tmp_path.iterdir()) == []


def test_a_harvest_knows_how_large_its_store_may_become(harvest_settings, tmp_path):
    for codec in CODECS:
        harvest = prepare(harvest_settings(codec=codec, out=str(tmp_path / codec)))
        numbers = BLOCKS * CONTEXT * MODEL_LAYERS * MODEL_MLP
        files = sum(len(content) for content in harvest.files.values())
        assert harvest.largest_bytes == numbers * CODECS[codec].dtype.itemsize + files


@pytest.mark.parametrize("out", ["a/b/c", "{}/a/b/c", None])
def test_the_free_space_is_that_where_the_store_will_lie(
    harvest_settings, tmp_path, monkeypatch, out
):
    asked = []

    def disk_usage(path: Path) -> Any:
        asked.append(Path(path).absolute())
        return SimpleNamespace(free=1)

    monkeypatch.chdir(tmp_path)
    harvest = prepare(harvest_settings(out=out and out.format(tmp_path)))
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert harvest.free_bytes == 1
    assert asked == [tmp_path]


def test_a_store_lies_under_stores_by_default(harvest_settings):
    assert prepare(harvest_settings()).out == Path("stores/tiny")


# Refused before the model has run over a single token.


def test_a_context_longer_than_the_models_is_refused_with_both(harvest_settings):
    prepare(harvest_settings(context_size=32))
    with pytest.raises(BadInput, match="context_size is 33: tiny sees at most 32"):
        prepare(harvest_settings(context_size=33))


def test_a_width_other_than_the_one_asked_for_is_refused_with_both_and_what_would_fit(
    harvest_settings,
):
    assert prepare(harvest_settings(d_in=MODEL_MLP)).manifest.sites[0].width == MODEL_MLP
    with pytest.raises(BadInput) as error:
        prepare(harvest_settings(hook="hook_mlp_out", d_in=MODEL_MLP))
    said = error.value.sentence
    assert f"blocks.0.hook_mlp_out is {MODEL_WIDTH} wide, not {MODEL_MLP}" in said
    assert "--hook mlp.hook_post" in said
    with pytest.raises(BadInput) as error:
        prepare(harvest_settings(d_in=MODEL_WIDTH))
    assert f"blocks.0.mlp.hook_post is {MODEL_MLP} wide, not {MODEL_WIDTH}" in str(error.value)


@pytest.mark.parametrize("layers", ["all", "1"])
@pytest.mark.parametrize("width", [MODEL_WIDTH, 4 * MODEL_WIDTH, 300])
def test_the_hooks_named_for_a_width_are_as_wide(harvest_settings, width, layers):
    given = {"hook": "attn.hook_q", "layers": layers} | (
        {"hook": "mlp.hook_post"} if width == MODEL_WIDTH else {}
    )
    with pytest.raises(BadInput, match=f"not {width} as requested") as error:
        prepare(harvest_settings(d_in=width, **given))
    said = error.value.sentence
    if width == 300 and layers == "1":  # the logits, which are in no block
        assert said.endswith("no hook is, with --layers 1")
        return
    hooks = re.search("--hook (.*) would be", said)[1].split(" or ")
    for hook in hooks:
        sites = prepare(harvest_settings(hook=hook, layers=layers, d_in=width)).manifest.sites
        assert {site.width for site in sites} == {width}


def test_several_hooks_are_stored_in_the_order_that_the_model_computes_them(
    harvest_settings, tmp_path, harvested: Store
):
    hooks = ("hook_resid_post", "mlp.hook_post")
    store = run(prepare(harvest_settings(hook=hooks, layers="0,1", out=str(tmp_path / "store"))))
    assert store.hook_names == [
        f"blocks.{i}.{hook}" for i in (0, 1) for hook in ("mlp.hook_post", "hook_resid_post")
    ]
    name = "blocks.1.mlp.hook_post"
    np.testing.assert_allclose(store.read(name), harvested.read(name), rtol=2.0**-10, atol=1e-6)


def test_a_model_without_a_bos_token_is_refused_or_runs_without(
    harvest_settings, model_dir, tmp_path
):
    from transformers import PreTrainedTokenizerFast

    bare = tmp_path / "bare"
    PreTrainedTokenizerFast(tokenizer_file=str(model_dir / "tokenizer.json")).save_pretrained(bare)
    with pytest.raises(BadInput, match="no BOS token: use prepend_bos=False"):
        prepare(harvest_settings(tokenizer=str(bare)))
    harvest = prepare(harvest_settings(tokenizer=str(bare), prepend_bos=False))
    assert harvest.manifest.rows == BLOCKS * CONTEXT


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    harvest_settings, model_dir, tmp_path
):
    from transformers import AutoTokenizer

    larger = AutoTokenizer.from_pretrained(model_dir)
    larger.add_tokens([f"word{i}" for i in range(40)])
    larger.save_pretrained(tmp_path / "larger")
    (tmp_path / "text.txt").write_text("word39 " * 40)
    with pytest.raises(BadInput, match=r"token 3\d\d, the model tiny has 300"):
        prepare(
            harvest_settings(tokenizer=str(tmp_path / "larger"), text=(str(tmp_path / "text.txt"),))
        )


def test_too_little_text_is_refused(harvest_settings, tmp_path):
    (tmp_path / "short.txt").write_text("the cat")
    with pytest.raises(BadInput, match="fewer than one block"):
        prepare(harvest_settings(text=(str(tmp_path / "short.txt"),)))


def test_less_than_a_block_is_refused_before_the_model_is_loaded(harvest_settings):
    with pytest.raises(BadInput, match=r"tokens is 15.*tokens 16"):
        prepare(harvest_settings(tokens=15, model="./absent"))


def test_a_setting_that_nothing_would_read_is_refused_before_the_model_is_loaded(harvest_settings):
    with pytest.raises(BadInput, match="split would be ignored"):
        prepare(harvest_settings(split="test", model="./absent"))


@pytest.mark.parametrize(("tokens", "asked"), [(288, None), (303, None), (100_000, 100_000)])
def test_what_a_text_lacks_of_the_tokens_asked_for_is_recorded_and_said_last(
    harvest_settings, tmp_path, text_file, tokens, asked
):
    short = tmp_path / "short.txt"
    short.write_bytes(text_file.read_bytes()[:1000] if asked else text_file.read_bytes())
    ready = prepare(harvest_settings(text=(str(short),), tokens=tokens, out=str(tmp_path / "out")))
    assert ready.manifest.source["tokens"].get("asked") == asked
    last = describe_store(run(ready)).splitlines()[-1]
    said = f"{ready.manifest.rows:,} rows, not the 100,000 requested: the text has no more"
    assert (last.strip() == said) == bool(asked)
    assert ("not the 100,000 requested" in describe_harvest(ready)) == bool(asked)


def test_numbers_of_documents_are_part_of_what_a_harvest_is(harvest_settings, tmp_path):
    names = []
    for number, text in enumerate(("the cat sat on a mat . " * 9, " ", "rivers , 42 . " * 9)):
        (tmp_path / f"{number}.txt").write_text(text)
        names.append(str(tmp_path / f"{number}.txt"))
    plain, gap, back = (
        prepare(harvest_settings(text=tuple(text), tokens=96))
        for text in ((names[0], names[2]), names, (names[2], names[0]))
    )
    assert "document_sha256" not in plain.manifest.source["tokens"]
    assert "document_sha256" not in back.manifest.source["tokens"]
    assert gap.blocks.sha256 == plain.blocks.sha256
    assert set(gap.blocks.document.ravel()) == {0, 2}
    assert gap.manifest.source["tokens"]["document_sha256"] == gap.blocks.document_sha256


def test_a_file_may_have_any_name_that_the_system_allows(harvest_settings, tmp_path, text_file):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    shutil.copy(text_file, name)
    store = run(prepare(harvest_settings(text=(name,), out=str(tmp_path / "store"))))
    assert store.rows == BLOCKS * CONTEXT


class Spoilt:
    """A model that computes one value that is no number."""

    def __init__(self, harvest: Harvest) -> None:
        self.model, self.calls = harvest.model, 0
        self.device = harvest.model.device

    def to_encode(self, ids: np.ndarray, sites: list[Site]) -> dict[str, np.ndarray]:
        self.calls += 1
        found = self.model.activations(ids, sites)
        if self.calls == 3:  # the second shard's first batch
            found["blocks.2.mlp.hook_post"][5, 7] = np.nan
        return found


def test_a_value_that_is_not_finite_ends_the_harvest_and_its_site_and_row_are_named(
    harvest_settings, tmp_path
):
    harvest = prepare(harvest_settings(out=str(tmp_path / "store")))
    spoilt: Any = Spoilt(harvest)
    with pytest.raises(BadInput, match="row 69 has nan in dimension 7") as error:
        run(dataclasses.replace(harvest, model=spoilt))
    assert "blocks.2.mlp.hook_post" in str(error.value)
    store = Store(tmp_path / "store")
    assert store.rows == 64
    assert list(verify(store)) == []
    run(harvest)
    assert Store(tmp_path / "store").complete


def test_the_tokenizer_is_in_the_store_whatever_its_last_call_was(
    harvested, harvest_settings, model_dir, tmp_path
):
    from tokenizers import Tokenizer

    kept = Tokenizer.from_str(harvested.file("tokenizer/tokenizer.json").decode())
    own = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    assert kept.get_vocab() == own.get_vocab()
    harvest = prepare(harvest_settings(out=str(tmp_path / "again")))
    harvest.model.tokenizer("one two three", truncation=True, max_length=2)
    assert harvest.model.files() == harvest.files
    assert harvest.manifest.files == harvested.manifest.files


def test_of_a_slow_tokenizer_nothing_is_kept(model):
    class Slow:
        pass

    assert dataclasses.replace(model, tokenizer=Slow()).files() == {}
