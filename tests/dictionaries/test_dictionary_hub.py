"""Dictionaries on the Hub: fetched, pushed and described, on a server on loopback."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from conftest import tree
from hub_server import WRITES, serving
from safetensors.torch import save_file

from rkstore import Dictionary
from rkstore.dictionaries import select_named
from rkstore.dictionaries.hub import evaluations
from rkstore.dictionaries.hub.card import mark
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput, RkstoreError
from rkstore.store.files import sha256
from rkstore.store.places.hub import Repository
from rkstore.store.sites import Site

SITE = "blocks.0.mlp.hook_post"
NAME, URL = "org/dictionary", "hf://org/dictionary"
PLACE = Repository("model", NAME)
FILES = ["cfg.json", "sae_weights.safetensors"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that this process finds, with a cache of its own and a token that may write."""
    from huggingface_hub import constants

    with serving({}) as server:
        server.home = tmp_path / "hub"
        chosen = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in chosen.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", WRITES)
        yield server


def made(dictionary, seed=0):
    """The dictionary with random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return dictionary.eval()


def sae(seed=0):
    """An autoencoder of one site, 12 wide, with 24 latents."""
    return made(Dictionary.of_site(12, 24, select_named("topk", {"k": 4}), hook_name=SITE), seed)


def crosscoder():
    sites = (Site(SITE, 12), Site("blocks.1.mlp.hook_post", 12))
    return made(Dictionary(Wiring((Bank(24, sites, sites),)), select_named("relu", {})))


def x(seed=1):
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))


def same(one, other):
    assert torch.equal(one.encode(x()), other.encode(x()))


@pytest.fixture
def published(hub, tmp_path):
    """Call it with dictionaries by sae_id to put them into a repository as they are."""

    def put(dictionaries, name=NAME):
        root = tmp_path / "hub" / name
        root.mkdir(parents=True, exist_ok=True)
        for sae_id, dictionary in dictionaries.items():
            dictionary.save_pretrained(root / sae_id)
        hub.repositories[f"models/{name}"] = root
        return root

    return put


def test_a_dictionary_is_the_same_from_a_directory(tmp_path):
    dictionary = sae()
    dictionary.save_pretrained(tmp_path / "saved")
    same(Dictionary.from_pretrained(tmp_path / "saved"), dictionary)


def test_what_is_saved_names_its_site(tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    found = Dictionary.from_pretrained(tmp_path / "saved")
    assert found.wiring.reads == (Site(SITE, 12),)
    assert found.metadata["hook_name"] == SITE


def test_metadata_stays_with_a_dictionary_that_is_loaded_and_saved(tmp_path):
    dictionary = sae()
    dictionary.metadata = {"model_name": "gpt2", "context_size": 128}
    dictionary.save_pretrained(tmp_path / "one")
    Dictionary.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    again = Dictionary.from_pretrained(tmp_path / "two").metadata
    assert (again["model_name"], again["context_size"]) == ("gpt2", 128)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        sae().save_pretrained(tmp_path / "saved")
    assert tree(tmp_path / "saved") == {"mine.txt": b"mine"}


def test_a_layout_that_cannot_hold_it_is_refused_with_those_that_can(tmp_path):
    with pytest.raises(BadInput, match=r"saelens cannot hold this dictionary: .*rkstore.* can"):
        crosscoder().save_pretrained(tmp_path / "saved", layout="saelens")
    assert not (tmp_path / "saved").exists()


def test_a_repository_is_fetched_and_read(hub, published):
    published({"": sae()})
    same(Dictionary.from_pretrained(NAME), sae())
    same(Dictionary.from_pretrained(URL), sae())
    assert hub.told_elsewhere == []


def test_of_several_dictionaries_only_the_files_of_one_are_fetched(hub, published):
    root = published({f"layer_{i}/width_24": sae(i) for i in range(3)})
    (root / "layer_1" / "width_24" / "optimizer.pt").write_bytes(b"x" * 5000)
    (root / "README.md").write_text("Dictionaries")
    same(Dictionary.from_pretrained(NAME, "layer_1/width_24"), sae(1))
    assert set(hub.served) == {f"layer_1/width_24/{name}" for name in FILES}


def test_which_dictionary_must_be_said_where_there_are_several(published):
    published({f"layer_{i}/width_24": sae(i) for i in range(3)})
    with pytest.raises(BadInput, match=r"name one of them as sae_id.*layer_0/width_24, layer_1"):
        Dictionary.from_pretrained(NAME)
    with pytest.raises(BadInput, match="layer_2/width_24"):
        Dictionary.from_pretrained(NAME, "layer_2")
    with pytest.raises(BadInput, match="no dictionary that rkstore reads, which has layer_0/width"):
        Dictionary.from_pretrained(NAME, "layer_7")


def test_a_revision_is_asked_for(hub, published):
    published({"": sae()})
    same(Dictionary.from_pretrained(NAME, revision="v1"), sae())
    same(Dictionary.from_pretrained(f"{URL}@v1"), sae())
    assert not any("/main" in path for path in hub.asked)


def test_what_is_said_twice_is_refused(published):
    published({"one": sae()})
    with pytest.raises(BadInput, match="leave out the sae_id"):
        Dictionary.from_pretrained(f"{URL}/one", "one")
    with pytest.raises(BadInput, match="leave out the revision"):
        Dictionary.from_pretrained(f"{URL}@v1/one", revision="main")


def test_a_directory_has_no_revision(tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    with pytest.raises(BadInput, match="is a directory, which has no revision"):
        Dictionary.from_pretrained(tmp_path / "saved", revision="v1")


def test_a_repository_without_a_dictionary_is_refused(published):
    root = published({})
    (root / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="has no dictionary that rkstore reads"):
        Dictionary.from_pretrained(NAME)


def test_a_pickle_is_not_even_fetched(hub, published):
    root = published({})
    (root / "sae.pkl").write_bytes(pickle.dumps({"W_enc": [1.0]}))
    with pytest.raises(BadInput, match=r"sae.pkl is a pickle, which could run code"):
        Dictionary.from_pretrained(NAME)
    assert hub.served == {}


@pytest.mark.usefixtures("hub")
def test_a_repository_that_is_not_there_is_one_sentence():
    with pytest.raises(BadInput, match="does not exist, or you may not read it; if it is private"):
        Dictionary.from_pretrained("org/absent")


def test_a_private_repository_is_read_with_a_token(hub, published, monkeypatch):
    published({"": sae()})
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(BadInput, match="log in with 'hf auth login'"):
        Dictionary.from_pretrained(NAME)
    same(Dictionary.from_pretrained(NAME, token="hf_secret"), sae())


def test_without_a_network_what_was_fetched_is_read_again(hub, published, monkeypatch):
    from huggingface_hub import constants

    published({"one": sae(1), "two": sae(2)})
    same(Dictionary.from_pretrained(NAME, "one"), sae(1))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    same(Dictionary.from_pretrained(NAME, "one"), sae(1))
    assert len(hub.asked) == asked
    with pytest.raises(RkstoreError, match="is not all in the Hub's cache"):
        Dictionary.from_pretrained(NAME, "two")


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub, published, monkeypatch):
    from rkstore.store.places import retry

    published({"": sae()})
    monkeypatch.setattr(retry, "WAITS", ())
    hub.shutdown()
    hub.server_close()
    with pytest.raises(RkstoreError, match=r"cannot read hf://org/dictionary: .*HF_HUB_OFFLINE=1"):
        Dictionary.from_pretrained(NAME)


def test_a_dictionary_is_pushed_and_read_again(hub):
    assert sae().push_to_hub(NAME) == URL
    same(Dictionary.from_pretrained(NAME), sae())
    assert [sorted(commit) for commit in hub.commits] == [["README.md", *FILES]]


def test_several_are_pushed_side_by_side(hub):
    assert sae(0).push_to_hub(NAME, "layer_0") == f"{URL}/layer_0"
    sae(1).push_to_hub(NAME, "layer_1")
    for i in range(2):
        same(Dictionary.from_pretrained(NAME, f"layer_{i}"), sae(i))
    root = hub.repositories[f"models/{NAME}"]
    card = (root / "layer_1" / "README.md").read_text()
    assert f"from_pretrained('{NAME}', 'layer_1')" in card
    assert f"snapshot_download('{NAME}', allow_patterns='layer_1/*') + '/layer_1'" in card
    assert f"from_pretrained('{NAME}', 'layer_0')" in (root / "README.md").read_text()


def test_another_dictionary_in_that_directory_is_refused(published):
    root = published({"": sae()})
    before = tree(root)
    (root / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    with pytest.raises(BadInput, match=r"has activation_scaler.json, which is of another dict"):
        sae(1).push_to_hub(NAME)
    (root / "activation_scaler.json").unlink()
    assert tree(root) == before


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_a_token_that_is_missing_or_wrong_is_one_sentence(hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BadInput, match="you may not write to hf://org/dictionary: log in with"):
        sae().push_to_hub(NAME)
    assert hub.repositories == {}


def test_an_upload_that_was_interrupted_leaves_nothing_and_goes_on(hub, monkeypatch):
    from rkstore.store.places import retry

    monkeypatch.setattr(retry, "WAITS", ())
    hub.full = True
    with pytest.raises(RkstoreError, match="run the same command again to continue"):
        sae().push_to_hub(NAME)
    assert hub.commits == []
    hub.full = False
    sae().push_to_hub(NAME)
    same(Dictionary.from_pretrained(NAME), sae())


def test_of_two_pushes_at_once_one_is_refused(hub):
    hub.rival = True
    with pytest.raises(BadInput, match="was changed by another commit meanwhile"):
        sae().push_to_hub(NAME)
    assert hub.commits == []


@pytest.mark.usefixtures("hub")
def test_a_dataset_is_no_place_for_a_dictionary():
    with pytest.raises(BadInput, match="is no model: push to hf://USER/NAME"):
        sae().push_to_hub("hf://datasets/org/acts")


def card_of(hub):
    text = (hub.repositories[f"models/{NAME}"] / "README.md").read_text("utf-8")
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_says_what_is_on_record(hub):
    dictionary = sae()
    model = {"name": "gpt2", "revision": "0" * 40, "weights_sha256": "ab" * 32}
    text = {"dataset": "wikitext", "split": "train"}
    run = {"store_fingerprint": "929607410d407341", "step": 200, "lr": 0.001, "text": text}
    dictionary.metadata = {"context_size": 128, "rkstore": run | {"model": model}}
    dictionary.push_to_hub(NAME)
    head, card = card_of(hub)
    assert (head["library_name"], head["base_model"]) == ("saelens", "gpt2")
    for said in ("929607410d407341", "wikitext train", "0" * 40, "ab" * 32, '"lr": 0.001'):
        assert said in card
    assert "| code | `topk, k 4` |" in card
    assert f"{SITE} (12 wide)" in card


def test_the_card_invents_nothing(hub):
    dictionary = sae()
    dictionary.metadata = {"model_name": "`<b>|"}
    dictionary.push_to_hub(NAME)
    head, card = card_of(hub)
    assert head["license"] == "unknown"
    assert "base_model" not in head
    assert "| licence | `unknown: none is on record" in card
    assert "| store | `not recorded` |" in card
    assert "No evaluation is on record." in card
    assert "`'<b>/`" in card


def test_a_licence_that_is_given_is_in_the_card(hub):
    sae().push_to_hub(NAME, license="mit")
    head, card = card_of(hub)
    assert head["license"] == "mit"
    assert "| licence | `mit` |" in card


def test_the_programs_of_the_card_load_the_dictionary(hub):
    sae().push_to_hub(NAME)
    _, card = card_of(hub)
    block = card.partition("```python\n")[2].partition("```")[0]
    found = {"x": x()}
    exec(block, found)
    assert torch.equal(found["code"], sae().encode(x()))
    assert "sae = SAE.load_from_disk(snapshot_download('org/dictionary'))" in card


def test_a_layout_of_another_program_is_loaded_from_a_conversion(hub):
    sites = Site("blocks.0.mlp.hook_in", 12), Site("blocks.0.hook_mlp_out", 12)
    wiring = Wiring((Bank(24, sites[:1], sites[1:]),))
    made(Dictionary(wiring, select_named("relu", {}))).push_to_hub(NAME, layout="circuit-tracer")
    head, card = card_of(hub)
    assert head["tags"] == ["rkstore", "transcoder"]
    assert "transcoders, config = load_transcoder_from_hub('org/dictionary')" in card
    assert f"rkstore convert {URL} --to saelens --out dictionary-saelens" in card
    assert "SAE.load_from_disk('dictionary-saelens')" in card
    found = Dictionary.from_pretrained(NAME)
    assert (found.wiring.reads, found.wiring.writes) == (sites[:1], sites[1:])


def test_a_card_of_ours_is_replaced_and_one_of_yours_is_kept(hub):
    sae().push_to_hub(NAME)
    sae(1).push_to_hub(NAME, license="mit")
    assert card_of(hub)[0]["license"] == "mit"
    card = hub.repositories[f"models/{NAME}"] / "README.md"
    card.write_text(card.read_text().replace(mark(PLACE), "").replace("mit", "apache-2.0"))
    sae(2).push_to_hub(NAME, license="gpl")
    assert card_of(hub)[0]["license"] == "apache-2.0"
    same(Dictionary.from_pretrained(NAME), sae(2))


def test_push_copies_the_files_of_a_checkpoint_and_no_others(hub, rkstore, tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "training.json").write_text("{}")
    save_file({"a": torch.zeros(3)}, tmp_path / "saved" / "training_state.safetensors")
    status, out, err = rkstore("push", "saved", URL)
    assert (status, out.partition(",")[0]) == (0, f"{URL}: 2 files"), err
    root = hub.repositories[f"models/{NAME}"]
    assert set(tree(root)) == {".gitattributes", "README.md", *FILES}
    assert (root / "cfg.json").read_bytes() == (tmp_path / "saved" / "cfg.json").read_bytes()
    _, out, _ = rkstore("push", "saved", URL)
    assert "0 files, 0 B; 2 were there" in out
    assert len(hub.commits) == 1


RESULT = {"hook_name": SITE, "rows": 1524, "l0": 32.0, "dead": 101, "fvu": 0.3272, "mse": 14.15}


def test_the_evaluation_that_is_given_is_in_the_card(hub, rkstore, tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    document = {"store_fingerprint": "929607410d407341", "results": [RESULT | {"path": "saved"}]}
    (tmp_path / "results.json").write_text(json.dumps(document))
    status, _, err = rkstore("push", "saved", URL, "--evaluation", "results.json")
    assert status == 0, err
    assert "`929607410d407341`" in card_of(hub)[1]
    assert "| 1,524 | 32.0 | 101 | 0.3272 | 14.15 | - |" in card_of(hub)[1]


def test_the_record_of_a_dictionary_is_in_its_card_as_far_as_it_is_of_these_weights(
    hub, rkstore, tmp_path
):
    sae().save_pretrained(tmp_path / "saved")
    own = sha256(tmp_path / "saved" / "sae_weights.safetensors")
    entry = {"kind": "reconstruction", "store_fingerprint": "929607410d407341", "result": RESULT}
    other = entry | {"weights_sha256": "0" * 64, "store_fingerprint": "another"}
    spliced = {"kind": "spliced", "result": {"ce_recovered": 0.9}, "weights_sha256": own}
    entries = [entry | {"weights_sha256": own}, other, spliced | {"store_fingerprint": "f" * 16}]
    (tmp_path / "saved" / "evaluation").mkdir()
    (tmp_path / "saved" / "evaluation" / "results.json").write_text(json.dumps(entries))
    status, _, err = rkstore("push", "saved", URL)
    assert status == 0, err
    card = card_of(hub)[1]
    assert "| 1,524 | 32.0 | 101 | 0.3272 | 14.15 | - |" in card
    assert '"ce_recovered": 0.9' in card
    assert "another" not in card


@pytest.mark.parametrize(
    ("intervals", "shown"),
    [
        (
            {"l0": [32.0, 32.0], "fvu": [0.3172, 0.3372], "mse": None},
            "32.0 ± 0.0 | 101 | 0.3272 ± 0.0100 | 14.15 |",
        ),
        ({"documents": 12, "l0": None, "fvu": None, "mse": None}, "32.0 | 101 | 0.3272 | 14.15 |"),
        ("none", "32.0 | 101 | 0.3272 | 14.15 |"),
        ({"fvu": [0.3172]}, "32.0 | 101 | 0.3272 | 14.15 |"),
    ],
)
def test_the_card_shows_the_intervals_that_are_recorded(intervals, shown):
    result = RESULT | {"kind": "reconstruction", "intervals": intervals}
    [table] = evaluations.shown([result])
    assert f"| 1,524 | {shown}" in table
    assert ("half of a 95 % interval" in table) == ("±" in shown)


def test_the_evaluation_of_another_dictionary_is_refused(hub, rkstore, tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    (tmp_path / "other").mkdir()
    document = {"store_fingerprint": "929607410d407341", "results": [RESULT | {"path": "other"}]}
    (tmp_path / "results.json").write_text(json.dumps(document))
    status, _, err = rkstore("push", "saved", URL, "--evaluation", "results.json")
    assert status == 2
    assert "has no result of saved" in err
    assert hub.commits == []


@pytest.mark.usefixtures("hub")
def test_options_of_a_dictionary_are_refused_with_a_store(rkstore, make_store):
    make_store("store")
    status, _, err = rkstore("push", "store", "hf://datasets/org/acts", "--license", "mit")
    assert status == 2
    assert "--license, --evaluation and --layout are for a dictionary" in err


def test_convert_takes_a_dictionary_of_the_hub(published, rkstore, tmp_path):
    published({"one": sae()})
    status, out, err = rkstore("convert", f"{URL}/one", "--to", "rkstore")
    assert (status, out.strip()) == (0, "converted/one-rkstore"), err
    found = Dictionary.from_pretrained(tmp_path / "converted" / "one-rkstore", layout="rkstore")
    same(found, sae())
    assert found.metadata["hook_name"] == SITE


def test_dictionaries_of_the_hub_and_of_a_directory_are_judged_side_by_side(
    published, rkstore, make_store, tmp_path
):
    make_store("store", rows=400)
    published({"one": sae(1)})
    sae(1).save_pretrained(tmp_path / "here")
    status, out, err = rkstore("evaluate", "--store", "store", f"{URL}/one", "here")
    assert status == 0, err
    one, here = [
        line.split("|")[2:] for line in out.splitlines() if "one" in line or "here" in line
    ][:2]
    assert one == here


def test_a_training_starts_from_a_dictionary_of_the_hub(published, rkstore, make_store):
    make_store("store", rows=400)
    dictionary = sae(1)
    dictionary.normalise_decoder()
    published({"one": dictionary})
    words = ("--hook", SITE, "--d-sae", 24, "--k", 4, "--steps", 1, "--batch-size", 32)
    status, out, err = rkstore("train", "--store", "store", "--from", f"{URL}/one", *words)
    assert status == 0, err
    assert Dictionary.from_pretrained(out.strip()).wiring == dictionary.wiring


def test_convert_says_which_layouts_can_hold_a_dictionary(rkstore, tmp_path):
    crosscoder().save_pretrained(tmp_path / "saved")
    status, out, err = rkstore("convert", "saved", "--to", "saelens")
    assert (status, out) == (2, "")
    assert "the layout saelens cannot hold this dictionary" in err
    assert not Path("converted", "saved-saelens").exists()


def test_convert_writes_over_nothing(rkstore, tmp_path):
    sae().save_pretrained(tmp_path / "saved")
    assert rkstore("convert", "saved", "--to", "rkstore", "--out", "saved")[0] == 2
    assert "say what to write with --to" in rkstore("convert", "saved")[2]
