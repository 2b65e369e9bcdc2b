"""Planted stores: their rows are what their truth says, for every kind, to the same bytes."""

import numpy as np
import pytest
from conftest import tree
from safetensors import safe_open

from rkstore.errors import BadInput
from rkstore.planted.settings import KINDS, PlantSettings
from rkstore.planted.store import plant
from rkstore.planted.truth import planted_in, truth_path
from rkstore.store.sites import Pair
from rkstore.store.writing.writer import StoreWriter

SMALL = {
    "features": 48,
    "roots": 2,
    "d_in": (12,),
    "rows": 700,
    "context_size": 10,
    "shard_rows": 300,
    "codec": "float32",
}


@pytest.fixture
def make(tmp_path):
    """Call it to plant small stores; returns them."""

    def run(out="planted", **options):
        return plant(PlantSettings(**(SMALL | {"out": str(tmp_path / out)} | options)))

    return run


def rows_of(stores):
    """Every row of every planted site, by its name."""
    return {
        site.name: store.read(site.hook_name, 0, store.rows)
        for store in stores
        for site in planted_in(store).sites
        if store.manifest.source["model"]["name"] in ("planted", f"planted-{site.model}")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_true_code_times_the_directions_plus_the_bias(make, kind):
    stores = make(kind=kind)
    planted = planted_in(stores[0])
    found, code = rows_of(stores), planted.codes(0, 700)
    assert found.keys() == planted.directions.keys()
    for name, x in found.items():
        expected = code @ planted.directions[name] + planted.biases[name]
        assert np.abs(x - expected).max() < 1e-4
        assert x.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_unit_where_a_feature_is_part_of_a_site_and_zero_elsewhere(make, kind):
    for site in (planted := planted_in(make(kind=kind)[0])).sites:
        norms = np.linalg.norm(planted.directions[site.name], axis=1)
        assert norms == pytest.approx(site.has.astype(float), abs=1e-6)


def test_what_a_planted_mlp_writes_is_linear_in_the_code_of_what_it_reads(make):
    [store] = make(kind="transcoder", d_in=(12, 7))
    planted = planted_in(store)
    reads, writes = planted.sites
    assert (reads.hook_name, writes.hook_name) == ("blocks.0.mlp.hook_in", "blocks.0.hook_mlp_out")
    assert (reads.width, writes.width) == (12, 7)
    assert reads.has.all()
    assert writes.has.all()
    assert store.pairs == (Pair("mlp", 0, reads.hook_name, writes.hook_name),)


def test_in_layers_each_feature_is_read_once_and_written_there_and_in_all_later_ones(make):
    [store] = make(kind="layers", layers=4)
    planted = planted_in(store)
    reads = np.stack([site.has for site in planted.sites[::2]])
    writes = np.stack([site.has for site in planted.sites[1::2]])
    assert (reads.sum(axis=0) == 1).all()
    assert (reads.sum(axis=1) == 12).all()
    assert (writes == np.maximum.accumulate(reads, axis=0)).all()
    names = [site.name for site in planted.sites]
    assert [(p.reads, p.writes) for p in store.pairs] == list(
        zip(names[::2], names[1::2], strict=True)
    )
    own = [planted.directions[site.name] for site in planted.sites[1::2]]
    assert not np.allclose(own[2][writes[1]], own[3][writes[1]])  # each layer by its own directions


def test_in_a_crosscoder_store_exclusive_features_lie_at_adjacent_sites_only(make):
    planted = planted_in(make(kind="crosscoder", layers=4, exclusive=0.5)[0])
    has = np.stack([site.has for site in planted.sites])
    sites = has.sum(axis=0)
    assert (sites == 4).sum() == 24
    assert sites.min() == 1
    assert (np.abs(np.diff(has.astype(int), axis=0)).sum(axis=0) <= 2).all()


def test_two_models_share_tokens_and_all_but_the_exclusive_features(make):
    base, chat = make(kind="models", d_in=(12, 9), exclusive=0.25)
    planted = planted_in(base)
    first, second = (site.has for site in planted.sites)
    assert ((first & second).sum(), (first & ~second).sum(), (~first & second).sum()) == (36, 6, 6)
    [hook] = {*base.hook_names, *chat.hook_names}
    assert (base.manifest.width(hook), chat.manifest.width(hook)) == (12, 9)
    for column in ("token_id", "document", "position"):
        assert (base.column(column, 0, 700) == chat.column(column, 0, 700)).all()


def test_a_token_is_the_feature_that_fires_most(make):
    [store] = make()
    code = planted_in(store).codes(0, 700)
    expected = np.where(code.any(axis=1), code.argmax(axis=1), 48)
    assert (store.column("token_id", 0, 700) == expected).all()
    assert (store.column("document", 0, 700) == np.arange(700) // 10).all()


def test_the_truth_lies_beside_the_store(make, tmp_path):
    [store] = make(kind="sae")
    planted = planted_in(store)
    with safe_open(tmp_path / "planted.truth.safetensors", "np") as file:
        assert (file.get_tensor("probability") == planted.forest.probability).all()
        name = "directions.blocks.0.hook_resid_post"
        assert (file.get_tensor(name) == planted.directions["blocks.0.hook_resid_post"]).all()
        assert '"seed": 0' in file.metadata()["planted"]


@pytest.mark.parametrize("kind", ["sae", "models"])
def test_a_resumed_store_has_the_same_bytes(make, tmp_path, monkeypatch, kind):
    make("whole", kind=kind, noise=0.1)
    real, shards = StoreWriter.finish_shard, []

    def stopping(writer, shard):
        if len(shards) == 1:
            raise KeyboardInterrupt
        shards.append(shard)
        real(writer, shard)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            make("stopped", kind=kind, noise=0.1)
    make("stopped", kind=kind, noise=0.1)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    truths = [truth_path(tmp_path / name).read_bytes() for name in ("stopped", "whole")]
    assert truths[0] == truths[1]


def test_how_rows_are_stored_does_not_change_the_truth(make):
    one = make("one", rows=300)[0].manifest.source["planted"]
    two = make("two", rows=700, codec="int8", shard_rows=100)[0].manifest.source["planted"]
    assert one == two


def test_easy_is_only_its_options(make):
    easy = make("easy", easy=True, features=30, roots=None)[0]
    same = make("same", features=30, roots=0, p_max=0.04, p_min=0.03, correlation=0.0)[0]
    assert easy.manifest.fingerprint == same.manifest.fingerprint


def test_another_seed_does_not_continue_a_store(make):
    make()
    with pytest.raises(BadInput, match="another configuration"):
        make(seed=1)


def test_only_a_planted_store_has_a_truth(make_store):
    with pytest.raises(BadInput, match="was not planted"):
        planted_in(make_store()[0])


def test_a_store_of_features_that_this_version_draws_differently_is_refused(make, monkeypatch):
    [store] = make()
    monkeypatch.setattr("rkstore.planted.truth.truth_digest", lambda _: "other")
    with pytest.raises(BadInput, match="planted with other versions"):
        planted_in(store)


def test_the_features_at_sites_are_those_that_are_part_of_one(make):
    planted = planted_in(make(kind="crosscoder", layers=2, exclusive=0.5)[0])
    first, second = planted.sites
    part, directions = planted.at(first.name)
    assert (part == np.flatnonzero(first.has)).all()
    assert directions.shape == (len(part), 12)
    part, directions = planted.at()
    assert directions.shape == (48, 24)
    assert (directions[:, 12:] == planted.directions[second.name]).all()
    with pytest.raises(BadInput, match=r"'blocks\.7' is no planted site: choose of blocks\.0"):
        planted.at("blocks.7")


def test_the_command_plants_and_says_what(rkstore, tmp_path):
    words = ("plant", "--easy", "--rows", "1e3", "--context-size", "10", "--kind", "layers")
    status, out, err = rkstore(*words, "--out", "p")
    assert status == 0, err
    assert "planted layers, 96 features, seed 0" in out
    assert "1,000 in blocks of 10" in out
    assert (tmp_path / "p.truth.safetensors").is_file()
    assert rkstore("verify", "p")[0] == 0


def test_the_command_refuses_in_one_sentence(rkstore):
    status, out, err = rkstore("plant", "--layers", "3")
    assert (status, out) == (2, "")
    assert err == (
        "rkstore: --layers has no effect without --kind layers or crosscoder: leave it out\n"
    )


def test_easy_on_the_command_line_counts_beside_a_file(rkstore, tmp_path):
    (tmp_path / "p.yaml").write_text("rows: 256\nseed: 3\n")
    status, out, err = rkstore("plant", "--config", "p.yaml", "--easy")
    assert status == 0, err
    assert "planted sae, 96 features, seed 3" in out


def test_an_import_of_an_export_has_no_truth_because_its_rows_may_be_others(make, rkstore):
    [store] = make()
    assert rkstore("export", store.root, "--to", "npy", "--out", "away")[0] == 0
    status, _, err = rkstore("import", "away", "--from", "npy", "--out", "back")
    assert status == 0, err
    with pytest.raises(BadInput, match="was imported"):
        planted_in(type(store)("back"))


@pytest.mark.parametrize("options", [("topk", "--k", "3"), ("relu", "--l1", "2")])
def test_a_dictionary_recovers_the_easy_features(rkstore, options):
    from rkstore.dictionaries import load_dictionary
    from rkstore.planted.scores import chance_directions, direction_scores
    from rkstore.store.open import open_store

    assert rkstore("plant", "--easy", "--rows", "16384")[0] == 0
    words = ("--d-sae", "192", "--steps", "300", "--batch-size", "256")
    status, out, err = rkstore("train", "stores/planted", "--select", *options, *words)
    assert status == 0, err
    dictionary, _ = load_dictionary(out.strip())
    decoder = dictionary.W_dec.detach().numpy()
    _, features = planted_in(open_store("stores/planted")).at()
    assert direction_scores(decoder, features).mean_max_cosine > 0.95
    assert direction_scores(decoder, features).mcc > 0.95
    assert chance_directions(decoder, features).mean_max_cosine < 0.5
