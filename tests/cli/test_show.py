"""``rkstore show``: a row in its context."""

import json

import numpy as np
import pytest

SITE = "blocks.1.mlp.hook_post"


def test_a_row_is_shown_in_its_text_with_its_activations(rkstore, harvested):
    status, out, err = rkstore("show", harvested.root, "--row", 20, "--layer", 1)
    assert status == 0, err
    assert f"row 20  token {harvested['token_id', 20]} {harvested.tokens(20)!r}" in out
    assert "document 0 (story.txt), position 4 of block 1" in out
    assert f"«{harvested.tokens(20)}»" in out
    assert f"{SITE}: norm {np.linalg.norm(harvested[SITE, 20]):.4g}" in out


def test_json_has_the_numbers_of_the_store(rkstore, harvested):
    words = ["show", harvested.root, "--row", 3, "--row", -1, "--layer", 1, "--window", 4, "--json"]
    first, last = json.loads(rkstore(*words)[1])
    assert (first["row"], last["row"]) == (3, len(harvested) - 1)
    for facts in (first, last):
        row, site = facts["row"], facts["site"]
        assert facts["text"] == harvested.text(row, 4)
        assert facts["token_id"] == harvested["token_id", row]
        assert facts["block"] == row // 16
        x, largest = harvested[SITE, row], site["largest"][0]
        assert site["norm"] == pytest.approx(np.linalg.norm(x), rel=1e-6)
        assert largest["dimension"] == np.abs(x).argmax()
        assert largest["value"] == x[largest["dimension"]]
        usual = harvested.ordinary_statistics(SITE)
        assert largest["mean"] == usual.mean[largest["dimension"]]
        assert largest["std"] == pytest.approx(usual.variance[largest["dimension"]] ** 0.5)
        assert site["massive"] is None  # float16 does not mark them


def test_a_massive_row_is_called_so(rkstore, make_store):
    x = np.random.default_rng(0).standard_normal((216, 4)).astype(np.float32)
    x[30] *= 1000
    store, _ = make_store(sites={"x": 4}, values={"x": x}, codec="int8")
    shown = json.loads(rkstore("show", store.root, "--row", 30, "--row", 31, "--json")[1])
    assert [facts["site"]["massive"] for facts in shown] == [True, False]
    assert "no tokenizer in the store" in rkstore("show", store.root, "--row", 30)[1]


def test_the_rows_of_a_word_are_found(rkstore, harvested):
    words = ["show", harvested.root, "--find", "cat", "--spaced", "--limit", 2, "--json"]
    shown = json.loads(rkstore(*words)[1])
    assert [facts["row"] for facts in shown] == harvested.find("cat", spaced=True)[:2].tolist()
    assert all("site" not in facts for facts in shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --row or --find"),
        (["--row", 1, "--find", "cat"], "either --row or --find"),
        (["--row", 10**6], "row 1000000 is not in the store"),
        (["--find", "zebra crossing"], "no row of"),
        (["--row", 1, "--layer", 9], "--layer 9 is not in the store"),
        (["--row", 1, "--window", -1], "window"),
        (["--row", 1, "--limit", 2], "--spaced and --limit are for --find"),
        (["--row", 1, "--spaced"], "--spaced and --limit are for --find"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(rkstore, harvested, words, said):
    status, _, err = rkstore("show", harvested.root, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err


def test_text_of_a_store_moves_no_cursor(rkstore, harvested):
    out = rkstore("show", harvested.root, "--find", "\n", "--spaced", "--limit", 1)[1]
    assert len(out.splitlines()) == 2
    assert "\\n" in out
