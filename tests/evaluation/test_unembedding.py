"""Logits of latents: every number against products of the plain model's own matrices."""

import base64
import json
import re
import shutil
import zlib

import numpy as np
import pytest
import torch
from read_by_others import ask, circuit_tracer_feature, lines, needs_readers
from torch.nn import functional as F

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.functional import Loaded
from rkstore.evaluation.report.page.write import write_report
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.settings import SamplesSettings
from rkstore.evaluation.samples.write import write_samples
from rkstore.evaluation.unembedding import Unembedding, directions, path_of, written
from rkstore.harvest.load import load_model, load_plain
from rkstore.store.sites import Site

WIDTH, BLOCK = 16, 16


@pytest.fixture(scope="module")
def loaded(model_dir):
    """The tiny GPT-2."""
    return Loaded(load_model(str(model_dir)), "", ())


@pytest.fixture(scope="module")
def weights(model_dir):
    """Its matrices, in float64."""
    plain = load_plain(str(model_dir))[0]
    return {name: weight.detach().double() for name, weight in plain.named_parameters()}


@pytest.fixture(scope="module")
def other(model_dir, tmp_path_factory):
    """Call it with a name of transformers for a small model of that kind, and its weights."""
    import transformers

    def make(kind):
        size = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32}
        size |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
        size |= {"head_dim": 8, "max_position_embeddings": 32, "pad_token_id": 0}
        torch.manual_seed(0)
        plain = getattr(transformers, f"{kind}ForCausalLM")(
            getattr(transformers, f"{kind}Config")(**size)
        ).eval()
        for weight in plain.parameters():
            weight.data += 0.3 * torch.randn(weight.shape)
        root = tmp_path_factory.mktemp("other") / "model"
        plain.save_pretrained(root)
        for file in model_dir.glob("tokenizer*"):
            shutil.copy(file, root)
        return Loaded(load_model(str(root)), "", ()), plain

    return make


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def alike(found, expected):
    """Equal but for one positive factor."""
    factor = (found.double() * expected).sum() / expected.square().sum()
    assert factor > 0
    torch.testing.assert_close(found.double(), factor * expected, rtol=1e-4, atol=1e-4)


def through_norm(stream, weights):
    centred = stream - stream.mean(dim=1, keepdim=True)
    return centred * weights["transformer.ln_f.weight"] @ weights["transformer.wte.weight"].T


@pytest.mark.parametrize(
    ("part", "width", "matrix"),
    [
        ("hook_resid_pre", 16, None),
        ("hook_resid_mid", 16, None),
        ("hook_resid_post", 16, None),
        ("hook_mlp_out", 16, None),
        ("hook_attn_out", 16, None),
        ("mlp.hook_post", 64, "mlp.c_proj"),
        ("attn.hook_z", 16, "attn.c_proj"),
    ],
)
def test_logits_are_the_product_of_the_matrices_on_the_path(loaded, weights, part, width, matrix):
    v = rows(5, width)
    stream = written(loaded, f"blocks.1.{part}", v)
    expected = v.double()
    if matrix:
        expected = expected @ weights[f"transformer.h.1.{matrix}.weight"]
    torch.testing.assert_close(stream.double(), expected, rtol=1e-4, atol=1e-4)
    alike(Unembedding.of(loaded).logits(stream), through_norm(expected, weights))


@pytest.mark.parametrize("part", ["mlp.hook_pre", "mlp.hook_in", "ln1.hook_normalized"])
def test_what_is_not_added_to_the_stream_has_no_logits(loaded, part):
    width = loaded.model.widths[f"blocks.1.{part}"]
    with pytest.raises(BadInput, match="is not added to the residual stream"):
        written(loaded, f"blocks.1.{part}", rows(2, width))


def test_a_norm_without_a_mean_takes_none_away(other):
    loaded, plain = other("Llama")
    v = rows(5, 16)
    found = Unembedding.of(loaded).logits(v)
    alike(found, v.double() * plain.model.norm.weight.double() @ plain.lm_head.weight.double().T)


def test_a_gain_around_one_and_a_norm_behind_the_mlp_are_seen(other):
    """Gemma 2: its gain is 1 + weight, and what the MLP writes is normed before it is added."""
    loaded, plain = other("Gemma2")
    v = rows(5, 16)
    gain = 1 + plain.model.norm.weight.double()
    expected = v.double() * gain @ plain.lm_head.weight.double().T
    alike(Unembedding.of(loaded).logits(v), expected)
    torch.testing.assert_close(written(loaded, "blocks.1.hook_mlp_out", v), v)
    with pytest.raises(BadInput, match="is not added to the residual stream"):
        written(loaded, "blocks.1.mlp.hook_post", rows(2, 32))


def dictionary_of(banks, seed=0):
    made = Dictionary(Wiring(tuple(banks), together=len(banks) > 1), select_named("relu", {}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return made.eval()


def test_of_sites_that_are_added_the_sum_counts_and_of_the_stream_the_last(loaded):
    adds = [Site(f"blocks.{layer}.hook_mlp_out", WIDTH) for layer in (0, 1)]
    clt = dictionary_of([Bank(4, (adds[0],), tuple(adds)), Bank(4, (adds[1],), (adds[1],))])
    first, second = (weights.W_dec.detach() for _, weights in clt.banks)
    expected = torch.cat([first[:, :WIDTH] + first[:, WIDTH:], second])
    torch.testing.assert_close(directions(clt, loaded), F.normalize(expected, dim=1))
    streams = tuple(Site(f"blocks.{layer}.hook_resid_post", WIDTH) for layer in (0, 1))
    crosscoder = dictionary_of([Bank(4, streams, streams)])
    [(_, own)] = crosscoder.banks
    with torch.no_grad():
        own.W_dec[3, WIDTH:] = 0
    expected = torch.cat([own.W_dec[:3, WIDTH:], own.W_dec[3:, :WIDTH]]).detach()
    torch.testing.assert_close(directions(crosscoder, loaded), F.normalize(expected, dim=1))
    mixed = dictionary_of([Bank(4, streams, (streams[0], adds[1]))])
    with pytest.raises(BadInput, match="count some of it twice"):
        directions(mixed, loaded)


def test_the_path_is_told_in_words(loaded):
    post, out = Site("blocks.1.mlp.hook_post", 64), Site("blocks.1.hook_mlp_out", 16)
    told = path_of(dictionary_of([Bank(4, (post,), (post,))]), loaded)
    assert told == "the output matrix of the MLP, the gain of the final norm and the unembedding"
    told = path_of(dictionary_of([Bank(4, (out,), (out,))]), loaded)
    assert told == "the gain of the final norm and the unembedding"


# On the page.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A dictionary of the shared store, some latents of which fire."""
    site = Site("blocks.1.mlp.hook_post", 64)
    made = dictionary_of([Bank(40, (site,), (site,))])
    path = tmp_path_factory.mktemp("logits") / "dictionary"
    path.mkdir()
    save_dictionary(made, path, {"hook_name": site.hook_name, "model_name": "tiny"})
    return path, made


@pytest.fixture(scope="module")
def page(checkpoint, harvested, model_dir, tmp_path_factory):
    """The latents of its report, and the tokenizer's numbers of the page's tokens."""
    out = tmp_path_factory.mktemp("report") / "pages"
    write_report(
        [checkpoint[0]],
        ReportSettings(
            store=harvested.where, out=str(out), model=(str(model_dir),), any_model=True
        ),
    )

    def given(path):
        return json.loads(f"[{(out / path).read_text().partition('(')[2].rpartition(')')[0]}]")

    _, packed = given("data/latents/0000.js")
    found = json.loads(zlib.decompress(base64.b64decode(packed), -15))
    ids = np.frombuffer(base64.b64decode(given("data/vocab.js")[1]), "<u4")
    return found, ids, given("data/meta.js")[0]


@pytest.fixture(scope="module")
def logits(checkpoint, weights, harvested):
    """Those of each latent of norm 1 in the residual stream, by hand: ``(latents, tokens)``."""
    _, made = checkpoint
    [(_, own)] = made.banks
    stream = own.W_dec.detach().double() @ weights["transformer.h.1.mlp.c_proj.weight"]
    found = through_norm(F.normalize(stream, dim=1), weights)
    return found[:, : harvested.manifest.source["tokenizer"]["tokens"]].numpy()


@pytest.fixture(scope="module")
def by_hand(logits):
    """The same in standard deviations, among latents and among tokens."""
    among = (logits - logits.mean(axis=0)) / logits.std(axis=0)
    raw = logits - logits.mean(axis=1, keepdims=True)
    return among, raw / raw.std(axis=1, keepdims=True)


def test_the_page_shows_the_largest_and_lowest_on_both_scales(page, by_hand):
    found, ids, meta = page
    shown = 0
    for latent, record in enumerate(found):
        if not record["groups"]:
            continue
        for scale, z in zip(("token", "raw"), by_hand, strict=True):
            for sign, ranked in zip((1, -1), record["logits"][scale], strict=True):
                expected = np.sort(sign * z[latent])[::-1][:7]
                tokens, values = ranked
                at = [z[latent][ids[token]] for token in tokens]
                np.testing.assert_allclose(sign * np.array(at), expected, atol=1e-3)
                np.testing.assert_allclose(np.array(values) / 10, at, atol=0.051)
                shown += 1
    assert shown > 40
    assert meta["latents"]["logits_path"].startswith("By the output matrix of the MLP")


def test_the_score_is_that_of_the_tokens_that_really_follow(page, checkpoint, by_hand, harvested):
    found, _, _ = page
    ids = harvested.column("token_id").astype(int)
    code = checkpoint[1].encode(torch.from_numpy(harvested.read("blocks.1.mlp.hook_post")))
    f = code.detach().double().numpy()
    known = (np.arange(len(ids)) % BLOCK != BLOCK - 1) & (ids != 0)
    at = np.flatnonzero(known[:-1])
    for latent, record in enumerate(found):
        mass = f[at, latent]
        if not record["groups"] or not mass.any():
            continue
        score = (mass * by_hand[0][latent][ids[at + 1]]).sum() / mass.sum()
        assert record["next"] == pytest.approx(score, abs=2e-3)


def test_a_site_without_a_path_and_another_model_are_refused_before_any_work(
    rkstore, harvested, tmp_path, checkpoint
):
    status, out, err = rkstore(
        "report", checkpoint[0], "--store", harvested.where, "--model", "demo", "--out", "r"
    )
    assert status == 2
    assert out == ""
    assert re.search("other weights", err)
    assert not (tmp_path / "r").exists()


# In the layouts of other programs.


@pytest.fixture(scope="module")
def samples(checkpoint, harvested, model_dir, tmp_path_factory):
    """Call it with a layout; returns the directory of the samples, with the model."""

    def write(to, path=checkpoint[0]):
        out = tmp_path_factory.mktemp("samples") / to
        settings = SamplesSettings(
            store=harvested.where, to=to, out=str(out), model=(str(model_dir),), any_model=True
        )
        write_samples(path, settings)
        return out

    return write


@pytest.fixture(scope="module")
def dashboard(samples):
    """The features of a dashboard."""
    return json.loads((samples("saedashboard") / "1-rkstore/batch-0.json").read_text())["features"]


def test_a_dashboard_has_the_ten_largest_and_lowest_logits(dashboard, logits, harvested):
    assert len(dashboard) == len(logits)
    centred = logits - logits.mean(axis=1, keepdims=True)
    for feature, own in zip(dashboard, centred, strict=True):
        for side, order in (("pos", np.argsort(-own)), ("neg", np.argsort(own))):
            words = [harvested.words.word(int(id)) for id in order[:10]]
            assert feature[f"{side}_str"] == words
            np.testing.assert_allclose(feature[f"{side}_values"], own[order[:10]], atol=2e-5)


def test_the_histogram_of_a_dashboard_has_every_token_once(dashboard, logits):
    centred = logits - logits.mean(axis=1, keepdims=True)
    for feature, own in zip(dashboard, centred, strict=True):
        heights, edges = np.histogram(own, bins=50)
        found = np.array(feature["logits_hist_data_bar_heights"])
        assert found.sum() == len(own)
        # A logit on the border of two bins may be rounded into either.
        assert np.abs(np.cumsum(found - heights)).max() <= 1
        middle = (edges[:-1] + edges[1:]) / 2
        np.testing.assert_allclose(feature["logits_hist_data_bar_values"], middle, atol=2e-5)


def test_a_dashboard_and_the_page_name_the_same_tokens(dashboard, page, logits, harvested):
    records, ids, _ = page
    shown = [(latent, one) for latent, one in enumerate(records) if one["groups"]]
    assert len(shown) > 10
    for latent, record in shown:
        for side, (tokens, values) in zip(("pos", "neg"), record["logits"]["raw"], strict=True):
            words = [harvested.words.word(int(ids[token])) for token in tokens]
            assert dashboard[latent][f"{side}_str"][:7] == words
            found = np.array(dashboard[latent][f"{side}_values"][:7]) / logits[latent].std()
            np.testing.assert_allclose(found, np.array(values) / 10, atol=0.051)


def test_an_upload_and_the_pages_of_circuit_tracer_have_the_same_logits(dashboard, samples):
    upload = samples("neuronpedia")
    [file] = upload.glob("*/1-rkstore/features/batch-0.jsonl.gz")
    features = samples("circuit-tracer") / "features"
    for latent, (line, feature) in enumerate(zip(lines(file), dashboard, strict=True)):
        names = [name for name in feature if name.startswith(("pos_", "neg_", "logits_"))]
        assert len(names) == 6
        assert all(line[name] == feature[name] for name in names)
        read = circuit_tracer_feature(features, 1, latent)
        for mine, theirs in (("top_logits", "pos_str"), ("bottom_logits", "neg_str")):
            assert len(read[mine]) == 10
            # There a part of a character is its bytes.
            both = zip(read[mine], feature[theirs], strict=True)
            assert all(a == b or ("\ufffd" in b and a.startswith("\\x")) for a, b in both)


def test_a_latent_that_writes_nothing_has_no_logits(samples, checkpoint, tmp_path):
    made = dictionary_of([bank for bank, _ in checkpoint[1].banks])
    with torch.no_grad():
        made.banks[0][1].W_dec[3] = 0
    save_dictionary(made, tmp_path, {"hook_name": "blocks.1.mlp.hook_post", "model_name": "tiny"})
    found = samples("saedashboard", tmp_path) / "1-rkstore/batch-0.json"
    features = json.loads(found.read_text())["features"]
    empty = [i for i, one in enumerate(features) if not one["pos_str"]]
    assert empty == [3]
    assert features[3]["logits_hist_data_bar_heights"] == features[3]["neg_values"] == []


@pytest.mark.parametrize("to", ["parquet", "delphi"])
@pytest.mark.parametrize("flags", [["--with-model"], ["--model", "demo"]])
def test_a_layout_without_a_place_for_logits_is_refused(
    rkstore, harvested, tmp_path, checkpoint, to, flags
):
    status, _, err = rkstore(
        "samples", checkpoint[0], "--store", harvested.where, "--to", to, "--out", "s", *flags
    )
    assert (status, err.count("\n")) == (2, 1)
    assert f"--to {to} has no place for logits: leave out {flags[0]}" in err
    assert not (tmp_path / "s").exists()


def test_samples_refuse_another_model(rkstore, harvested, tmp_path, checkpoint):
    given = ("--store", harvested.where, "--to", "neuronpedia", "--model", "demo", "--out", "s")
    status, _, err = rkstore("samples", checkpoint[0], *given)
    assert (status, err.count("\n")) == (2, 1)
    assert "other weights" in err
    assert not (tmp_path / "s").exists()


@needs_readers
def test_saedashboard_and_circuit_tracer_read_logits(samples, dashboard, tmp_path):
    read = ask("saedashboard", samples("saedashboard") / "1-rkstore/batch-0.json")
    for found, given in zip(read, dashboard, strict=True):
        assert all(found[name] == given[name] for name in found if name != "activations")
    own = circuit_tracer_feature(samples("circuit-tracer") / "features", 1, 2)
    (tmp_path / "2.json").write_text(json.dumps(own, allow_nan=False))
    found = ask("circuit-tracer", tmp_path / "2.json")
    assert (found["top_logits"], len(found["bottom_logits"])) == (own["top_logits"], 10)


@needs_readers
def test_saedashboard_makes_the_same_table_and_histogram(dashboard, logits, harvested, tmp_path):
    np.save(tmp_path / "logits.npy", logits - logits.mean(axis=1, keepdims=True))
    read = ask("saedashboard-logits", tmp_path / "logits.npy")
    for feature, own in zip(dashboard, read, strict=True):
        for side, name in (("pos", "top"), ("neg", "bottom")):
            words = [harvested.words.word(id) for id in own[f"{name}_token_ids"]]
            assert feature[f"{side}_str"] == words
            np.testing.assert_allclose(feature[f"{side}_values"], own[f"{name}_logits"], atol=2e-5)
        heights = np.array(feature["logits_hist_data_bar_heights"])
        assert np.abs(np.cumsum(heights - own["heights"])).max() <= 1
        np.testing.assert_allclose(feature["logits_hist_data_bar_values"], own["values"], atol=2e-5)
