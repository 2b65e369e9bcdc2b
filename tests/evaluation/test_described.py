"""Latents described: which are alike, by definition; the page; what is refused."""

import json
import re

import numpy as np
import pytest
import torch
from worded import make_tokenizer, write_worded

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.evaluation.report.described import text
from rkstore.evaluation.samples.codes import Segment
from rkstore.evaluation.samples.describe import describe
from rkstore.evaluation.samples.settings import LatentsSettings
from rkstore.evaluation.samples.similar import groups, phi, together

SITE, WIDTH, ROWS = "blocks.0.mlp.hook_post", 6, 216


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng, tokenizer = np.random.default_rng(0), make_tokenizer()
    tokens = np.where(np.arange(ROWS) % 8 == 0, 0, rng.integers(100, 266, ROWS))
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    root = tmp_path_factory.mktemp("stores") / "words"
    options = {"sites": {SITE: WIDTH}, "codec": "float32"}
    return write_worded(root, tokenizer, tokens, {SITE: x}, **options)[0]


def saved(path, hook_name=SITE, turned=False):
    """Latents that read and write a dimension each, forwards and backwards; 12 never fires."""
    made = Dictionary.of_site(WIDTH, 13, select_named("relu", {}), hook_name=hook_name)
    eye = torch.eye(WIDTH)
    with torch.no_grad():
        made.W_enc[:, :12] = torch.cat([eye, -eye], dim=1)
        made.W_dec[:12] = torch.cat([eye, 0.99 * eye.roll(1, 0) if turned else eye])
        made.W_dec[12] = 1
    path.mkdir()
    save_dictionary(made, path, {"hook_name": hook_name})
    return path


def test_names_given_by_hand_are_in_the_table_the_titles_and_the_numbers(rkstore, store, tmp_path):
    (tmp_path / "names.json").write_text('{"3": "what_ever", "12": "never"}')
    path = saved(tmp_path / "sae")
    words = ("latents", path, "--store", store.root, "--latent", "3,5", "--out", "described")
    status, _, err = rkstore(*words, "--names", "names.json")
    assert status == 0, err
    page = (tmp_path / "described/latents.md").read_text("utf-8")
    assert "## Latent 3: what\\_ever\n" in page
    assert "## Latent 5\n" in page
    assert "named by hand" in page
    found = json.loads((tmp_path / "described/latents.json").read_text("utf-8"))["latents"]
    assert [one["name"] for one in found] == ["what_ever", None]
    status, _, err = rkstore(*words[:-1], "again", "--names", path / "nothing.json")
    assert status == 2
    assert "cannot read the names" in err


def test_firing_together_is_the_correlation_of_firing():
    rng = np.random.default_rng(0)
    on = rng.random((50, 7)) < 0.3
    on[:, 6] = False
    segments = []
    for first in (0, 20):
        rows = np.arange(first, first + (20 if first == 0 else 30))
        place, latent = on[rows].nonzero()
        value = np.ones(len(place), np.float32)
        segments.append(Segment(rows, rows, place.astype(np.int32), latent.astype(np.int32), value))
    both = together(segments, [2, 5], 7)
    assert both.tolist() == (on[:, [2, 5]].astype(int).T @ on.astype(int)).tolist()
    fired = on.sum(axis=0)
    found = phi(both, fired[[2, 5]], fired, 50)
    expected = np.corrcoef(on[:, :6].T.astype(float))[[2, 5]]
    np.testing.assert_allclose(found[:, :6], expected)
    assert (found[:, 6] == 0).all()


def test_groups_are_chains_of_near_directions():
    angles = np.radians([0, 20, 40, 180, 90, 90])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    alive = np.array([True, True, True, True, True, False])
    assert groups(directions, alive, 0.9) == [[0, 1, 2]]
    assert groups(directions, np.ones(6, bool), 0.9) == [[0, 1, 2], [4, 5]]


def test_the_nearest_are_named_with_their_cosines(store, tmp_path):
    settings = LatentsSettings(store=str(store.root), latent=(3, 9), nearest=2)
    made = describe(saved(tmp_path / "one"), settings)
    assert made.latents == [3, 9]
    assert made.drawn_from is None
    for i, twin in enumerate((9, 3)):
        near = made.by_decoder[i][0]
        assert (near.latent, round(near.cosine, 5)) == (twin, 1)
        assert near.phi == pytest.approx(-1)
        assert made.by_firing[i][0].latent not in (3, 9)
    assert made.groups == [[i, i + 6] for i in range(6)]


def test_without_names_latents_are_drawn_with_the_seed_from_those_that_fire(store, tmp_path):
    path = saved(tmp_path / "one")
    found = [
        describe(path, LatentsSettings(store=str(store.root), draw=4, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert found[0].latents == found[1].latents != found[2].latents
    assert all(made.drawn_from == 12 and 12 not in made.latents for made in found)


def test_another_dictionary_is_shown_beside_it(store, tmp_path):
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other", turned=True)
    settings = LatentsSettings(store=str(store.root), latent=(8,), against=str(other))
    made = describe(one, settings)
    assert made.of_other[0].latent == 2
    assert made.mean_cosine == pytest.approx(1)
    assert made.other.name == "other"


def test_the_page_has_what_the_numbers_say(store, rkstore, tmp_path):
    path = saved(tmp_path / "one")
    words = ("latents", path, "--store", store.root, "--out", "found", "--latent", "3,12")
    status, out, _ = rkstore(*words, "--against", saved(tmp_path / "other"))
    assert status == 0
    assert out.splitlines()[-2:] == ["found/latents.md", "found/latents.json"]
    page = (tmp_path / "found/latents.md").read_text("utf-8")
    record = json.loads((tmp_path / "found/latents.json").read_text("utf-8"))
    live, dead = record["latents"]
    assert f"Fires on {live['count']} of {record['rows']} rows" in page
    assert "## Latent 12\n\nIt fires on none" in page
    assert dead["count"] == 0
    shown = [line for line in page.splitlines() if re.match(" +[0-9.]+ +[0-9]+ .*«", line)]
    assert len(shown) > 20
    assert all(len(line.split("«")[0]) == len(shown[0].split("«")[0]) for line in shown)


def test_text_of_a_stranger_stays_text():
    assert text("<script>|a_b\n`x`\x1b[2J\u202e") == (r"\<script\>\|a\_b↵\`x\`\\x1b\[2J\\u202e")


def refused(rkstore, *words):
    status, out, err = rkstore(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


def test_what_cannot_be_described_is_refused(store, rkstore, make_store, tmp_path):
    path, here = saved(tmp_path / "one"), ("--store", store.root)
    assert "from 0 to 12" in refused(rkstore, "latents", path, *here, "--latent", "13")
    other = saved(tmp_path / "other", hook_name="blocks.1.mlp.hook_post")
    assert "is not in the store" in refused(rkstore, "latents", path, *here, "--against", other)
    plain, _ = make_store("plain")
    assert "no tokenizer" in refused(rkstore, "latents", path, "--store", plain.root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert "something at full" in refused(rkstore, "latents", path, *here, "--out", "full")
