"""A report is a small folder, always the same; what a stranger wrote is only ever text in it."""

import base64
import dataclasses
import json
import re
import zlib

import numpy as np
import pytest
import torch
from conftest import tree
from made_up_report import HOSTILE, made_up, meta_of, write_made_up

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.disk import load_dictionary
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.report.page.decoders import mutual, nearest, shares_of_first, wires
from rkstore.evaluation.report.page.probe import _scores
from rkstore.evaluation.report.page.scripts import column, script
from rkstore.evaluation.report.page.tally import Tally
from rkstore.evaluation.report.page.write import report_script, write_report
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.names import read_names
from rkstore.rkcnn.mine import probe
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.store.sites import Site
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.1.mlp.hook_post"


def given(content, name):
    """What a script of the page hands over."""
    text = content.decode("ascii")
    assert text.startswith(f"RK.{name}(")
    assert text.endswith(");\n")
    return json.loads(f"[{text[len(name) + 4 : -3]}]")


def inflated(packed):
    return zlib.decompress(base64.b64decode(packed), -15)


def numbers(coded, kind):
    return np.frombuffer(base64.b64decode(coded), kind)


@pytest.fixture(scope="module")
def trained(harvested, tmp_path_factory):
    """Two checkpoints of the shared store, which differ in their start."""
    out = tmp_path_factory.mktemp("checkpoints")
    settings = {"store": harvested.where, "layer": 1, "d_sae": 24, "k": 4, "steps": 30}
    settings |= {"batch_size": 32, "warmup": 5, "out": out}
    return [train(TrainSettings(init=i, name=i, **settings)) for i in ("datapoint", "random")]


@pytest.fixture(scope="module")
def report(trained, harvested, tmp_path_factory):
    """The report of both."""
    out = tmp_path_factory.mktemp("report") / "pages"
    settings = ReportSettings(
        store=harvested.where,
        out=str(out),
        max_samples_per_feature=14,
        quantiles=5,
        samples_per_quantile=1,
    )
    write_report(trained, settings)
    return out


def latents_in(report):
    """The record of every latent."""
    found = []
    for path in sorted((report / "data/latents").iterdir()):
        part, packed = given(path.read_bytes(), "latents")
        assert part == int(path.stem)
        found += json.loads(inflated(packed))
    return found


def meta_in(report):
    return given((report / "data/meta.js").read_bytes(), "meta")[0]


def test_every_sample_has_the_token_and_the_activation_of_its_row(report, trained, harvested):
    dictionary, _ = load_dictionary(trained[0])
    x = harvested.read(SITE)
    code = dictionary.encode(torch.from_numpy(x)).detach().numpy()
    [index] = given((report / "data/index.js").read_bytes(), "index")
    largest = numbers(index["largest"], "<f4")
    pieces, ids = given((report / "data/vocab.js").read_bytes(), "vocab")
    _, text = given((report / "data/text/000.js").read_bytes(), "text")
    tokens = numbers(ids, "<u4")[numbers(text, "<u2")]
    np.testing.assert_array_equal(tokens, harvested.column("token_id"))
    assert [pieces[n] for n in numbers(text, "<u2")[1:6]] == harvested.tokens(slice(1, 6))
    seen = 0
    for latent, record in enumerate(latents_in(report)):
        for _, samples, _ in record["groups"]:
            for row, before, count, fired in samples:
                assert (row - before) // 16 == (row - before + count - 1) // 16 == row // 16
                shown = dict(zip(fired[::2], fired[1::2], strict=True))
                expected = 255 * code[row - before : row - before + count, latent] / largest[latent]
                special = tokens[row - before : row - before + count] == 0
                for place, value in enumerate(np.where(special, 0, expected)):
                    assert shown.get(place, 0) == pytest.approx(value, abs=0.51), (latent, row)
                    seen += 1
    assert seen > 1000


def test_the_numbers_of_a_latent_are_those_of_its_code(report, trained, harvested):
    dictionary, _ = load_dictionary(trained[0])
    tokens = harvested.column("token_id")
    kept = tokens != 0
    x = torch.from_numpy(harvested.read(SITE))
    code = dictionary.encode(x).detach().numpy()[kept]
    [index] = given((report / "data/index.js").read_bytes(), "index")
    np.testing.assert_array_equal(numbers(index["fired"], "<u4"), (code != 0).sum(axis=0))
    _, ids = given((report / "data/vocab.js").read_bytes(), "vocab")
    names = numbers(ids, "<u4")
    for latent, record in enumerate(latents_in(report)):
        own = code[:, latent]
        if not own.any():
            assert record["groups"] == []
            continue
        mass = {int(t): own[tokens[kept] == t].sum() for t in np.unique(tokens[kept][own != 0])}
        assert record["distinct"] == len(mass)
        assert sum(record["histogram"]) == (own != 0).sum()
        for token, count, share in record["tokens"]:
            here = tokens[kept] == names[token]
            assert count == (own[here] != 0).sum()
            assert share == pytest.approx(1000 * mass[int(names[token])] / own.sum(), abs=0.51)


def test_the_same_inputs_give_the_same_bytes(report, trained, harvested, tmp_path):
    settings = ReportSettings(
        store=harvested.where,
        out=str(tmp_path / "again"),
        max_samples_per_feature=14,
        quantiles=5,
        samples_per_quantile=1,
    )
    write_report(trained, settings)
    assert tree(tmp_path / "again") == tree(report)


def test_the_overview_compares_the_runs_with_a_random_dictionary(report):
    meta = meta_in(report)
    assert [run["name"] for run in meta["runs"]] == [
        "datapoint_30",
        "random_30",
        "a random dictionary",
    ]
    assert meta["told"] == ["init"]
    assert [run["told"] for run in meta["runs"]] == [["datapoint"], ["random"], ["–"]]
    assert meta["runs"][1]["difference"] == pytest.approx(
        meta["runs"][1]["fvu"] - meta["runs"][0]["fvu"]
    )
    assert all(len(run["curve"]) > 0 for run in meta["runs"][:2])


def test_a_latent_takes_less_than_a_kilobyte_with_45_samples_asked(tmp_path):
    write_made_up(tmp_path / "r", 1_280)
    found = tree(tmp_path / "r")
    per_latent = sum(
        len(content)
        for path, content in found.items()
        if path.startswith("data/latents/") or path in ("data/index.js", "data/where.js")
    )
    assert per_latent / 1_280 < 1_000


def test_a_page_begins_with_seven_scripts_and_asks_for_nothing_else(tmp_path):
    write_made_up(tmp_path / "r", 70)
    page = (tmp_path / "r/index.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert sources == [
        "data:,", "assets/report.css", "assets/theme.js", "assets/report.js", "data/meta.js",
        "data/labels.js", "data/index.js", "data/vocab.js", "assets/start.js",
    ]  # fmt: skip
    code = report_script().decode() + (tmp_path / "r/assets/report.css").read_text("utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", code)


def test_the_code_makes_no_markup_of_strings_and_the_page_forbids_what_it_does_not_need():
    code = report_script().decode()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "new Function", "fetch(", "XMLHttpRequest", "import("):  # fmt: skip
        assert way not in code
    page = (report_page() or "").partition("Content-Security-Policy")[2]
    assert "default-src 'none'" in page
    assert "unsafe" not in page


def test_no_two_parts_of_the_code_use_one_name():
    names = re.findall(
        r"^(?:async )?(?:function|const|let|class) (\w+)", report_script().decode(), re.M
    )
    assert len(names) > 50
    assert sorted(names) == sorted({*names})


def report_page():
    from rkstore.evaluation.report.page.write import ASSETS

    return (ASSETS / "index.html").read_text("utf-8")


def test_strings_of_a_stranger_stay_strings_of_a_script(tmp_path):
    write_made_up(tmp_path / "r", 70, runs=8, names={"3": "</script><b>bold</b>\u2028"})
    for path, content in tree(tmp_path / "r/data").items():
        assert content.isascii(), path
        assert not {*content.decode()} & {*"<>&"}, path
        assert content.count(b"\n") == 1, path
    pieces, _ = given((tmp_path / "r/data/vocab.js").read_bytes(), "vocab")
    assert tuple(pieces[1 : len(HOSTILE) + 1]) == HOSTILE
    [names] = given((tmp_path / "r/data/labels.js").read_bytes(), "labels")
    assert names == {"3": "</script><b>bold</b>\u2028"}


def test_a_number_that_does_not_fit_its_column_is_not_written():
    with pytest.raises(OverflowError):
        column(np.array([0, 256]), "u1")
    with pytest.raises(ValueError):
        script("meta", {"fvu": float("nan")})


def test_a_column_reads_as_it_was_written():
    values = np.array([0, 65_535, 7])
    np.testing.assert_array_equal(numbers(column(values, "u2"), "<u2"), values)


def test_tokens_and_neighbours_are_those_of_counting_by_hand():
    rng = np.random.default_rng(0)
    rows, d_sae, vocabulary = 300, 9, 11
    tokens = rng.integers(0, vocabulary, rows)
    code = rng.random((rows, d_sae)) * (rng.random((rows, d_sae)) < 0.3)
    code[:, 8] = 0
    tally = Tally(d_sae, vocabulary, rows)
    for first in range(0, rows, 70):
        place, latent = code[first : first + 70].nonzero()
        value = code[first : first + 70][place, latent]
        tally.add(tokens[first : first + 70], place, latent, value)
    found, together = tally.found(), tally.together(3)
    for i in range(d_sae):
        mass = np.bincount(tokens, code[:, i], vocabulary)
        best = found.of(i, vocabulary)
        assert [token for token, _, _ in best] == sorted(
            np.flatnonzero(mass), key=lambda token: -mass[token]
        )
        for token, count, share in best:
            assert count == ((tokens == token) & (code[:, i] > 0)).sum()
            assert share == pytest.approx(mass[token] / mass.sum())
    on = code > 0
    for i, neighbours in enumerate(together[:8]):
        phi = {j: np.corrcoef(on[:, i], on[:, j])[0, 1] for j in range(8) if j != i}
        expected = sorted((j for j in phi if phi[j] > 0), key=lambda j: -phi[j])[:3]
        assert [j for j, _ in neighbours] == expected
        assert [p for _, p in neighbours] == pytest.approx([phi[j] for j in expected])
    assert together[8] == []


def test_a_telling_token_is_rarer_elsewhere():
    tokens = np.array([0] * 90 + [1] * 10)
    tally = Tally(1, 2, 100)
    fires = np.r_[np.arange(20), np.arange(90, 100)]
    tally.add(tokens, fires, np.zeros(30, int), np.ones(30))
    assert tally.found().of(0, 1)[0][0] == 0
    assert tally.found().telling(2).tolist() == [[1, 0]]


def test_neighbours_by_decoder_are_the_nearest_and_say_whether_that_is_mutual(trained):
    dictionary, _ = load_dictionary(trained[0])
    rows = torch.nn.functional.normalize(dictionary.W_dec.detach(), dim=1)
    cosines = (rows @ rows.T).fill_diagonal_(-2)
    for i, neighbours in enumerate(mutual(nearest(dictionary, 3))):
        assert [j for j, _, _ in neighbours] == cosines[i].topk(3).indices.tolist()
        for j, cosine, both in neighbours:
            assert cosine == pytest.approx(float(cosines[i, j]), abs=1e-5)
            assert both == (i in cosines[j].topk(3).indices.tolist())


def test_what_is_written_where_is_in_units_of_ordinary_rows(make_store):
    rng = np.random.default_rng(0)
    sites = {"a": 12, "b": 12}
    x = {name: rng.standard_normal((216, 12)).astype(np.float32) for name in sites}
    x["b"] *= 3
    x["b"][::40] *= 1000  # massive
    store, _ = make_store(codec="float32", sites=sites, values=x)
    both = tuple(Site(name, 12) for name in sites)
    wiring = Wiring((Bank(2, both, both),), centred=True)
    dictionary = Dictionary(wiring, select_named("relu", {}))
    with torch.no_grad():
        dictionary.W_dec[0] = 1.0
        dictionary.W_dec[1, :12] = 1.0
        dictionary.W_enc[:] = 1.0
    banks = wires(dictionary, store)
    shares = shares_of_first(dictionary, banks)
    assert shares.tolist() == pytest.approx([0.75, 1.0], abs=0.02)
    reads = banks[0].read_norms[:, 0]
    assert reads[1] / reads[0] == pytest.approx(3, rel=0.05)


def test_rows_that_are_shown_are_numbered_through_spans():
    _, text, _, _ = made_up(2, rows=512)
    from rkstore.evaluation.report.page.text import Text

    text = Text(((256, 384), (640, 768)), np.arange(256), 128)
    assert text.places(np.array([256, 383, 640, 700])).tolist() == [0, 127, 128, 188]
    assert [ends.tolist() for ends in text.ends(np.array([300, 700]))] == [[256, 640], [384, 768]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"24": "x"}', "has 24, from 0 to 23"),
        ('{"01": "x"}', "names latent '01'"),
        ('{"__proto__": "x"}', "names latent '__proto__'"),
        ('{"1": 5}', "no text of 1 to 200"),
        ("[]", "must be one object"),
        ("{", "cannot read the names"),
    ],
)
def test_names_that_are_not_of_these_latents_are_refused(tmp_path, content, said):
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(BadInput, match=re.escape(said)):
        read_names(str(tmp_path / "names.json"), 24)


def test_a_folder_that_is_not_empty_is_refused(rkstore, trained, harvested, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("kept")
    status, out, err = rkstore("report", trained[0], "--store", harvested.where, "--out", "full")
    assert status == 2
    assert out == ""
    assert err.strip().count("\n") == 0
    assert "full" in err
    assert tree(tmp_path / "full") == {"mine.txt": b"kept"}


def test_a_store_without_a_tokenizer_is_refused(rkstore, trained, make_store, tmp_path):
    store, _ = make_store(sites={SITE: 64})
    status, _, err = rkstore("report", trained[0], "--store", store.where, "--any-model")
    assert status == 2
    assert "has no tokenizer" in err
    assert not (tmp_path / "results").exists()


def test_a_checkpoint_of_another_store_is_refused(rkstore, trained, harvested, tmp_path):
    other = tmp_path / "elsewhere"
    from rkstore.dictionaries import save_dictionary

    dictionary, metadata = load_dictionary(trained[0])
    metadata["rkstore"] |= {"store_fingerprint": "0" * 16}
    metadata["rkstore"]["model"] = {"name": "another", "weights_sha256": "1" * 64}
    other.mkdir()
    save_dictionary(dictionary, other, metadata)
    status, _, err = rkstore("report", other, "--store", harvested.where, "--out", "r")
    assert status == 2
    assert "was trained on activations of another" in err
    assert not (tmp_path / "r").exists()


def test_the_command_ends_with_the_path_of_the_page(rkstore, trained, harvested, tmp_path):
    status, out, _ = rkstore("report", *trained, "--store", harvested.where, "--out", "r")
    assert status == 0
    assert out == "r/index.html\n"
    assert meta_of(made_up(2, rows=512)).keys() == meta_in(tmp_path / "r").keys()


def test_figures_for_papers_come_with_their_numbers(report):
    meta = meta_in(report)
    assert meta["figures"] == ["training", "density"]
    names = {f"{name}.{kind}" for name in meta["figures"] for kind in ("png", "svg", "csv")}
    assert {path.name for path in (report / "figures").iterdir()} == names
    [head, *rows] = (report / "figures/training.csv").read_text("utf-8").splitlines()
    assert head == "run,step,fvu,dead"
    curve = [[run["name"], *point] for run in meta["runs"][:2] for point in run["curve"]]
    assert rows == [",".join(map(str, row)) for row in curve]
    drawn = (report / "figures/training.svg").read_text("utf-8")
    assert "dc:date" not in drawn
    assert ">datapoint<" in drawn


@pytest.fixture(scope="module")
def probed(harvested, trained, tmp_path_factory):
    """A probe of the shared store, and the report that has it."""
    out = tmp_path_factory.mktemp("probed")
    settings = {"store": harvested.where, "layer": 1, "m": 6, "h": 40, "r": 8}
    result, path = probe(ProbeSettings(**settings, out=str(out / "probe")))
    few = {"max_samples_per_feature": 6, "quantiles": 1, "samples_per_quantile": 1}
    where = {"store": harvested.where, "probe": str(path), "out": str(out / "pages")}
    write_report(trained[:1], ReportSettings(**few, **where))
    [packed] = given((out / "pages/data/probe.js").read_bytes(), "probe")
    return result, json.loads(inflated(packed)), meta_in(out / "pages")


def test_a_direction_is_shown_by_the_rows_that_lie_farthest_along_it(probed, harvested):
    result, shown, _ = probed
    tokens = harvested.column("token_id")
    along = harvested.read(SITE) @ result.top_directions.numpy().T
    along[tokens == 0] = -np.inf
    assert len(shown["directions"]) == len(result.top_directions)
    for i, direction in enumerate(shown["directions"]):
        first, *others = [sample[0] for sample in direction["samples"]]
        assert along[first, i] == along[:, i].max()
        assert len({row // 16 for row in (first, *others)}) == len(others) + 1
        assert direction["score"] == pytest.approx(float(result.top_scores[i]))
        weights = result.top_directions[i].abs()
        assert direction["dimensions"][0][0] == int(weights.argmax())


def test_scores_of_a_probe_stand_beside_those_of_chance(probed):
    result, shown, meta = probed
    scores = shown["scores"]
    assert sum(scores["drawn"]) == len(result.all_scores)
    assert sum(scores["chance"]) == 40
    assert scores["lowest_kept"] == pytest.approx(float(result.top_scores.min()))
    ends = [float(result.all_scores.min()), float(result.all_scores.max())]
    assert scores["drawn_range"] == pytest.approx(ends, rel=1e-4)
    assert scores["chance_range"][0] < scores["chance_range"][1]
    assert meta["probe"]["found"] == 8
    assert "probe" in meta["figures"]


def test_what_the_scores_of_a_probe_show_is_said_in_words(probed):
    result, *_ = probed
    made = dataclasses.replace(
        result, all_scores=torch.tensor([1.0] * 300 + [9.0]), top_scores=torch.tensor([9.0])
    )
    scores = _scores(made, np.linspace(0, 2, 301))
    assert scores["said"] == [
        "1 of 301 subsets score above 1.9: 95 % of those of chance score less.",
        "Kept, in blue: the best, from a score of 9 on.",
        "Scores beyond 1.99 (1) are counted in the last bin.",
    ]
    assert sum(scores["drawn"]) == 301
    assert len(_scores(made, None)["said"]) == 2


def test_a_probe_of_another_store_is_refused(rkstore, trained, harvested, make_store, tmp_path):
    store, _ = make_store(sites={SITE: 12})
    probe(ProbeSettings(store=store.where, layer=1, m=3, h=10, r=2, out=str(tmp_path / "p")))
    words = ("report", trained[0], "--store", harvested.where, "--probe", "p", "--out", "r")
    status, _, err = rkstore(*words)
    assert status == 2
    assert "belongs to another store" in err
    assert not (tmp_path / "r").exists()
