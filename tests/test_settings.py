"""Settings: what is refused before anything is started, and how it is said."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rkstore.dictionaries.selects import SELECTS
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.errors import BadInput
from rkstore.evaluation.latents.settings import QualitySettings
from rkstore.evaluation.report.settings import ReportSettings
from rkstore.evaluation.samples.settings import LatentsSettings, SamplesSettings
from rkstore.evaluation.settings import CompareSettings, EvaluateSettings
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn.directions import DIRECTIONS
from rkstore.rkcnn.scores import SCORES
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.rkcnn.subsets import SUBSETS
from rkstore.settings import (
    Settings,
    combined,
    from_yaml,
    identity_of,
    option,
    options_in,
    replace,
    unread,
)
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.share.settings import ExportSettings, ImportSettings, PullSettings
from rkstore.store.codecs import CODECS
from rkstore.store.formats import FORMATS
from rkstore.training.helpers import HELPERS
from rkstore.training.inits import INITS
from rkstore.training.settings import TrainSettings

ALL = [
    HarvestSettings,
    *(ImportSettings, ExportSettings, PullSettings),
    ProbeSettings,
    TrainSettings,
    EvaluateSettings,
    CompareSettings,
    QualitySettings,
    *(SamplesSettings, LatentsSettings),
    ReportSettings,
]


def fields_of(*types: type) -> list[Any]:
    """Every field of all settings that asks for one of these types, with its settings."""
    return [
        pytest.param(kind, spec, id=f"{kind.__name__}.{spec.name}")
        for kind in ALL
        for spec in options_in(kind).values()
        if (tuple[spec.kind, ...] if spec.several else spec.kind) in types
    ]


def write(root: Path, text: str) -> Path:
    (root / "run.yaml").write_text(text, "utf-8")
    return root / "run.yaml"


@pytest.mark.parametrize("kind", ALL)
def test_the_defaults_pass_their_own_checks(kind):
    made = kind()
    for spec in options_in(kind).values():
        assert getattr(made, spec.name) == spec.default


@pytest.mark.parametrize("kind", ALL)
def test_every_option_says_what_it_is_for_and_has_a_type_that_can_be_checked(kind):
    for spec in options_in(kind).values():
        assert spec.help.endswith(".")
        assert spec.kind in (str, int, float, bool)


def test_every_codec_and_every_format_can_be_asked_for():
    specs = options_in(HarvestSettings)
    assert specs["codec"].choices is CODECS
    assert specs["format"].choices is FORMATS


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        HarvestSettings().tokens = 5


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (HarvestSettings, {"tokens": "many"}, "tokens takes a whole number, not 'many'"),
        (HarvestSettings, {"tokens": 1.5}, "tokens takes a whole number, not 1.5"),
        (HarvestSettings, {"tokens": True}, "tokens takes a whole number, not True"),
        (HarvestSettings, {"tokens": None}, "tokens takes a whole number, not None"),
        (HarvestSettings, {"prepend_bos": 1}, "prepend_bos takes true or false, not 1"),
        (HarvestSettings, {"model": ["a"]}, "model takes text, not ['a']"),
        (HarvestSettings, {"text": True}, "text takes a list of texts, not True"),
        (TrainSettings, {"lr": "1e-3 "}, "lr takes a number, not '1e-3 '"),
        (TrainSettings, {"lr": True}, "lr takes a number, not True"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_option(kind, given, said):
    with pytest.raises(BadInput) as error:
        kind(**given)
    assert str(error.value) == said


@pytest.mark.parametrize("key", ["text", "fallback"])
@pytest.mark.parametrize("wrong", [(True,), ("a", None), (["a"],)])
def test_a_list_of_anything_but_texts_is_refused_with_its_option(key, wrong):
    with pytest.raises(BadInput, match=f"^{key} takes"):
        HarvestSettings(**{key: wrong})


@pytest.mark.parametrize(
    ("kind", "key", "least"),
    [
        (HarvestSettings, "tokens", 1),
        (HarvestSettings, "context_size", 2),
        (HarvestSettings, "batch_size", 1),
        (HarvestSettings, "shard_rows", 1),
        (HarvestSettings, "d_in", 1),
        (HarvestSettings, "seed", 0),
        (ProbeSettings, "h", 1),
        (ProbeSettings, "sample_rows", 2),
        (TrainSettings, "steps", 1),
        (TrainSettings, "lr", 0.0),
        (TrainSettings, "rkcnn_oversample", 1.0),
        (EvaluateSettings, "rows", 1),
    ],
)
def test_a_value_below_the_least_is_refused_and_the_least_is_not(kind, key, least):
    assert getattr(kind(**{key: least}), key) == least
    with pytest.raises(BadInput, match=f"at least {least}"):
        kind(**{key: least - 1})


def test_a_number_that_is_none_is_refused():
    with pytest.raises(BadInput, match=r"^lr takes"):
        TrainSettings(lr=float("nan"))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (HarvestSettings, "codec"),
        (HarvestSettings, "format"),
        (HarvestSettings, "dtype"),
        (ProbeSettings, "score"),
        (ProbeSettings, "labels"),
        (TrainSettings, "init"),
        (TrainSettings, "dictionary"),
    ],
)
def test_what_is_not_one_of_the_choices_is_refused_with_all_of_them(kind, key):
    with pytest.raises(BadInput) as error:
        kind(**{key: "nonsense"})
    assert f"{key} is 'nonsense'" in str(error.value)
    assert ", ".join(options_in(kind)[key].choices) in str(error.value)


@pytest.mark.parametrize(("kind", "spec"), fields_of(str))
def test_a_number_will_do_where_text_is_asked_for(kind, spec, tmp_path):
    if spec.choices:
        with pytest.raises(BadInput, match="is '6': choose one of"):
            kind(**{spec.name: 6})
        return
    assert getattr(kind(**{spec.name: 6}), spec.name) == "6"
    path = write(tmp_path, f"{spec.name.rstrip('_')}: 6\n")
    assert getattr(from_yaml(kind, path, {}), spec.name) == "6"


@pytest.mark.parametrize(("kind", "spec"), fields_of(int))
def test_a_whole_number_may_be_written_in_any_way(kind, spec, tmp_path):
    for written in ("100000", "'100000'", "1e5", "1E+5", "100000.0", ".1e6"):
        path = write(tmp_path, f"{spec.name}: {written}\n")
        given = {spec.name: written.strip("'")}
        for made in (kind(**given), from_yaml(kind, path, {}), kind(**{spec.name: 1e5})):
            assert getattr(made, spec.name) == 100_000
            assert type(getattr(made, spec.name)) is int


@pytest.mark.parametrize(("kind", "spec"), fields_of(int))
def test_what_is_no_whole_number_is_refused_and_never_rounded(kind, spec):
    texts = ("1.5", "15e-1", "1_0", "0x10", "1:30", "ten", "", " 5", "nan", "9" * 5000)
    for wrong in (1.5, 1e30, float("inf"), *texts):
        with pytest.raises(BadInput, match=r"takes a whole number, not|must be at most"):
            kind(**{spec.name: wrong})


@pytest.mark.parametrize(("kind", "spec"), fields_of(float))
def test_a_number_may_be_written_with_an_exponent(kind, spec, tmp_path):
    path = write(tmp_path, f"{spec.name}: 125e-2\n")
    assert getattr(from_yaml(kind, path, {}), spec.name) == 1.25
    assert getattr(kind(**{spec.name: "1.25"}), spec.name) == 1.25


@pytest.mark.parametrize(("kind", "spec"), fields_of(float))
def test_what_is_no_number_is_refused(kind, spec, tmp_path):
    for wrong in ("nan", ".nan", "inf", "-.inf", "1e999", "1,5", "1:30", "0x1p3"):
        with pytest.raises(BadInput, match="takes a number"):
            kind(**{spec.name: wrong})
        with pytest.raises(BadInput, match="takes a number"):
            from_yaml(kind, write(tmp_path, f"{spec.name}: {wrong}\n"), {})


@pytest.mark.parametrize(("kind", "spec"), fields_of(int, float))
def test_a_number_that_yaml_would_take_for_octal_is_refused(kind, spec, tmp_path):
    with pytest.raises(BadInput, match="is 010: write it without the leading zero"):
        from_yaml(kind, write(tmp_path, f"{spec.name}: 010\n"), {})


@pytest.mark.parametrize(("kind", "spec"), fields_of(bool))
def test_yes_and_no_are_words_of_yaml_alone(kind, spec, tmp_path):
    for word, meant in [("yes", True), ("Off", False), ("true", True), ("NO", False)]:
        made = from_yaml(kind, write(tmp_path, f"{spec.name}: {word}\n"), {})
        assert getattr(made, spec.name) is meant
        with pytest.raises(BadInput, match="takes true or false"):
            kind(**{spec.name: word})
    for wrong in ("1", "y", "nein"):
        with pytest.raises(BadInput, match="takes true or false"):
            from_yaml(kind, write(tmp_path, f"{spec.name}: {wrong}\n"), {})


@pytest.mark.parametrize(("kind", "spec"), fields_of(str, tuple[str, ...]))
def test_a_text_in_yaml_is_as_it_is_written(kind, spec, tmp_path):
    key = spec.name.rstrip("_")
    words = ("10:50", "010", "08", "1_0", "0-3", "no", "off", "y", "1e5", "2024-01-01", "0x1f")
    for word in words:
        path = write(tmp_path, f"{key}: {word}\n")
        if spec.choices:
            with pytest.raises(BadInput, match=f"is '{word}': choose one of"):
                from_yaml(kind, path, {})
            continue
        found = getattr(from_yaml(kind, path, {}), spec.name)
        assert found == ((word,) if isinstance(found, tuple) else word)


def test_null_is_none_and_a_quoted_null_is_a_text(tmp_path):
    for word in ("null", "~", ""):
        made = from_yaml(HarvestSettings, write(tmp_path, f"revision: {word}\n"), {})
        assert made.revision is None
    made = from_yaml(HarvestSettings, write(tmp_path, "revision: 'null'\n"), {})
    assert made.revision == "null"


@pytest.mark.parametrize(
    ("kind", "spec"), fields_of(str, int, float, bool, tuple[str, ...], tuple[float, ...])
)
def test_a_key_given_twice_in_a_yaml_file_is_refused(kind, spec, tmp_path):
    key = spec.name.rstrip("_")
    path = write(tmp_path, f"{key}: 1\n'{key}': 1\n")
    with pytest.raises(BadInput, match=f"run.yaml: '{key}' is given twice: give it once"):
        from_yaml(kind, path, {})


# Text that is not, and cannot be, a path. Whatever is not listed here must be marked as one.
NO_PATHS = {
    *("revision", "layer", "layers", "hook", "dataset_config", "split", "device", "name", "rows"),
    *("shards", "address"),
    *("hook_name", "hook_name_out", "model_name", "hook_out", "pair", "metric"),
    *("seeds", "address"),
    *("text_column", "ids_column", "chat_column", "id_column"),
    *("source_set", "model_id", "creator_id", "creator_name", "release", "created_at"),
}


@pytest.mark.parametrize(("kind", "spec"), fields_of(str, tuple[str, ...]))
def test_every_text_is_a_path_in_which_a_tilde_is_the_home_directory_or_known_not_to_be(
    kind, spec, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    if spec.choices:
        assert not spec.path
        return
    hdf5 = kind is ImportSettings and spec.name == "dataset"  # a name inside a file
    assert spec.path == (spec.name not in NO_PATHS and not hdf5)
    home = str(tmp_path / "a b") if spec.path else "~/a b"
    path = write(tmp_path, f"{spec.key}: ~/a b\n")
    for made in (kind(**{spec.name: "~/a b"}), from_yaml(kind, path, {})):
        found = getattr(made, spec.name)
        assert found == ((home,) if isinstance(found, tuple) else home)


@pytest.mark.parametrize(
    "name",
    ["gpt2", "openai-community/gpt2", "s3://bucket/~/x", "./~", "a~", "~nobody-is-called-so/x"],
)
def test_what_does_not_begin_at_home_is_left_as_it_is(name):
    assert HarvestSettings(model=name).model == name


def test_a_path_will_do_where_a_path_is_asked_for(tmp_path):
    made = HarvestSettings(out=tmp_path / "store", text=[tmp_path / "a.txt", "b.txt"])
    assert (made.out, made.text) == (f"{tmp_path}/store", (f"{tmp_path}/a.txt", "b.txt"))
    with pytest.raises(BadInput, match="takes text"):
        HarvestSettings(revision=tmp_path)


def test_what_is_given_is_not_blamed_on_the_yaml_file(tmp_path):
    with pytest.raises(BadInput) as error:
        from_yaml(HarvestSettings, write(tmp_path, "tokens: 5\n"), {"tokens": 0})
    assert "run.yaml" not in str(error.value)


def test_a_whole_number_will_do_where_a_number_is_asked_for():
    made = TrainSettings(lr=1)
    assert made.lr == 1.0
    assert type(made.lr) is float


def test_a_list_will_do_where_several_are_asked_for():
    assert HarvestSettings(text=["a", "b"]).text == ("a", "b")


@pytest.mark.parametrize(("kind", "spec"), fields_of(tuple[str, ...]))
def test_one_text_will_do_where_several_may_be_given(kind, spec, tmp_path):
    text = next(iter(spec.choices), "hook_z")
    assert getattr(kind(**{spec.name: text}), spec.name) == (text,)
    path = write(tmp_path, f"{spec.name}: {text}\n")
    assert getattr(from_yaml(kind, path, {}), spec.name) == (text,)


@pytest.mark.parametrize("kind", [HarvestSettings, PullSettings, ExportSettings])
def test_several_hooks_may_be_named_where_several_sites_are_asked_for(kind):
    assert kind(hook=["mlp.hook_post", "hook_z"]).hook == ("mlp.hook_post", "hook_z")


def test_what_may_be_left_out_may_be_none():
    assert HarvestSettings(revision=None, d_in=None, out=None).d_in is None


def test_a_yaml_file_gives_options_by_their_names(tmp_path):
    path = write(tmp_path, "model: demo\ntext: [a.txt, größe.txt]\nlayers: '3'\nprepend_bos: no\n")
    made = from_yaml(HarvestSettings, path, {})
    assert made == HarvestSettings(
        model="demo", text=("a.txt", "größe.txt"), layers="3", prepend_bos=False
    )


def test_what_is_given_overrides_the_yaml_file_and_that_the_defaults(tmp_path):
    path = write(tmp_path, "tokens: 200\ncodec: int8\n")
    made = from_yaml(HarvestSettings, path, {"tokens": 300})
    assert (made.tokens, made.codec, made.format) == (300, "int8", "zarr")


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}\n"])
def test_an_empty_yaml_file_changes_nothing(tmp_path, text):
    assert from_yaml(HarvestSettings, write(tmp_path, text), {}) == HarvestSettings()


@pytest.mark.parametrize("key", ["token", "batch-size", "1", "null"])
def test_an_unknown_key_is_refused_with_the_keys_there_are(tmp_path, key):
    path = write(tmp_path, f"model: demo\n{key}: 3\n")
    with pytest.raises(BadInput, match="unknown key") as error:
        from_yaml(HarvestSettings, path, {})
    for part in (str(path), f"'{'None' if key == 'null' else key}'", "batch_size", "context_size"):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "model\n", "3\n", "[model, demo]\n"])
def test_a_yaml_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(BadInput, match="'option: value' lines") as error:
        from_yaml(HarvestSettings, path, {})
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: many\n", "tokens takes a whole number"),
        ("layers: [3]\n", "layers takes text"),
        ("tokens: 0\n", "at least 1"),
        ("codec: zip\n", "choose one of"),
        ("text: [[a]]\n", "yaml: text takes"),
    ],
)
def test_a_bad_value_in_a_yaml_file_is_refused_with_the_name_of_the_file(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as error:
        from_yaml(HarvestSettings, path, {})
    assert str(path) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "[" * 5000,
        "a: !!int x",
        "a: !!timestamp 2001-99-99",
        "\t- x",
        "a: !!python/name:os.system ''\n",
    ],
)
def test_a_file_that_is_no_plain_yaml_is_refused_and_nothing_in_it_is_run(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(BadInput, match="cannot read") as error:
        from_yaml(HarvestSettings, path, {})
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", ["missing", "directory", "latin1"])
def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path, what):
    path: Any = tmp_path / what
    if what == "directory":
        path.mkdir()
    if what == "latin1":
        path.write_bytes(b"model: \xe9\n")
    with pytest.raises(BadInput, match="cannot read") as error:
        from_yaml(HarvestSettings, path, {})
    assert str(path) in str(error.value)


def test_a_name_that_is_no_option_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match="there is no tokenz: choose among model, ") as error:
        HarvestSettings(tokenz=5)
    assert "tokens" in str(error.value)


def test_what_is_replaced_is_checked_and_the_rest_stays():
    made = HarvestSettings(tokens=5, codec="int4")
    assert replace(made, tokens="6") == HarvestSettings(tokens=6, codec="int4")
    with pytest.raises(BadInput, match="tokens is 0: it must be at least 1"):
        replace(made, tokens=0)


def test_what_may_change_when_a_run_is_resumed_is_no_part_of_its_identity():
    free = {"store", "paired_with", "out", "name", "device", "checkpoint_every"}
    newer = {name for name, spec in options_in(TrainSettings).items() if spec.newer}
    assert identity_of(TrainSettings(k=8)) == {
        key: value for key, value in dict(TrainSettings(k=8)).items() if key not in free | newer
    }


def test_an_option_that_runs_were_once_made_without_counts_if_it_says_something_new():
    """So the runs from before it keep their names, and can be resumed."""
    plain, nested = identity_of(TrainSettings()), identity_of(TrainSettings(prefixes=(0.5, 1)))
    assert nested == plain | {"prefixes": (0.5, 1)}


class Lists(Settings):
    """Lists of numbers."""

    shares: tuple[float, ...] = option((1.0,), "Shares.", least=0.0)
    sizes: tuple[int, ...] = option((), "Sizes.", least=1)


@pytest.mark.parametrize("written", ["0.25,1", "[0.25, 1]", "['0.25', 1e0]"])
def test_a_list_of_numbers_may_be_written_as_one_or_with_commas(written, tmp_path):
    made = from_yaml(Lists, write(tmp_path, f"shares: {written}\n"), {})
    assert made.shares == (0.25, 1.0)
    assert Lists(sizes=6).sizes == Lists(sizes="6").sizes == (6,)


def test_each_number_of_a_list_is_checked():
    with pytest.raises(BadInput, match=r"shares is -1\.0: it must be at least 0\.0"):
        Lists(shares=(1, -1))
    with pytest.raises(BadInput, match=r"sizes takes a list of whole numbers, not \[1.5\]"):
        Lists(sizes=[1.5])


class OfTopK(Settings):
    """A member's options."""

    k: int = option(32, "Active latents of a topk code.", least=1)


class OfBatchTopK(Settings):
    """Shares one of them."""

    k: int = option(32, "Active latents on average.", least=1)
    slack: float = option(0.0, "Slack.")


class OfRelu(Settings):
    """Has one of its own."""

    l1: float = option(1.0, "Weight of the L1 penalty.", least=0.0)


class OfAuxK(Settings):
    """A helper's, of which any number may be on."""

    auxk: int = option(0, "Dead latents that help.", least=0)


CODES = {"relu": OfRelu, "topk": OfTopK, "batchtopk": OfBatchTopK}


@combined(select=CODES, helpers={"auxk": OfAuxK})
class Flat(Settings):
    """Settings whose members bring options."""

    select: str = option("topk", "Kind of sparse code.", choices=tuple(CODES))
    steps: int = option(1, "Steps.", least=1)


def test_members_bring_their_options_into_one_flat_record(tmp_path):
    assert dict(Flat(k="8")) == {
        "select": "topk",
        "steps": 1,
        "l1": 1.0,
        "k": 8,
        "slack": 0.0,
        "auxk": 0,
    }
    assert from_yaml(Flat, write(tmp_path, "l1: 3\n"), {}).l1 == 3.0
    with pytest.raises(BadInput, match=r"l1 is -1\.0: it must be at least 0\.0"):
        Flat(l1=-1)


def test_a_member_gets_its_options_out_of_them():
    assert Flat(k=8, slack=0.5).options(OfBatchTopK) == OfBatchTopK(k=8, slack=0.5)


def test_options_of_members_that_are_not_chosen_have_no_part():
    assert unread(Flat()) == {"l1": "select", "slack": "select"}
    assert unread(Flat(select="relu")) == {"k": "select", "slack": "select"}


class Looser(Settings):
    """An option of another's name with another bound."""

    k: int = option(32, "Active latents.", least=0)


class Otherwise(Settings):
    """An option of the name of one that the settings have themselves."""

    steps: float = option(1.0, "Steps.")


@pytest.mark.parametrize("other", [Looser, Otherwise])
def test_two_options_of_one_name_that_differ_are_refused(other):
    with pytest.raises(TypeError, match="of select other differs"):
        combined(select={"other": other})(Flat)


def test_combined_settings_are_the_class_they_are_called():
    assert pickle.loads(pickle.dumps(Flat(k=8))) == Flat(k=8)
    assert isinstance(replace(Flat(), k=9), Flat)


FAMILIES = {
    ProbeSettings: (SCORES, SUBSETS, DIRECTIONS),
    ImportSettings: (IMPORTERS,),
    ExportSettings: (EXPORTERS,),
    TrainSettings: (SELECTS, WIRINGS, INITS, HELPERS),
}


@pytest.mark.parametrize("settings", FAMILIES, ids=lambda kind: kind.__name__)
def test_the_options_of_members_do_not_clash(settings):
    """Two that share a name are one option: of one type, default and bounds."""
    known = options_in(settings)
    for family in FAMILIES[settings]:
        for member in family.values():
            for name, own in options_in(member).items():
                assert known[name] == own
