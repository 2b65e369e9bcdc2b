"""Samples of every latent: the same as looking at all of a code at once."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from pyarrow import parquet
from worded import make_tokenizer, write_worded

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluation.samples import codes as codes_module
from rkstore.evaluation.samples.best import Best, drawn, falling
from rkstore.evaluation.samples.collect import BINS, collect
from rkstore.evaluation.samples.samples import Samples
from rkstore.evaluation.samples.settings import CollectSettings

SITE, WIDTH, LATENTS = "blocks.0.mlp.hook_post", 12, 20


def dictionary_of(select="relu", seed=0, **options):
    """Random whole numbers, so that a code is exact however rows are batched."""
    generator = torch.Generator().manual_seed(seed)
    made = Dictionary.of_site(WIDTH, LATENTS, select_named(select, options), hook_name=SITE)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name != "b_dec":
                parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator))
        made.W_enc[:, 0], made.b_enc[0] = 0, 0  # never fires
    return made.eval()


@pytest.fixture
def whole(make_store):
    """A store of whole numbers, of which the first token of each block is left out."""

    def make(rows=216):
        rng = np.random.default_rng(1)
        x = rng.integers(-4, 5, (rows, WIDTH)).astype(np.float32)
        row = np.arange(rows)
        source = {"model": {"name": "m"}, "tokenizer": {"bos_token_id": 999}}
        values = {SITE: x, "token_id": np.where(row % 8 == 0, 999, row % 7).astype(np.int32)}
        store, _ = make_store(values=values, source=source, sites={SITE: WIDTH}, rows=rows)
        return store, x

    return make


def by_hand(code, settings, block=8):
    """Samples by definition: latent → a list of (band, row, value), and the code by latent."""
    kept = [row for row in range(len(code)) if row % block]
    found = defaultdict(list)
    for latent in range(code.shape[1]):
        on = [(row, code[row, latent]) for row in kept if code[row, latent] != 0]
        top = max((abs(value) for _, value in on), default=0)
        best = sorted(on, key=lambda entry: (-abs(entry[1]), entry[0]))
        best = one_a_block(best, block, settings)[: settings.strongest]
        found[latent] += [(0, row, value) for row, value in best]
        left = [entry for entry in on if entry not in best]
        for band in range(1, settings.quantiles + 1):
            q = settings.quantiles
            bins = [min(int(abs(v) / top * BINS), BINS - 1) for _, v in left]
            own = [e for e, bin in zip(left, bins, strict=True) if bin // (BINS // q) == q - band]
            own.sort(key=lambda entry: hashed(entry[0], latent, settings.seed))
            own = one_a_block(own, block, settings)[: settings.samples_per_quantile]
            own.sort(key=lambda entry: (-abs(entry[1]), entry[0]))
            found[latent] += [(band, row, value) for row, value in own]
    return found


def one_a_block(entries, block, settings):
    if not settings.distinct_blocks:
        return entries
    first = {}
    for row, value in entries:
        first.setdefault(row // block, (row, value))
    return list(first.values())


def hashed(row, latent, seed):
    return int(drawn(np.array([row]), np.array([latent], np.int32), seed)[0])


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize(("select", "options"), [("relu", {}), ("abstopk", {"k": 6})])
def test_the_pass_equals_looking_at_the_whole_code(whole, monkeypatch, select, options, distinct):
    monkeypatch.setattr(codes_module, "SEGMENT_ROWS", 40)
    store, x = whole()
    made = dictionary_of(select, **options)
    settings = CollectSettings(
        max_samples_per_feature=14,
        quantiles=5,
        samples_per_quantile=2,
        sample_context_size=3,
        distinct_blocks=distinct,
        batch_size=7,
    )
    found = collect(made, store, settings)
    code = made.encode(torch.from_numpy(x)).detach().numpy()
    expected = by_hand(code, settings)
    for latent in range(LATENTS):
        seen = [(sample.band, sample.row, sample.value) for sample in found.of(latent)]
        assert seen == expected[latent]
        for sample in found.of(latent):
            near = range(sample.row - 3, sample.row + 4)
            inside = [r // 8 == sample.row // 8 and r % 8 > 0 for r in near]
            around = [code[r, latent] if ok else 0 for r, ok in zip(near, inside, strict=True)]
            assert sample.around.tolist() == around
    assert not found.of(0)


def test_statistics_follow_their_definitions(whole, monkeypatch):
    monkeypatch.setattr(codes_module, "SEGMENT_ROWS", 40)
    store, x = whole()
    made = dictionary_of()
    found = collect(made, store, CollectSettings())
    kept = np.arange(len(x)) % 8 > 0
    code = made.encode(torch.from_numpy(x)).detach().numpy()[kept]
    block = np.arange(len(x))[kept] // 8
    part = np.arange(len(code)) * 10 // len(code)
    assert found.rows == len(code)
    assert found.window_rows.tolist() == np.bincount(part).tolist()
    for latent in range(LATENTS):
        on = code[:, latent] > 0
        values = code[on, latent]
        assert found.fired[latent] == len(values)
        assert found.blocks[latent] == len(set(block[on]))
        assert found.windows[latent].tolist() == np.bincount(part[on], minlength=10).tolist()
        if len(values):
            assert found.largest[latent] == values.max()
            assert found.mean[latent] == pytest.approx(values.mean())
            assert found.deviation[latent] == pytest.approx(values.std(), rel=1e-5)
            bins, _ = np.histogram(values / values.max(), BINS, (0, 1))
            assert found.histogram[latent].tolist() == bins.tolist()
    q = found.bands
    assert found.of_bands.sum(axis=1).tolist() == found.fired.tolist()
    assert found.of_bands[:, 0].tolist() == found.histogram[:, -BINS // q :].sum(axis=1).tolist()
    assert (found.fired[0], found.largest[0], found.mean[0], found.histogram[0].sum()) == (0,) * 4


def test_samples_do_not_depend_on_the_size_of_batches(whole, monkeypatch):
    store, _ = whole()
    settings = CollectSettings(max_samples_per_feature=12, samples_per_quantile=2)
    one = collect(dictionary_of(), store, settings)
    monkeypatch.setattr(codes_module, "SEGMENT_ENTRIES", 300)
    other = collect(dictionary_of(), store, settings.model_copy(update={"batch_size": 5}))
    for name in ("latent", "band", "row", "value", "around", "blocks", "histogram", "windows"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_another_seed_draws_other_samples_of_the_bands_and_the_same_strongest(whole):
    store, _ = whole()
    few = {"max_samples_per_feature": 7, "samples_per_quantile": 1}
    one, other = (collect(dictionary_of(), store, CollectSettings(seed=s, **few)) for s in (0, 1))
    assert np.array_equal(one.row[one.band == 0], other.row[other.band == 0])
    assert not np.array_equal(one.row[one.band > 0], other.row[other.band > 0])


def test_part_of_the_rows_is_whole_blocks_spread_over_the_store(whole):
    store, _ = whole()
    found = collect(dictionary_of(), store, CollectSettings(rows=40, sample_context_size=1))
    rows = np.unique(found.row // 16)
    assert rows.tolist() == [0, 4, 9]
    assert found.rows == 3 * 14


def test_samples_are_the_same_after_saving_and_equal_ones_have_equal_bytes(whole, tmp_path):
    store, _ = whole()
    found = collect(dictionary_of(), store, CollectSettings())
    found.save(tmp_path / "one", {"checkpoint": "c"})
    found.save(tmp_path / "two", {"checkpoint": "c"})
    read = Samples.load(tmp_path / "one")
    for name, value in vars(found).items():
        assert np.array_equal(getattr(read, name), value), name
        assert getattr(getattr(read, name), "dtype", None) == getattr(value, "dtype", None)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_directory_that_is_not_empty_stays_as_it_is(whole, tmp_path):
    store, _ = whole()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(BadInput, match="something at"):
        collect(dictionary_of(), store, CollectSettings()).save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_latent_that_does_not_exist_is_refused(whole):
    found = collect(dictionary_of(), whole()[0], CollectSettings())
    for latent in (-1, LATENTS):
        with pytest.raises(BadInput, match="from 0 to 19"):
            found.of(latent)


def test_quantiles_that_leave_no_room_are_refused(whole):
    with pytest.raises(BadInput, match="no room"):
        collect(dictionary_of(), whole()[0], CollectSettings(max_samples_per_feature=25))


def test_the_best_of_a_stream_are_those_of_all_of_it():
    rng = np.random.default_rng(0)
    owners, values = rng.integers(0, 6, 500), rng.integers(1, 40, 500).astype(np.float32)
    best = Best(6, 7)
    for some in np.array_split(np.arange(500), 9):
        near = some[best.near(owners[some], falling(values[some]))]
        best.offer(owners[near], falling(values[near]), near, values[near])
    found, rows, _ = best.entries()
    for owner in range(6):
        own = np.flatnonzero(owners == owner)
        first = own[np.argsort(-values[own], kind="stable")][:7]
        assert rows[found == owner].tolist() == first.tolist()


WORDS = [" def", " one", "x", " more"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def planted(tmp_path, tokenizer):
    """A store in which dimension ``i`` is on at word ``i``, and a checkpoint that reads it."""
    ids = [tokenizer.token_to_id(word.replace(" ", "Ġ")) for word in WORDS]
    rng = np.random.default_rng(0)
    which = rng.integers(0, len(ids), 216)
    which[::8] = -1
    x = np.abs(rng.standard_normal((216, WIDTH))).astype(np.float32) * 0.1
    x[np.arange(216), which] += 1 + rng.random(216).astype(np.float32) * (which >= 0)
    tokens = np.where(which < 0, 0, np.array(ids)[which])
    store, _ = write_worded(
        tmp_path / "store", tokenizer, tokens, {SITE: x}, sites={SITE: WIDTH}, codec="float32"
    )
    made = Dictionary.of_site(WIDTH, len(ids), select_named("relu", {}), hook_name=SITE)
    with torch.no_grad():
        made.W_enc[: len(ids)] = torch.eye(len(ids))
        made.b_enc -= 0.7
    (tmp_path / "checkpoint").mkdir()
    save_dictionary(made, tmp_path / "checkpoint", {"hook_name": SITE, "model_name": "random"})
    return store, tmp_path / "checkpoint"


def test_a_latent_planted_to_fire_on_one_word_has_that_word_in_all_its_samples(
    planted, rkstore, tmp_path
):
    store, checkpoint = planted
    status, out, _ = rkstore("samples", checkpoint, "--store", store.root, "--out", "found")
    assert status == 0
    assert out.splitlines()[-1] == "found"
    samples = Samples.load(tmp_path / "found")
    for latent, word in enumerate(WORDS):
        own = store.tokens([sample.row for sample in samples.of(latent)])
        assert len(own) > 20
        assert set(own) == {word}
        file = tmp_path / f"found/features/feature_{latent:05}_samples.json"
        read = json.loads(file.read_text())["samples"]
        assert {sample["token"] for sample in read} == {word}
        assert all(f"«{word}»" in sample["text"] for sample in read)
        assert all("".join(sample["tokens"]) in unmarked(sample["text"]) for sample in read)


def test_the_table_of_samples_has_their_words_in_place(planted, rkstore, tmp_path):
    store, checkpoint = planted
    assert rkstore("samples", checkpoint, "--store", store.root, "--out", "found")[0] == 0
    table = parquet.read_table(tmp_path / "found/samples.parquet").to_pylist()
    for sample in table[::7]:
        row, block = sample["row"], sample["row"] // 8
        assert (sample["document"], sample["position"]) == (row // 30, row % 8)
        near = range(row - 20, row + 21)
        words = [store.tokens(r) if r >= 0 and r // 8 == block else None for r in near]
        assert sample["tokens"] == words
        assert sample["token"] == words[20]
        assert sample["around"][20] == pytest.approx(sample["value"])


def unmarked(text):
    return text.replace("«", "").replace("»", "")


def refused(rkstore, *words):
    """The sentence of a refusal."""
    status, out, err = rkstore(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


def test_a_checkpoint_of_another_store_is_refused(planted, rkstore):
    store, checkpoint = planted
    config = json.loads((checkpoint / "cfg.json").read_text())
    config["metadata"]["model_name"] = "another"
    (checkpoint / "cfg.json").write_text(json.dumps(config))
    said = refused(rkstore, "samples", checkpoint, "--store", store.root)
    assert "trained on activations of another" in said
    config["metadata"]["hook_name"] = "blocks.3.hook_z"
    (checkpoint / "cfg.json").write_text(json.dumps(config))
    assert "is not in the store" in refused(rkstore, "samples", checkpoint, "--store", store.root)


def test_a_store_without_a_tokenizer_is_refused(planted, rkstore, make_store):
    store, _ = make_store("plain")
    said = refused(rkstore, "samples", planted[1], "--store", store.root)
    assert "has no tokenizer" in said


def test_an_output_that_is_not_empty_is_refused_before_anything_is_read(planted, rkstore, tmp_path):
    store, checkpoint = planted
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    said = refused(rkstore, "samples", checkpoint, "--store", store.root, "--out", "mine")
    assert "something at mine already" in said
    assert (tmp_path / "mine/file").read_text() == "x"
