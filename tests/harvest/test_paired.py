"""A second model over the tokens of a store: row i of both stores is the same token."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import END, tree, write_model

from rkstore.cli.terminal import describe_harvest, describe_store
from rkstore.errors import BadInput, DamagedStore
from rkstore.harvest.run import prepare, run, write
from rkstore.share.merge import merge
from rkstore.store.manifest import PARTNER_ROW
from rkstore.store.open import open_paired
from rkstore.store.store import Store
from rkstore.store.verify import verify

SITE = "blocks.1.mlp.hook_post"

TEXTS = (
    "the cat sat on a mat, naïve über rivers. " * 3,
    f"42 rivers {END} 🐈 the cat\n\n  sat über a mat 🐈🐈 " * 2,
    "naïve naïve naïve cats sat, on über-mats",
)


class Interrupted(Exception):
    """Stands for whatever ends a harvest between two shards."""


def interrupt(shard: int) -> None:
    raise Interrupted(shard)


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> Path:
    """Three documents with letters of one, two and four bytes."""
    root = tmp_path_factory.mktemp("documents")
    for number, text in enumerate(TEXTS):
        (root / f"{number}.txt").write_text(text, "utf-8")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory, harvest_settings, documents) -> Store:
    """The documents through the tiny model."""
    out = tmp_path_factory.mktemp("stores") / "base"
    return run(prepare(harvest_settings(text=(str(documents),), tokens=5000, out=str(out))))


@pytest.fixture(scope="module")
def chat_dir(tmp_path_factory, text_file) -> Path:
    """Another model with the tokenizer of the tiny one."""
    root = tmp_path_factory.mktemp("models") / "chat"
    write_model(root, text_file.read_text("utf-8"), layers=2, width=8)
    return root


def with_tokenizer(root: Path, model_dir: Path, merges: int) -> Path:
    """The model in a directory with a byte-level tokenizer of that many merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(model_dir, root)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=257 + merges,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(["naïve cats sat über matted rivers 🐈 cat sat\n\n  "], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END, eos_token=END, model_max_length=32
    ).save_pretrained(root)
    return root


@pytest.fixture(scope="module", params=[0, 12])
def other_dir(request, tmp_path_factory, chat_dir) -> Path:
    """A model with another tokenizer: bytes, or bytes and a few merges."""
    root = tmp_path_factory.mktemp("models") / f"other{request.param}"
    return with_tokenizer(root, chat_dir, request.param)


@pytest.fixture
def paired_settings(base, chat_dir, model_dir, tmp_path):
    """Call it for the settings of a harvest paired with the base store."""
    from rkstore.harvest.settings import HarvestSettings

    def make(**given: Any) -> HarvestSettings:
        usual: dict[str, Any] = {
            "model": str(chat_dir),
            "paired_with": str(base.root),
            "shard_rows": 64,
            "batch_size": 3,
            "codec": "float32",
            "out": str(tmp_path / "chat"),
        }
        if given.get("align"):
            usual["partner_tokenizer"] = str(model_dir)
        return HarvestSettings(**(usual | given))

    return make


@pytest.fixture
def refusal(paired_settings):
    """Call it with settings of a paired harvest that must be refused; returns the sentence."""

    def run(**given: Any) -> str:
        with pytest.raises(BadInput) as caught:
            prepare(paired_settings(**given))
        return caught.value.sentence

    return run


def test_row_i_of_both_stores_is_the_same_token(base, paired_settings):
    chat = run(prepare(paired_settings()))
    assert chat.rows == base.rows
    assert chat.manifest.context_size == base.manifest.context_size
    for name in ("token_id", "document", "position"):
        np.testing.assert_array_equal(chat.column(name), base.column(name))
    paired = open_paired(base.root, chat.root)
    np.testing.assert_array_equal(paired.read(f"chat:{SITE}"), chat.read(SITE))
    assert list(verify(chat)) == []


def test_the_values_are_those_of_a_harvest_of_the_text_itself(
    paired_settings, harvest_settings, documents, chat_dir, tmp_path
):
    paired = run(prepare(paired_settings()))
    options = {"model": str(chat_dir), "tokens": 5000, "codec": "float32"}
    plain = run(
        prepare(harvest_settings(text=(str(documents),), out=str(tmp_path / "plain"), **options))
    )
    np.testing.assert_array_equal(paired.read(SITE), plain.read(SITE))
    assert paired.manifest.source["tokens"]["sha256"] == plain.manifest.source["tokens"]["sha256"]


def test_the_manifest_records_the_partner_its_text_and_its_tokens(base, paired_settings):
    source = prepare(paired_settings()).manifest.source
    assert source["paired_with"] == {"fingerprint": base.manifest.fingerprint, "name": "tiny"}
    assert source["text"] == base.manifest.source["text"]
    assert source["tokens"]["prepend_bos"] is True
    assert source["model"]["name"] == "chat"


@pytest.mark.parametrize("align", [None, "text"])
def test_a_paired_harvest_interrupted_behind_every_shard_ends_with_the_same_bytes(
    paired_settings, other_dir, chat_dir, tmp_path, align
):
    model = str(other_dir if align else chat_dir)
    # Of an aligned store, shards end within batches and batches within shards.
    rows = 16 if align else 32
    harvest = prepare(paired_settings(model=model, align=align, shard_rows=rows))
    run(harvest)
    pieces = dataclasses.replace(harvest, out=tmp_path / "pieces")
    for _ in range(harvest.manifest.shards):
        with pytest.raises(Interrupted):
            run(pieces, on_shard=interrupt)
    run(pieces)
    assert harvest.manifest.shards > 2
    assert tree(pieces.out) == tree(harvest.out)


def test_a_batch_that_a_cut_of_pieces_divides_is_computed_by_both_neighbours(
    paired_settings, other_dir, tmp_path
):
    options = {"model": str(other_dir), "align": "text", "shard_rows": 16}
    once = run(prepare(paired_settings(**options)))
    shards = once.manifest.shards
    harvest = prepare(paired_settings(**options, shards="0:1", out=str(tmp_path / "0")))
    assert any(batch.cut for shard in range(shards) for batch in harvest.batches(shard))
    pieces = []
    for shard in range(shards):
        whole = dataclasses.replace(harvest.whole, of_shards=range(shard, shard + 1))
        pieces.append(tmp_path / f"{shard}")
        write(dataclasses.replace(harvest, whole=whole, out=pieces[-1]))
    assert tree(merge(pieces, tmp_path / "merged").root) == tree(once.root)


def bytes_of(tokenizer_dir: Path) -> dict[int, bytes]:
    """The bytes of every token of a byte-level tokenizer: GPT-2's table, written out."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in visible]
    table |= {chr(256 + number): byte for number, byte in enumerate(hidden)}
    vocabulary = json.loads((tokenizer_dir / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    return {
        token: bytes(table[letter] for letter in word)
        for word, token in vocabulary.items()
        if word != END
    }


def ends_of(ids: np.ndarray, document: np.ndarray, words: dict[int, bytes]) -> list[Any]:
    """Document and byte at which each token ends; None within a character, and for BOS."""
    ends, read, current = [], b"", -1
    for token, number in zip(ids.tolist(), document.tolist(), strict=True):
        if number != current:
            read, current = b"", number
        if token == 0:
            ends.append(None)
            continue
        read += words[token]
        whole = TEXTS[number].encode()[: len(read)]
        assert read == whole
        boundary = len(whole.decode("utf-8", "ignore").encode()) == len(whole)
        ends.append((number, len(read)) if boundary else None)
    return ends


def test_aligned_rows_are_those_that_end_at_the_same_character(
    base, paired_settings, other_dir, model_dir
):
    harvest = prepare(paired_settings(model=str(other_dir), align="text"))
    columns = base.column("token_id"), base.column("document")
    rows = {end: row for row, end in enumerate(ends_of(*columns, bytes_of(model_dir))) if end}
    blocks = harvest.blocks
    ends = ends_of(blocks.ids.ravel(), blocks.document.ravel(), bytes_of(other_dir))
    expected = [rows.get(end, -1) for end in ends]
    np.testing.assert_array_equal(blocks.partner.ravel(), expected)
    assert blocks.rows > base.rows / 3

    store = run(harvest)
    stored = np.flatnonzero(np.array(expected) >= 0)
    np.testing.assert_array_equal(store.column(PARTNER_ROW), np.array(expected)[stored])
    np.testing.assert_array_equal(store.column("token_id"), blocks.ids.ravel()[stored])
    np.testing.assert_array_equal(store.column("document"), blocks.document.ravel()[stored])
    np.testing.assert_array_equal(store.column("position"), stored % 16)
    assert list(verify(store)) == []


def test_nothing_is_paired_from_an_unknown_token_on(
    paired_settings, harvest_settings, documents, chat_dir, tmp_path
):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {END: 0, "[?]": 1, "the": 2, "cat": 3, "sat": 4, "42": 5, "rivers": 6}
    backend = Tokenizer(models.WordLevel(words, unk_token="[?]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    shutil.copytree(chat_dir, tmp_path / "words")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END, unk_token="[?]", model_max_length=32
    ).save_pretrained(tmp_path / "words")
    options = {"model": str(tmp_path / "words"), "out": str(tmp_path / "base"), "context_size": 4}
    base = run(prepare(harvest_settings(text=(str(documents),), tokens=5000, **options)))
    aligned = prepare(
        paired_settings(
            paired_with=str(base.root),
            align="text",
            partner_tokenizer=str(tmp_path / "words"),
        )
    )
    partners = aligned.blocks.partner[aligned.blocks.partner >= 0]
    # "the cat sat", then "on"; "42 rivers", then what spells a special token. The block of
    # "rivers" is not filled.
    assert [int(base.column("token_id")[row]) for row in partners] == [2, 3, 4, 5]


def test_aligned_rows_hold_what_the_model_computes_from_whole_blocks(paired_settings, other_dir):
    harvest = prepare(paired_settings(model=str(other_dir), align="text"))
    store = run(harvest)
    blocks, sites = harvest.blocks, list(harvest.manifest.sites)
    stored = np.flatnonzero(blocks.partner.ravel() >= 0)
    x = [
        harvest.model.activations(blocks.ids[i : i + 3], sites)
        for i in range(0, len(blocks.ids), 3)
    ]
    whole = np.concatenate([one[SITE] for one in x])
    np.testing.assert_array_equal(store.read(SITE), whole[stored])


def test_an_aligned_pair_reads_rows_of_the_same_character(base, paired_settings, other_dir):
    store = run(prepare(paired_settings(model=str(other_dir), align="text")))
    paired = open_paired(base.root, store.root)
    partners = store.column(PARTNER_ROW)
    np.testing.assert_array_equal(paired.read(f"base:{SITE}"), base.read(SITE)[partners])
    np.testing.assert_array_equal(paired.column("document"), store.column("document"))


def test_the_share_of_rows_that_is_kept_is_recorded_and_said(base, paired_settings, other_dir):
    harvest = prepare(paired_settings(model=str(other_dir), align="text"))
    partner = harvest.manifest.source["paired_with"]
    assert partner["align"] == "text"
    assert partner["rows"] == base.rows
    assert partner["share"] == pytest.approx(harvest.manifest.rows / base.rows, abs=1e-6)
    said = f"{partner['share']:.1%} of its {base.rows:,} rows end at the same character"
    assert said in describe_harvest(harvest)
    assert said in describe_store(run(harvest))


def test_the_command_pairs_and_prints_the_partner(rkstore, base, chat_dir):
    words = ["harvest", "--model", chat_dir, "--paired-with", base.root, "--out", "chat"]
    status, out, err = rkstore(*words)
    assert status == 0, err
    assert f"partner tiny (store {base.manifest.fingerprint})" in out
    assert rkstore("harvest", *words[1:])[0] == 0


def test_the_command_aligns_and_plans_for_the_rows_it_keeps(rkstore, base, other_dir, model_dir):
    words = ["--model", other_dir, "--paired-with", base.root, "--out", "other"]
    words += ["--align", "text", "--partner-tokenizer", model_dir]
    for command in ("plan", "harvest", "info"):
        status, out, err = rkstore(command, *(words if command != "info" else ["other"]))
        assert status == 0, err
        assert f"of its {base.rows:,} rows end at the same character" in out
        assert "in blocks of 1" not in out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": ("a.txt",)}, "--text would be ignored with --paired-with"),
        ({"dataset": "python"}, "--dataset would be ignored with --paired-with"),
        ({"tokens": 5, "seed": 3}, "--tokens and --seed would be ignored"),
        ({"context_size": 8}, "--context-size would be ignored"),
        ({"prepend_bos": False}, "--prepend-bos would be ignored"),
        ({"partner_tokenizer": "x"}, "--partner-tokenizer would be ignored"),
        ({"paired_with": None, "align": "text"}, "--align would be ignored without --paired-with"),
        ({"paired_with": "nowhere"}, "there is no store at nowhere"),
        ({"align": "text"}, "every row is paired as it is: leave out --align"),
    ],
)
def test_options_that_do_not_fit_a_pair_are_refused(refusal, given, said):
    assert said in refusal(**given)


def test_another_tokenizer_is_refused_with_the_option_that_allows_it(refusal, other_dir):
    said = refusal(model=str(other_dir))
    assert "has another tokenizer than" in said
    assert "use --align text" in said


@pytest.mark.parametrize("given", ["tiny", "chat"])
def test_alignment_needs_the_tokenizer_of_the_first_store(
    refusal, other_dir, monkeypatch, tmp_path, given
):
    monkeypatch.chdir(tmp_path)
    wrong = None if given == "tiny" else str(other_dir)
    said = refusal(model=str(other_dir), align="text", partner_tokenizer=wrong)
    assert ("'tiny' cannot be loaded" if wrong is None else "is not that of") in said
    assert "give --partner-tokenizer DIR" in said


def test_a_model_with_a_shorter_context_is_refused(refusal, tmp_path, text_file):
    write_model(tmp_path / "short", text_file.read_text("utf-8"), layers=1, context=8)
    assert "have 16 tokens: short sees at most 8" in refusal(model=str(tmp_path / "short"))


def test_an_unfinished_partner_is_refused(refusal, harvest_settings, documents, tmp_path):
    out = tmp_path / "half"
    settings = harvest_settings(text=(str(documents),), tokens=5000, out=str(out))
    with pytest.raises(Interrupted):
        run(prepare(settings), on_shard=interrupt)
    said = refusal(paired_with=str(out))
    assert "has rows 0:64 of" in said
    assert "finish it first" in said


def test_a_partner_that_is_itself_aligned_is_refused(paired_settings, refusal, other_dir, tmp_path):
    run(prepare(paired_settings(model=str(other_dir), align="text")))
    assert "give --paired-with that one" in refusal(paired_with=str(tmp_path / "chat"))


TOKENIZER = {"tokenizer": {"sha256": "x"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": {}}, "does not record its tokenizer"),
        ({"context_size": 1}, "are not blocks of a text"),
        ({"values": {"token_id": np.full(216, -1)}}, "are not known, or not in blocks"),
        ({"values": {"position": np.zeros(216, int)}}, "not in blocks of 8"),
    ],
)
def test_a_partner_whose_rows_are_not_known_tokens_is_refused(make_store, refusal, options, said):
    store, _ = make_store(**({"source": TOKENIZER} | options))
    assert said in refusal(paired_with=str(store.root))


def test_tokens_that_are_not_those_harvested_are_damage(make_store, paired_settings):
    store, _ = make_store(source=TOKENIZER | {"tokens": {"sha256": "another"}})
    with pytest.raises(DamagedStore, match="are not those that were harvested"):
        prepare(paired_settings(paired_with=str(store.root)))
