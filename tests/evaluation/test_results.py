"""The record of results in a checkpoint: nothing in it is ever overwritten, and it has no date."""

import json
import shutil

import pytest

from rkstore.dictionaries import Dictionary, load_dictionary, save_dictionary, select_named
from rkstore.errors import BadInput
from rkstore.evaluation.checkpoints import with_controls
from rkstore.evaluation.compare import compared
from rkstore.evaluation.evaluate import entry_of, evaluate
from rkstore.evaluation.report.comparing import FORMATS
from rkstore.evaluation.results import RECORD, Entry, add, entries
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train, train_all

SITE = "blocks.0.mlp.hook_post"


def run(store, tmp_path, **options):
    shared = {"store": str(store.root), "hook": SITE, "d_sae": 24, "k": 4, "steps": 8}
    shared |= {
        "batch_size": 32,
        "init": "tied",
        "data_seed": 0,
        "out": str(tmp_path / "checkpoints"),
    }
    return TrainSettings(**(shared | options))


@pytest.fixture
def trained(make_store, tmp_path):
    """A store, and a checkpoint of one of its sites."""
    store, _ = make_store(rows=400)
    return store, train(run(store, tmp_path, name="one"))


def recorded(path, store, **options):
    settings = EvaluateSettings(store=str(store.root), **options)
    [result] = evaluate([path], settings)
    assert add(path, entry_of(result, store, settings)) is None
    return (path / RECORD).read_bytes()


def test_an_entry_says_what_it_is_of(trained):
    store, path = trained
    recorded(path, store)
    [entry] = entries(path)
    assert entry.kind == "reconstruction"
    assert entry.store_fingerprint == store.manifest.fingerprint
    assert entry.rows["count"] == entry.result["rows"]
    assert set(entry.versions) == {"rkstore", "torch", "numpy"}
    assert entry.options["max_norm"] is None
    assert not {"name", "path"} & {*entry.result, *entry.result["chance"]}


def test_the_same_evaluation_gives_the_same_bytes(trained, tmp_path):
    store, path = trained
    copy = shutil.copytree(path, tmp_path / "elsewhere" / "other_8")
    first = recorded(path, store)
    assert recorded(path, store, batch_size=7) == first
    assert recorded(copy, store) == first


def test_another_evaluation_is_another_entry_in_the_same_order(trained, tmp_path):
    store, path = trained
    copy = shutil.copytree(path, tmp_path / "copy")
    first, third = {"rows": 10}, {"seed": 3}
    for options in (first, {}, third):
        recorded(path, store, **options)
    for options in (third, {}, first):
        recorded(copy, store, **options)
    assert len(entries(path)) == 3
    assert (path / RECORD).read_bytes() == (copy / RECORD).read_bytes()


def test_other_rows_of_the_same_number_are_another_entry(trained):
    store, path = trained
    settings = EvaluateSettings(store=str(store.root))
    [result] = evaluate([path], settings)
    entry = entry_of(result, store, settings)
    assert add(path, entry) is None
    assert add(path, Entry(**(entry.as_dict() | {"rows": entry.rows | {"sha256": "0"}}))) is None
    assert len(entries(path)) == 2


def test_another_number_under_the_same_key_is_refused_and_nothing_changes(trained):
    store, path = trained
    before = recorded(path, store)
    [entry] = entries(path)
    for key, value in (("fvu", 0.5), ("dead", 9), ("cosine", None), ("l0", "4")):
        other = Entry(**(entry.as_dict() | {"result": entry.result | {key: value}}))
        assert f"({key} is" in add(path, other)
        assert (path / RECORD).read_bytes() == before


def test_rounding_is_no_other_number(trained):
    store, path = trained
    before = recorded(path, store)
    [entry] = entries(path)
    near = entry.result | {"fvu": entry.result["fvu"] * (1 + 1e-6)}
    assert add(path, Entry(**(entry.as_dict() | {"result": near}))) is None
    assert (path / RECORD).read_bytes() == before


def test_other_weights_in_the_same_place_are_another_entry(trained):
    store, path = trained
    recorded(path, store)
    dictionary, metadata = load_dictionary(path)
    dictionary.b_dec.data.add_(1)
    save_dictionary(dictionary, path, metadata)
    recorded(path, store)
    one, two = entries(path)
    assert one.weights_sha256 != two.weights_sha256


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[3]",
        '[{"kind": "x"}]',
        "[" * 100_000,
        '[{"kind": "x", "store_fingerprint": "", "rows": [], "options": {}, "result": {}}]',
    ],
)
def test_a_record_that_cannot_be_read_is_kept(trained, content):
    store, path = trained
    (path / RECORD).parent.mkdir()
    (path / RECORD).write_text(content)
    settings = EvaluateSettings(store=str(store.root))
    [result] = evaluate([path], settings)
    assert "cannot read" in add(path, entry_of(result, store, settings))
    assert (path / RECORD).read_text() == content


def test_nothing_is_written_into_a_checkpoint_of_another_program(trained, tmp_path, rkstore):
    store, _ = trained
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    dictionary = Dictionary.of_site(12, 8, select_named("topk", {"k": 2}))
    save_dictionary(dictionary, foreign, {"hook_name": SITE, "model_name": "random"})
    before = sorted(foreign.iterdir())
    status, _, err = rkstore("evaluate", foreign, "--store", store.root, "--out", "out")
    assert status == 0
    assert "is of another program" in err
    assert sorted(foreign.iterdir()) == before
    assert json.loads((tmp_path / "out/results.json").read_text())["results"]


def test_the_command_records_unless_told_not_to(trained, rkstore):
    store, path = trained
    assert rkstore("evaluate", path, "--store", store.root, "--no-record")[0] == 0
    assert entries(path) == []
    assert rkstore("evaluate", path, "--store", store.root)[0] == 0
    assert len(entries(path)) == 1


def test_where_nothing_may_be_written_the_results_are_elsewhere(
    trained, rkstore, tmp_path, monkeypatch
):
    store, path = trained
    monkeypatch.setattr("os.access", lambda *_: False)  # which root may always do
    status, _, err = rkstore("evaluate", path, "--store", store.root, "--out", "out")
    assert status == 0
    assert "may not be written to" in err
    assert "its result is in out/results.json" in err
    assert entries(path) == []
    assert json.loads((tmp_path / "out/results.json").read_text())["results"]


def test_too_few_documents_are_refused_only_if_intervals_are_asked_for(trained):
    store, path = trained
    with pytest.raises(BadInput, match="are of 3 documents, too few for an interval"):
        evaluate([path], EvaluateSettings(store=str(store.root), intervals=True))
    [result] = evaluate([path], EvaluateSettings(store=str(store.root)))
    assert result.metrics["intervals"].fvu is None


@pytest.fixture
def arms(make_store, tmp_path):
    """A store, and for each of two inits three seeds and no control, all recorded."""
    store, _ = make_store(rows=400)
    chosen = [
        run(store, tmp_path, init=init, seed=seed, name=f"{init}{seed}")
        for init in ("tied", "datapoint")
        for seed in range(3)
    ]
    paths = train_all(chosen)
    settings = EvaluateSettings(store=str(store.root))
    for path, result in zip(paths, evaluate(paths, settings), strict=True):
        add(path, entry_of(result, store, settings))
    return store, paths


def value(path, key="fvu"):
    [entry] = entries(path)
    return entry.result[key]


def test_arms_are_paired_by_seed(arms):
    _, paths = arms
    found = compared([*paths[:3], *paths[:2:-1]], ["fvu"])  # the others backwards
    first, other = found.rows
    assert (first.arm, other.arm) == ("init tied", "init datapoint")
    assert (first.seeds, first.difference, first.p) == (3, None, None)
    values = [[value(path) for path in paths[i : i + 3]] for i in (0, 3)]
    assert first.mean == pytest.approx(sum(values[0]) / 3)
    differences = [b - a for a, b in zip(*values, strict=True)]
    assert other.difference.mean == pytest.approx(sum(differences) / 3)
    assert other.difference.low <= other.difference.mean <= other.difference.high
    assert other.p in (0.25, 0.5, 0.75, 1.0)


def test_a_seed_that_one_arm_lacks_is_in_no_pair(arms):
    _, paths = arms
    _, other = compared([*paths[:3], *paths[4:]], ["fvu"]).rows
    assert (other.seeds, other.difference.pairs) == (2, 2)
    _, one = compared([*paths[:3], paths[5]], ["fvu"]).rows
    assert (one.seeds, one.difference) == (1, None)


def test_every_form_has_the_same_numbers(arms, rkstore, tmp_path):
    _, paths = arms
    for form in FORMATS:
        status, out, _ = rkstore("compare", *paths, "--metric", "sparsity.l1", "--format", form)
        assert status == 0
        assert out.count("init datapoint") == 1
    status, out, _ = rkstore("compare", *paths, "--format", "json", "--out", "a/table.json")
    assert (status, out) == (0, "a/table.json\n")
    document = json.loads((tmp_path / "a/table.json").read_text())
    assert {row["metric"] for row in document["rows"]} == {
        "fvu", "chance.fvu", "l0", "dead", "cosine",
    }  # fmt: skip
    assert "sign-flip" in document["test"]
    assert document["of"]["rows"]["count"] == value(paths[0], "rows")


def test_records_of_several_evaluations_need_a_choice(arms, make_store, rkstore):
    store, paths = arms
    settings = EvaluateSettings(store=str(store.root), rows=10)
    for path, result in zip(paths[:2], evaluate(paths[:2], settings), strict=True):
        add(path, entry_of(result, store, settings))
    assert "several evaluations fit" in rkstore("compare", *paths[:2])[2]
    assert rkstore("compare", *paths[:2], "--rows", 16)[0] == 0
    assert rkstore("compare", *paths[1:3])[0] == 0  # only one is in both
    assert "none of the evaluations fits" in rkstore("compare", *paths[:2], "--rows", 11)[2]
    other, _ = make_store("other", rows=400, seed=5, source={"model": {"name": "else"}})
    assert "none of the eval" in rkstore("compare", *paths[:2], "--store", other.root)[2]


def test_what_cannot_be_compared_is_said(arms, trained, rkstore, tmp_path):
    _, paths = arms
    _, alone = trained

    def refused(*words):
        status, _, err = rkstore("compare", *words)
        assert status == 2
        return err

    assert "there is nothing to compare" in refused()
    assert "has no record of results" in refused(paths[0], alone)
    assert "is no checkpoint that" in refused(tmp_path)
    assert "is given twice" in refused(paths[0], paths[0])
    assert "has no number 'fv': it has bias" in refused(*paths, "--metric", "fv")
    assert "is not one number" in refused(*paths, "--metric", "density")
    copy = shutil.copytree(paths[0], tmp_path / "copy_8")
    assert "are the same run with seed 0" in refused(paths[0], copy)


def test_records_without_an_evaluation_in_common_are_refused(arms):
    store, paths = arms
    shutil.rmtree(paths[1] / "evaluation")
    recorded(paths[1], store, rows=10)
    with pytest.raises(BadInput, match="no evaluation is in the records of all of"):
        compared(paths[:2], ["fvu"])


def test_control_arms_are_measured_with_what_they_control(make_store, tmp_path, rkstore):
    store, _ = make_store(rows=400)
    words = ["--store", store.root, "--hook", SITE, "--d-sae", 24, "--k", 4, "--steps", 8]
    words += ["--batch-size", 32]
    assert rkstore("train", *words, "--name", "it", "--controls")[0] == 0
    assert rkstore("train", *words, "--name", "other", "--lr", 0.01, "--controls")[0] == 0
    parent = tmp_path / "checkpoints" / "sae" / "random"
    arms = [parent / f"it-{arm}_8" for arm in ("frozen-decoder", "frozen-encoder")]
    arms.append(parent / "it-soft-frozen-decoder_8")
    own, theirs = str(parent / "it_8"), [str(arm) for arm in arms]
    assert with_controls([own]) == [own, *theirs]
    assert with_controls([theirs[0], own]) == [theirs[0], own, *theirs[1:]]
    status, out, err = rkstore("evaluate", parent / "it_8", "--store", store.root)
    assert status == 0
    assert "with their control arms, 3 more" in err
    assert all(arm.name in out for arm in arms)
    assert "| random" in out
    _, out, _ = rkstore("evaluate", parent / "it_8", "--store", store.root, "--no-controls")
    assert arms[0].name not in out
