"""The study of inits: paired arms, exact lifetimes, and statistics that equal their twins."""

import importlib
import json
import signal
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from pictures import legible_texts
from scipy import stats

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation import lifetimes, paired
from rkstore.evaluation.record import compact
from rkstore.settings import from_yaml
from rkstore.store.sites import Site

PIPELINES = Path(__file__).parents[2] / "pipelines"


def load(name):
    if str(PIPELINES) not in sys.path:
        sys.path.insert(0, str(PIPELINES))
    return importlib.import_module(name)


@pytest.mark.parametrize("n", [2, 5, 8, 12])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    twin = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert paired.sign_flip_test(d) == pytest.approx(twin.pvalue)


def test_of_many_pairs_a_sample_of_patterns_says_nearly_the_same():
    d = np.random.default_rng(0).normal(0.5, 1, 30)
    normal = stats.ttest_1samp(d, 0).pvalue
    assert paired.sign_flip_test(d) == pytest.approx(normal, abs=0.01)


def test_holm_is_the_step_down_rule():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.6, 0.5]) == [1.0, 1.0]


def test_the_interval_of_a_few_values_is_students():
    values = [0.3, 0.5, 0.1]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = paired.small_sample(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_value_has_no_interval():
    with pytest.raises(BadInput, match="one run says nothing"):
        paired.small_sample([0.3])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = paired.interval([generator.normal(1, 1, 40) for _ in range(3)], trial)
        covered += low <= 1 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_of_few_pairs_the_interval_covers_less_than_it_says():
    found = [paired.coverage(pairs, 200) for pairs in (2, 8, 40)]
    assert found == sorted(found)
    assert 0.4 < found[0] < 0.6
    assert 0.89 < found[2] < 0.99


def dictionary(kind: str, lowest: float = -12) -> Dictionary:
    generator = torch.Generator().manual_seed(0)
    name, _, norms = kind.partition(" by ")
    site = (Site("x", 8),)
    wiring = Wiring((Bank(64, site, site),), centred=True, norm="sae" if norms else "none")
    made = Dictionary(wiring, select_named(name, {"k": 4, "l1": 0.0}))
    with torch.no_grad():
        made.W_enc.normal_(generator=generator)
        made.W_dec.normal_(generator=generator)
        # Some fire all the time, some hardly ever, some never.
        made.b_enc.copy_(torch.linspace(lowest, 4, 64))
    return made.eval()


@pytest.mark.parametrize("kind", ["topk", "relu", "jumprelu", "abstopk", "topk by norms"])
@pytest.mark.parametrize("size", [7, 100, 1000])
def test_the_first_token_of_each_latent_is_that_of_the_whole_code(kind, size):
    made = dictionary(kind)
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
    found = lifetimes.Lifetimes(made)
    for part in x.split(size):
        found.add(part)
    on = made.encode(x) != 0
    expected = torch.where(on.any(dim=0), on.int().argmax(dim=0), 1000)
    assert torch.equal(found.first, expected)
    for window in (1, 10, 500, 1000):
        assert torch.equal(found.dead(window), ~on[:window].any(dim=0))


def test_most_rows_need_not_be_encoded_in_full(monkeypatch):
    made, encoded = dictionary("topk", lowest=-6), []
    plain = made.encode
    monkeypatch.setattr(made, "encode", lambda x: encoded.append(len(x)) or plain(x))
    found = lifetimes.Lifetimes(made)
    for seed in range(50):
        found.add(torch.randn(100, 8, generator=torch.Generator().manual_seed(seed)))
    assert sum(encoded) < 4000


def test_a_window_beyond_the_rows_is_refused():
    found = lifetimes.Lifetimes(dictionary("topk"))
    found.add(torch.zeros(10, 8))
    with pytest.raises(BadInput, match="11 tokens"):
        found.dead(11)


@pytest.fixture
def settings(make_store, tmp_path):
    store, _ = make_store("train", rows=400)
    held_out, _ = make_store("held out", rows=216, seed=1)
    study = load("rkcnn_study")

    def make(**change):
        usual = {
            "store": str(store.root),
            "held_out": str(held_out.root),
            "layers": "0",
            "arms": ("random", "tied"),
            "seeds": 2,
            "windows": ("50", "200"),
            "fvu_rows": 100,
            "d_sae": 24,
            "k": 4,
            "steps": 5,
            "batch_size": 32,
            "out": str(tmp_path / "study.json"),
        }
        return study.StudySettings(**(usual | change))

    return make


BOS = 7


@pytest.fixture
def with_bos(make_store, settings):
    """As ``settings``; every eighth row of both stores is a BOS row, and those are massive."""
    source = {"tokenizer": {"bos_token_id": BOS, "special_token_ids": [BOS]}}
    roots = {}
    for name, rows in (("store", 400), ("held_out", 216)):
        generator = np.random.default_rng(rows)
        ids = generator.integers(10, 300, rows).astype(np.int32)
        x = generator.standard_normal((rows, 12)).astype(np.float32)
        ids[::8], x[::8] = BOS, 100.0
        values = {"token_id": ids, "blocks.0.mlp.hook_post": x}
        made, _ = make_store(f"{name} with BOS", rows=rows, source=source, values=values)
        roots[name] = str(made.root)
    return lambda **change: settings(**(roots | {"windows": ("50", "189")} | change))


@pytest.mark.parametrize(
    ("wishes", "out"),
    [({}, 27), ({"special_tokens": True}, 0), ({"special_tokens": True, "max_norm": 10.0}, 27)],
)
def test_windows_and_fvu_are_over_the_rows_that_are_kept(with_bos, monkeypatch, wishes, out):
    study, counted, measured = load("rkcnn_study"), [], []

    class Lifetimes(study.Lifetimes):
        def add(self, x):
            counted.append(x)
            super().add(x)

    class Measure(study.Measure):
        def add(self, x):
            measured.append(x)
            super().add(x)

    monkeypatch.setattr(study, "Lifetimes", Lifetimes)
    monkeypatch.setattr(study, "Measure", Measure)
    chosen = with_bos(arms=("tied",), seeds=1, fvu_rows=61, **wishes)
    runs = study.study(chosen)
    x = study.open_store(chosen.held_out).read("blocks.0.mlp.hook_post")
    kept = x if not out else np.delete(x, np.s_[::8], axis=0)
    np.testing.assert_array_equal(torch.cat(counted), kept[:189])
    np.testing.assert_array_equal(torch.cat(measured), kept[:61])
    assert [run["left_out"] for run in runs.rows] == [out]
    recorded = json.loads(Path(chosen.out).read_text())["settings"]
    assert {key: recorded[key] for key in wishes} == wishes


def test_arms_are_trained_on_the_rows_that_are_kept(with_bos, monkeypatch, tmp_path):
    study, trained = load("rkcnn_study"), []
    real = study.train_all
    monkeypatch.setattr(study, "train_all", lambda chosen: trained.extend(chosen) or real(chosen))
    study.study(with_bos(seeds=1))
    study.study(
        with_bos(seeds=1, special_tokens=True, max_norm=2.0, out=str(tmp_path / "other.json"))
    )
    assert [(one.special_tokens, one.max_norm) for one in trained] == (
        [(False, None)] * 2 + [(True, 2.0)] * 2
    )


def test_a_window_beyond_the_rows_that_are_kept_is_refused(with_bos):
    with pytest.raises(BadInput, match=r"190 tokens and .* 189 rows of blocks\.0\.mlp"):
        load("rkcnn_study").study(with_bos(windows=("190",)))


def test_runs_with_and_without_special_tokens_do_not_lie_in_one_file(with_bos):
    study = load("rkcnn_study")
    study.study(with_bos(seeds=1))
    with pytest.raises(BadInput, match="special_tokens was False, is True"):
        study.study(with_bos(seeds=1, special_tokens=True))


def test_a_store_of_some_layers_is_studied_in_those(make_store, settings):
    sites = {"blocks.6.mlp.hook_post": 12}
    roots = {name: str(make_store(name, sites=sites)[0].root) for name in ("store", "held_out")}
    runs = load("rkcnn_study").study(settings(**roots, layers="all", seeds=1))
    assert {run["layer"] for run in runs.rows} == {6}


def test_every_arm_of_every_seed_is_on_record(settings, tmp_path):
    study = load("rkcnn_study")
    runs = study.study(settings())
    assert {(run["layer"], run["seed"], run["arm"]) for run in runs.rows} == {
        (0, seed, arm) for seed in (0, 1) for arm in ("random", "tied")
    }
    assert json.loads((tmp_path / "study.json").read_text())["runs"] == runs.rows
    for run in runs.rows:
        assert 24 >= run["dead"]["50"] >= run["dead"]["200"] >= 0
        assert 0 < run["l0"] <= 4


def test_a_study_goes_on_with_what_is_missing_and_comes_to_the_same(settings, tmp_path):
    study = load("rkcnn_study")
    whole = study.study(settings())
    (tmp_path / "study.json").unlink()
    study.study(settings(seeds=1, arms=("tied",)))
    assert study.study(settings()).rows == whole.rows


def test_processes_come_to_the_same_as_one(settings, tmp_path):
    study = load("rkcnn_study")
    alone = study.study(settings())
    (tmp_path / "study.json").unlink()
    shared = study.study(settings(jobs=2))
    for one, other in zip(alone.rows, shared.rows, strict=True):
        assert [one[key] for key in ("layer", "seed", "arm")] == [
            other[key] for key in ("layer", "seed", "arm")
        ]
        # One thread adds in another order than several.
        assert other["fvu"] == pytest.approx(one["fvu"], rel=1e-3)


def test_ctrl_c_is_the_first_process_s_to_handle_from_the_start(monkeypatch):
    study, seen = load("rkcnn_study"), []
    pool = Mock(side_effect=lambda *_: seen.append(signal.getsignal(signal.SIGINT)) or pool)
    monkeypatch.setattr(study.multiprocessing, "get_context", lambda _: Mock(Pool=pool))
    before = signal.getsignal(signal.SIGINT)

    def stopped():
        with study._workers(2):
            assert signal.getsignal(signal.SIGINT) is before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert seen == [signal.SIG_IGN]
    assert [call[0] for call in pool.method_calls] == ["terminate", "join"]


def test_the_record_of_another_study_is_refused(settings):
    study = load("rkcnn_study")
    study.study(settings(seeds=1))
    with pytest.raises(BadInput, match="other settings"):
        study.study(settings(steps=6))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ("tide",)}, "no 'tide'"),
        ({"windows": ("217",)}, "217 tokens"),
        ({"windows": ("many",)}, "numbers of tokens"),
        ({"layers": "7"}, "layers"),
        ({"arms": ("tied", "tied")}, "tied, tied: give some, each once"),
        ({"windows": ("50", "50")}, "50, 50: give some, each once"),
        ({"arms": ()}, "empty"),
    ],
)
def test_a_study_that_cannot_be_is_refused(settings, change, said):
    with pytest.raises(BadInput, match=said):
        load("rkcnn_study").study(settings(**change))


# The page of what came out.


@pytest.fixture
def document():
    """Two seeds of two layers, in which rkcnn leaves 1 + layer dead and random ten times as many;
    a third arm has only one of the layers."""
    runs = [
        {"layer": layer, "seed": seed, "arm": arm, "fvu": 0.5 - 0.1 * better, "l0": 4.0,
         "dead": {"100": 50, "200": (1 + layer) * (1 if better else 10)}}
        for layer in (0, 1) for seed in (0, 1)
        for arm, better in (("random", False), ("rkcnn", True), ("tied", False))
        if arm != "tied" or layer == 0
    ]  # fmt: skip
    settings = {"windows": ["100", "200"], "l1": 1.0, "d_sae": 40}
    return {"settings": settings, "runs": runs}


def test_pairs_are_of_one_layer_and_seed(document):
    found = load("rkcnn_page").Results(document)
    assert found.differences("rkcnn", "random", "200", 1) == [-18, -18]
    assert found.differences("rkcnn", "tied", "200", 1) == []
    assert found.values("random", 0, "200") == [10, 10]


def test_arms_that_lack_a_layer_are_in_no_table(document):
    found = load("rkcnn_page").Results(document)
    assert found.arms == ["random", "rkcnn"]
    assert [pair[:2] for pair in found.known_pairs()] == [("rkcnn", "random")]


def test_layers_are_counted_by_their_intervals():
    page = load("rkcnn_page")
    below, above = paired.compare([-1, -2, -1]), paired.compare([2, 1, 1])
    assert page.tally([below, below, above, paired.compare([-1, 1, 0])]) == (2, 1, 1)


def test_studies_that_differ_in_one_setting_are_joined_and_others_refused(document):
    page = load("rkcnn_page")
    other = json.loads(json.dumps(document))
    other["settings"]["l1"] = 2.0
    joined = page.joined([document, other], "l1")
    assert [run["l1"] for run in joined["runs"]] == [1.0] * 10 + [2.0] * 10
    assert page.joined([joined], "l1") == joined
    with pytest.raises(BadInput, match="one l1"):
        page.joined([document, other, other], "l1")
    with pytest.raises(BadInput, match="no single special_tokens"):
        page.joined([document], "special_tokens")
    other["settings"]["d_sae"] = 41
    with pytest.raises(BadInput, match="more than l1"):
        page.joined([document, other], "l1")


def test_a_file_of_something_else_is_refused(tmp_path, document):
    page = load("rkcnn_page")
    for text, said in (
        ("no JSON", "not what rkcnn_study writes"),
        ('{"settings": {"windows": ["10"]}, "runs": []}', "no runs yet"),
        ('{"settings": {}, "runs": [{}]}', "not what rkcnn_study writes"),
    ):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(BadInput, match=said):
            page.read(tmp_path / "study.json")
    document["runs"] = [run for run in document["runs"] if run["arm"] != "random"]
    with pytest.raises(BadInput, match="no random in some layer"):
        page.Results(document)


def test_a_page_can_be_made_again_of_the_runs_beside_it(document):
    assert json.loads(compact(document)) == document


CONFIGS = sorted((PIPELINES.parent / "configs").glob("rkcnn*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_studys_configurations_are_whole(path):
    study, page = load("rkcnn_study"), load("rkcnn_page")
    settings = from_yaml(study.StudySettings, path, {})
    assert set(settings.arms) <= set(study.ARMS) & set(page.ARMS)


DOCS = PIPELINES.parent / "docs"


def published():
    """The runs beside the page of this repository: TopK codes, ReLU codes, one layer again."""
    return [
        json.loads((DOCS / f"{name}.json").read_text())
        for name in ("rkcnn", "rkcnn_front", "rkcnn_again")
    ]


def apart(document, key, tmp_path):
    """Files of the studies that were joined, one for each value of the setting."""
    files = []
    for value in sorted({run[key] for run in document["runs"]}):
        runs = [run for run in document["runs"] if run[key] == value]
        files.append(tmp_path / f"{key}_{value}.json")
        settings = document["settings"] | {key: value}
        files[-1].write_text(json.dumps({"settings": settings, "runs": runs}))
    return files


@pytest.fixture
def call(tmp_path):
    """Call it with words to make the page under ``tmp_path``; returns what is there afterwards."""
    page = load("rkcnn_page")

    def run(*words):
        out = tmp_path / "out"
        page.main(["--out", str(out), *map(str, words)], standalone_mode=False)
        return out

    return run


def test_the_page_and_all_that_belongs_to_it_are_written_where_one_says(call, tmp_path):
    document, front, again = published()
    (tmp_path / "study.json").write_text(json.dumps(document))
    repeated = [
        word for path in apart(again, "special_tokens", tmp_path) for word in ("--again", path)
    ]
    out = call(tmp_path / "study.json", *apart(front, "l1", tmp_path), *repeated)
    assert (out / "rkcnn.md").read_text() == (DOCS / "rkcnn.md").read_text()
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert written == [
        "images/rkcnn.png", "images/rkcnn_front.png",
        "rkcnn.json", "rkcnn.md", "rkcnn_again.json", "rkcnn_front.json",
    ]  # fmt: skip


def test_a_page_is_made_again_of_what_lies_beside_it(call):
    out = call(*(DOCS / f"{name}.json" for name in ("rkcnn", "rkcnn_front")),
               "--again", DOCS / "rkcnn_again.json")  # fmt: skip
    for path in out.glob("*.*"):
        assert path.read_text() == (DOCS / path.name).read_text(), path.name


def again_of(document, **change):
    """As if layer 1 had been run again: with all rows the same, without some a little worse."""
    runs = [
        run | {"special_tokens": special, "left_out": 0 if special else 8}
        | ({} if special else {"fvu": run["fvu"] + 0.01})
        for run in document["runs"] for special in (True, False)
        if run["layer"] == 1
    ]  # fmt: skip
    settings = document["settings"] | {"held_out_rows": [100, 300], "codec": "other"}
    return {"settings": settings, "runs": runs} | change


def test_a_layer_that_was_run_again_stands_beside_the_study(document):
    page = load("rkcnn_page")
    document["settings"]["codec"] = "one"
    told = page._again(document, again_of(document), "200")
    assert (told["again_layer"], told["again_seeds"], told["again_out"]) == ("1", "2", "4.0%")
    assert told["codec_changes"] == "+0.0000 to +0.0000"
    assert told["again_changes"] == "+0.0100 to +0.0100"
    assert (told["again_same"], told["again_told"]) == ("1", "1")
    cells = [cell.strip() for cell in told["again_means"].splitlines()[-1].split("|")]
    assert cells[-4:-1] == ["0.400", "0.410", "+0.010 (+0.010 to +0.010)"]


def test_what_was_run_again_is_compared_on_the_seeds_that_both_have(document):
    again = again_of(document)
    again["runs"] = [run for run in again["runs"] if run["seed"] == 1]
    found = load("rkcnn_page").side_by_side(document, again, special_tokens=False)
    assert [len(one.values("rkcnn", 1, "fvu")) for one in found.values()] == [1, 1]


@pytest.mark.parametrize("special", [True, False])
def test_a_layer_that_was_not_run_again_is_refused(document, special):
    again = again_of(document)
    again["runs"] = [run for run in again["runs"] if run["special_tokens"] != special]
    with pytest.raises(BadInput, match="give the files of both"):
        load("rkcnn_page").side_by_side(document, again, special_tokens=special)


def test_a_page_that_lacks_an_arm_leaves_nothing(call, tmp_path, document):
    (tmp_path / "front.json").write_text(json.dumps(document))
    (tmp_path / "again.json").write_text(json.dumps(again_of(document)))
    document["runs"] = [run for run in document["runs"] if run["arm"] != "rkcnn"]
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match="no rkcnn in some layer"):
        call(*(tmp_path / f"{name}.json" for name in ("study", "front")),
             "--again", tmp_path / "again.json")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_pictures_of_the_page_can_be_read():
    page = load("rkcnn_page")
    document, front, _ = published()
    assert set(page.Results(document).arms) <= set(legible_texts(page.layers_figure(document)))
    assert "ReLU, layer 2" in legible_texts(page.front_figure(front))
