"""Samples in the layouts of other programs: by their schemas, and by their readers if installed.

The fields are those of SAEDashboard's ``neuronpedia_dashboard.py`` and ``neuronpedia_export.py``,
of Delphi's ``cache.py`` and of circuit-tracer's ``feature_models.py``.
"""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from read_by_others import ask, circuit_tracer_feature, lines, needs_readers
from safetensors.numpy import load_file
from worded import make_tokenizer, write_worded

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.evaluation.samples.layouts import LAYOUTS
from rkstore.evaluation.samples.settings import SamplesSettings
from rkstore.evaluation.samples.write import write_samples
from rkstore.store.sites import Site

SITES = {"blocks.0.hook_in": 6, "blocks.1.hook_in": 6}
ROWS, BLOCK, LATENTS = 216, 8, 150


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two layers of whole numbers, words of a tokenizer, BOS first in each block."""
    rng, tokenizer = np.random.default_rng(0), make_tokenizer()
    tokens = np.where(np.arange(ROWS) % BLOCK == 0, 0, rng.integers(100, 266, ROWS))
    x = {name: rng.integers(-3, 4, (ROWS, width)) for name, width in SITES.items()}
    values = {name: array.astype(np.float32) for name, array in x.items()}
    root = tmp_path_factory.mktemp("stores") / "two"
    source = {"model": {"name": "owner/small"}, "text": {"dataset": "a/b", "split": "train"}}
    options = {"sites": SITES, "codec": "float32", "source": source}
    made, _ = write_worded(root, tokenizer, tokens, values, **options)
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A dictionary of two banks, one a layer; latent 0 never fires."""
    sites = [Site(name, width) for name, width in SITES.items()]
    banks = tuple(Bank(LATENTS, (site,), (site,)) for site in sites)
    made = Dictionary(Wiring(banks, centred=True), select_named("relu", {}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, weights in made.banks:
            shape = weights.W_enc.shape
            weights.W_enc.copy_(torch.randint(-2, 3, shape, generator=generator))
            weights.b_enc.fill_(-8)
            weights.W_dec.normal_(generator=generator)
        made.banks[0][1].W_enc[:, 0] = 0
    path = tmp_path_factory.mktemp("checkpoints") / "small_100"
    path.mkdir()
    save_dictionary(made, path, {"model_name": "small"})
    return path


@pytest.fixture(scope="module")
def written(store, checkpoint, tmp_path_factory):
    """Call it with a layout and options; returns the directory and the samples."""

    def write(to, **options):
        out = tmp_path_factory.mktemp("out") / "samples"
        few = {"max_samples_per_feature": 14, "samples_per_quantile": 2, "sample_context_size": 7}
        settings = SamplesSettings(store=str(store.root), to=to, out=str(out), **(few | options))
        samples, _, _ = write_samples(checkpoint, settings)
        return out, samples

    return write


NAMES = """
    neuron_alignment_indices neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices
    correlated_neurons_pearson correlated_neurons_l1 correlated_features_indices
    correlated_features_pearson correlated_features_l1 neg_str neg_values pos_str pos_values
    freq_hist_data_bar_heights freq_hist_data_bar_values logits_hist_data_bar_heights
    logits_hist_data_bar_values decoder_weights_dist
"""
TABLES = NAMES.split()


def of_latent(samples, latent):
    return slice(int(samples.starts[latent]), int(samples.starts[latent + 1]))


def test_a_dashboard_has_the_fields_of_saedashboard(written, store):
    out, samples = written("saedashboard", source_set="res")
    assert sorted(path.name for path in out.iterdir()) == ["0-res", "1-res"]
    features = []
    for number in (0, 1):
        batch = json.loads((out / f"1-res/batch-{number}.json").read_text("utf-8"))
        assert set(batch) == {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
        assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("small", 1, "res")
        features += batch["features"]
    assert [feature["feature_index"] for feature in features] == list(range(LATENTS))
    for index, feature in enumerate(features):
        latent = LATENTS + index
        assert set(feature) == {
            *("feature_index", *TABLES, "frac_nonzero", "n_prompts_total", "n_tokens_in_prompt"),
            *("dataset", "activations", "vector"),
        }
        assert feature["frac_nonzero"] == samples.fired[latent] / samples.rows
        assert feature["freq_hist_data_bar_heights"] == samples.histogram[latent].tolist()
        own = range(len(samples.row))[of_latent(samples, latent)]
        assert len(feature["activations"]) == len(own)
        for i, one in zip(own, feature["activations"], strict=True):
            at, row = one["qualifying_token_index"], int(samples.row[i])
            assert one["values"][at] == pytest.approx(samples.value[i])
            assert one["tokens"] == store.tokens(slice(row - at, row - at + BLOCK))
            assert at == row % BLOCK


def test_the_intervals_of_a_dashboard_contain_every_token_once(written):
    out, _ = written("saedashboard", source_set="res")
    batch = json.loads((out / "1-res/batch-0.json").read_text("utf-8"))
    for feature in batch["features"]:
        found = {one["bin_min"]: one for one in feature["activations"] if one["bin_min"] >= 0}
        shares = [one["bin_contains"] for one in found.values()]
        assert sum(shares) <= 1 + 1e-9
        for one in found.values():
            at = one["qualifying_token_index"]
            assert one["bin_min"] - 1e-4 <= one["values"][at] <= one["bin_max"] + 1e-4


FEATURE = {
    *("modelId", "layer", "index", "creatorId", "createdAt", "maxActApprox", "hasVector"),
    *("vector", "vectorLabel", "vectorDefaultSteerStrength", "hookName", "topkCosSimIndices"),
    *("topkCosSimValues", "frac_nonzero", "sourceSetName", *TABLES),
}
NAMES = """
    id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId dataSource
    dataIndex dfaValues dfaTargetIndex dfaMaxValue createdAt lossValues logitContributions binMin
    binMax binContains qualifyingTokenIndex zIndices zValues
"""
ACTIVATION = set(NAMES.split())


def test_an_upload_has_the_lines_of_neuronpedia(written):
    out, samples = written("neuronpedia", model_id="small-m", source_set="res", vectors=True)
    folder = out / "small-m/0-res"
    names = ["activations", "features", "model", "release", "source", "sourceset"]
    assert sorted(path.name.removesuffix(".jsonl") for path in folder.iterdir()) == names
    source = json.loads((folder / "source.jsonl").read_text())
    assert (source["id"], source["setName"], source["modelId"]) == ("0-res", "res", "small-m")
    features = [line for n in (0, 1) for line in lines(folder / f"features/batch-{n}.jsonl.gz")]
    assert [feature["index"] for feature in features] == [str(i) for i in range(LATENTS)]
    assert all(set(feature) == FEATURE for feature in features)
    assert features[0]["maxActApprox"] == 0
    assert features[1]["maxActApprox"] == pytest.approx(samples.largest[1])
    assert (len(features[1]["vector"]), features[1]["hookName"]) == (6, "blocks.0.hook_in")
    activations = [
        line for n in (0, 1) for line in lines(folder / f"activations/batch-{n}.jsonl.gz")
    ]
    assert len(activations) == samples.starts[LATENTS]
    assert all(set(one) == ACTIVATION for one in activations)
    assert len({one["id"] for one in activations}) == len(activations)
    for one in activations:
        assert len(one["id"]) == 25
        assert one["values"][one["maxValueTokenIndex"]] == one["maxValue"] == max(one["values"])
        assert len(one["values"]) == len(one["tokens"])


def test_the_features_of_circuit_tracer_are_found_by_layer_and_index(written, store):
    out, samples = written("circuit-tracer")
    for layer in (0, 1):
        for index in (0, 1, LATENTS - 1):
            latent = layer * LATENTS + index
            found = circuit_tracer_feature(out / "features", layer, index)
            assert (found["index"], found["transcoder_id"]) == (index, "small_100")
            assert found["act_max"] == samples.largest[latent]
            assert found["activation_frequency"] == samples.fired[latent] / samples.rows
            examples = [one for group in found["examples_quantiles"] for one in group["examples"]]
            own = range(len(samples.row))[of_latent(samples, latent)]
            assert len(examples) == len(own)
            for i, one in zip(own, examples, strict=True):
                at = one["train_token_ind"]
                assert one["tokens_acts_list"][at] == pytest.approx(samples.value[i])
                [piece] = store.words.pieces([store.column("token_id")[samples.row[i]]])
                whole = isinstance(piece, str)
                assert one["tokens"][at] == (piece if whole else f"\\x{piece[0]:02x}")


def test_the_cache_of_delphi_has_every_activation(written, store, checkpoint):
    from rkstore.dictionaries import load_dictionary

    out, _ = written("delphi", n_splits=4)
    made, _ = load_dictionary(checkpoint)
    x = {name: torch.from_numpy(store.read(name)) for name in SITES}
    code = made.encode(x).detach().numpy()
    code[::BLOCK] = 0  # rows of BOS are left out
    for layer, name in enumerate(SITES):
        config = json.loads((out / name / "config.json").read_text())
        assert (config["model_name"], config["cache_ctx_len"]) == ("owner/small", BLOCK)
        found = np.zeros((ROWS // BLOCK, BLOCK, LATENTS), np.float32)
        edges = torch.linspace(0, LATENTS, 5).long().tolist()
        assert len(list((out / name).glob("*.safetensors"))) == 4
        for first, stop in pairwise(edges):
            read = load_file(out / name / f"{first}_{stop - 1}.safetensors")
            at = read["locations"].astype(int)
            assert (read["locations"].dtype, read["activations"].dtype) == (np.uint16, np.float16)
            assert (np.diff(at[:, 0] * BLOCK + at[:, 1]) >= 0).all()
            found[at[:, 0], at[:, 1], at[:, 2] + first] = read["activations"]
            assert read["tokens"].reshape(-1).tolist() == store.column("token_id").tolist()
        own = code[:, layer * LATENTS : (layer + 1) * LATENTS]
        np.testing.assert_array_equal(found.reshape(ROWS, LATENTS), own)


@pytest.mark.parametrize("to", LAYOUTS)
def test_equal_samples_have_equal_bytes_in_every_layout(written, to):
    one, other = written(to)[0], written(to)[0]
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert files
    for path in files:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


@pytest.mark.parametrize("to", [name for name in LAYOUTS if name != "parquet"])
def test_latents_of_several_sites_are_refused_where_a_program_has_none(
    store, rkstore, tmp_path, to
):
    sites = tuple(Site(name, width) for name, width in SITES.items())
    made = Dictionary(Wiring((Bank(4, sites, sites),), centred=True), select_named("relu", {}))
    (tmp_path / "crosscoder").mkdir()
    save_dictionary(made, tmp_path / "crosscoder", {})
    status, _, err = rkstore("samples", "crosscoder", "--store", store.root, "--to", to)
    assert (status, err.count("\n")) == (2, 1)
    assert "one site of one layer" in err
    assert not (tmp_path / "results").exists()


@needs_readers
def test_saedashboard_reads_its_batches(written):
    out, samples = written("saedashboard")
    features = ask("saedashboard", out / "0-rkstore/batch-0.json")
    counts = [len(feature["activations"]) for feature in features]
    assert counts == np.diff(samples.starts)[:128].tolist()


@needs_readers
def test_circuit_tracer_reads_its_features(written, tmp_path):
    out, samples = written("circuit-tracer")
    for index in (0, 3):
        (tmp_path / f"{index}.json").write_text(
            json.dumps(circuit_tracer_feature(out / "features", 0, index), allow_nan=False)
        )
        read = ask("circuit-tracer", tmp_path / f"{index}.json")
        assert read["act_max"] == samples.largest[index]


@needs_readers
def test_delphi_reads_its_cache(written):
    out, samples = written("delphi")
    fired = ask("delphi", out)
    for layer, name in enumerate(SITES):
        own = samples.fired[layer * LATENTS : (layer + 1) * LATENTS]
        assert fired[name] == {str(i): n for i, n in enumerate(own.tolist()) if n}
