"""The command line: the whole way, and every bad input as one clear sentence."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import flip, tree

from rkstore.cli import cli
from rkstore.cli.options import Command, Number, Numbers, PathOrName, options_of
from rkstore.settings import Settings, combined, option

SITE = "blocks.0.mlp.hook_post"

# Text of the command line that is no path.
NO_PATHS = {
    *(
        "revision",
        "shards",
        "address",
        "layer",
        "layers",
        "hook",
        "dataset",
        "dataset_config",
        "split",
        "device",
        "name",
    ),
    *("rows", "hook_name", "hook_name_out", "license", "model_name", "pair", "hook_out", "find"),
    *("seeds", "address"),
    "metric",
    *("text_column", "ids_column", "chat_column", "id_column"),
    *("source_set", "model_id", "creator_id", "creator_name", "release", "created_at"),
}


@pytest.fixture
def refused(rkstore):
    """Call it with words that must be refused; returns the sentence.

    Exit status 2 unless another is given, nothing on stdout, no traceback; the sentence
    is the last thing said.
    """

    def run(*words, status=2):
        found, out, err = rkstore(*words)
        assert found == status, err
        assert out == ""
        assert "Traceback" not in err
        [sentence] = [line for line in err.splitlines() if line.startswith("rkstore: ")]
        assert err.rstrip().endswith(sentence)
        return sentence

    return run


@pytest.fixture
def harvest(model_dir, text_file):
    """The words of a small harvest."""
    return [
        *("harvest", "--model", model_dir, "--text", text_file, "--out", "store"),
        *("--tokens", 512, "--context-size", 16, "--shard-rows", 128, "--batch-size", 8),
    ]


def instead(words, *others):
    """The words of a command with other options in place of those it has of the same name."""
    kept = list(words)
    for word in others:
        if word in kept and str(word).startswith("--"):
            del kept[kept.index(word) : kept.index(word) + 2]
    return [*kept, *others]


def test_the_whole_way(rkstore, harvest):
    status, out, _ = rkstore(*instead(harvest, "--shard-rows", 16))
    assert status == 0
    assert "blocks.2.mlp.hook_post" in out
    assert rkstore("verify", "store")[0] == 0
    status, out, _ = rkstore("probe", "--store", "store", "--layer", 1, "--h", 40, "--r", 10)
    assert status == 0
    assert "kept 10 of 40 subsets of 8 dimensions" in out
    checkpoints = []
    for init in ("random", "rkcnn"):
        words = ("--layer", 1, "--init", init, "--d-sae", 96, "--k", 4, "--steps", 30)
        status, out, err = rkstore("train", "--store", "store", *words, "--batch-size", 64)
        assert status == 0, err
        checkpoints.append(out.strip())
    status, out, _ = rkstore("evaluate", "--store", "store", *checkpoints)
    assert status == 0
    assert "explained" in out
    results = Path("results/evaluate")
    assert len(json.loads((results / "results.json").read_text())["results"]) == 2
    assert (results / "comparison.png").stat().st_size > 1000


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(rkstore, harvest, tmp_path):
    status, out, _ = rkstore(*harvest, "--dry-run")
    assert status == 0
    assert "3: blocks.0.mlp.hook_post to blocks.2.mlp.hook_post, 64 wide" in out
    assert not (tmp_path / "store").exists()


def test_the_default_directory_is_named_after_the_model(rkstore, harvest, tmp_path):
    words = [word for word in harvest if word not in ("--out", "store")]
    assert rkstore(*words)[0] == 0
    assert (tmp_path / "stores" / "tiny" / "manifest.json").is_file()


def test_a_store_may_be_left_out_if_there_is_only_one(rkstore, make_store):
    make_store("stores/one")
    status, out, _ = rkstore("info")
    assert status == 0
    assert out.startswith("stores/one")


def test_several_stores_are_listed(refused, make_store):
    make_store("stores/one")
    make_store("stores/two")
    assert "(stores/one, stores/two): say which with --store" in refused("train", "--layer", 0)


def test_info_for_a_program_says_what_info_for_a_person_says(rkstore, make_store):
    store, _ = make_store(codec="int8")
    _, out, _ = rkstore("info", store.root, "--json")
    facts = json.loads(out)
    assert facts["fingerprint"] == store.manifest.fingerprint
    assert facts["rows"] == 216
    [site] = [site for site in facts["sites"] if site["hook_name"] == SITE]
    assert site["codec_fvu"] == store.codec_fvu(SITE)
    _, out, _ = rkstore("info", store.root)
    assert store.manifest.fingerprint in out
    assert f"{site['bits_per_value']:.2f}" in out
    assert f"{site['codec_fvu']:.1e}" in out


def test_a_yaml_file_gives_options_and_the_command_line_overrides_them(rkstore, harvest, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.dump({"codec": "int8", "format": "hdf5"}))
    assert rkstore(*harvest, "--config", "run.yaml", "--format", "zarr")[0] == 0
    _, out, _ = rkstore("info", "store", "--json")
    facts = json.loads(out)
    assert (facts["codec"], facts["format"]) == ("int8", "zarr")


def test_several_files_train_several_dictionaries_on_one_reading(rkstore, make_store, tmp_path):
    store, _ = make_store(rows=400)
    for init in ("tied", "random"):
        (tmp_path / f"{init}.yaml").write_text(yaml.dump({"init": init, "name": init, "k": 4}))
    words = ["--store", store.root, "--layer", 0, "--steps", 3, "--batch-size", 64, "--d-sae", 24]
    files = ["--config", "tied.yaml", "--config", "random.yaml"]
    status, out, err = rkstore("train", *files, *words)
    assert status == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["tied_3", "random_3"]


def test_two_files_of_options_are_refused_where_one_thing_is_done(refused, harvest, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.dump({"codec": "int8"}))
    files = ["--config", "run.yaml", "--config", "run.yaml"]
    assert "--config is given 2 times: give one file" in refused(*harvest, *files)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"codecs": "int8"}, "unknown key 'codecs'"),
        ({"seed": "many"}, "seed takes a whole number, not 'many'"),
        ({"format": "hdf5", "compression": "zstd"}, "choose --compression auto, deflate, none"),
        ({"codec": "int9"}, "codec is 'int9': choose one of float32, float16, bfloat16, int8"),
        (["codec"], "must contain 'option: value' lines"),
    ],
)
def test_a_wrong_yaml_file_is_refused(refused, harvest, tmp_path, document, said):
    (tmp_path / "run.yaml").write_text(yaml.dump(document))
    assert said in refused(*harvest, "--config", "run.yaml")


PARAMETERS = [
    pytest.param(parameter, id=f"{name}-{parameter.name}")
    for name, command in cli.commands.items()
    for parameter in command.params
]


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_argument_and_every_option_that_is_a_path_knows_the_home_directory(
    parameter, monkeypatch
):
    monkeypatch.setenv("HOME", "/home/ada")
    known_not_to_be = parameter.type is click.STRING and parameter.name in NO_PATHS
    other = isinstance(parameter.type, Number | click.Choice | type(click.BOOL))
    assert known_not_to_be or other or parameter.type.convert("~/x", None, None) == "/home/ada/x"
    if isinstance(parameter, click.Argument):
        assert isinstance(parameter.type, PathOrName)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_every_number_on_the_command_line_may_be_written_with_an_exponent(parameter):
    assert not isinstance(parameter.type, type(click.INT) | type(click.FLOAT))
    if isinstance(parameter.type, Number):
        one = (100_000,) if isinstance(parameter.type, Numbers) else 100_000
        assert parameter.type.convert("1e5", None, None) == one
        with pytest.raises(click.BadParameter, match="'many' is not a"):
            parameter.type.convert("many", None, None)


def test_several_numbers_are_written_with_commas(rkstore, make_store):
    store, _ = make_store(rows=400)
    words = (
        "--store",
        store.root,
        "--layer",
        0,
        "--d-sae",
        16,
        "--k",
        2,
        "--steps",
        2,
        "--batch-size",
        32,
    )
    status, out, err = rkstore("train", *words, "--prefixes", "0.25,1", "--name", "nested")
    assert status == 0, err
    path = Path(out.strip())
    assert json.loads((path / "training.json").read_text())["identity"]["prefixes"] == [0.25, 1]


def test_a_harvest_of_1e2_tokens_takes_a_path_at_home(rkstore, harvest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("shard_rows: 1e1\nlayers: 1\n")
    words = instead(harvest, "--out", "~/there", "--tokens", "96e0", "--config", "~/run.yaml")
    position = words.index("--shard-rows")
    assert rkstore(*words[:position], *words[position + 2 :])[0] == 0
    facts = json.loads(rkstore("info", "~/there", "--json")[1])
    assert facts["rows"] == 96
    assert (tmp_path / "there" / "manifest.json").is_file()


OPTIONS = [
    pytest.param(command, option, id=f"{name}-{option.name}")
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
    # What may be repeated adds one more; a flag without an opposite says the same again.
    and not option.multiple
    and not (option.is_flag and not option.secondary_opts)
]


def spoken(option):
    """Words that give an option a value, whichever it takes."""
    if option.is_flag:
        return [option.opts[0]]
    return [option.opts[0], option.type.choices[0] if hasattr(option.type, "choices") else "1"]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_an_option_of_one_value_is_refused_if_it_is_given_twice(refused, command, option):
    sentence = refused(command.name, *spoken(option), *spoken(option))
    assert option.opts[0] in sentence
    assert sentence.endswith("is given twice: give it once")


def test_an_option_and_its_opposite_are_one_option_given_twice(refused):
    sentence = refused("probe", "--no-whiten", "--whiten")
    assert "--whiten or --no-whiten is given twice: give it once" in sentence


def test_a_flag_may_be_repeated(rkstore, make_store):
    store, _ = make_store()
    assert rkstore("info", "--json", store.root, "--json")[0] == 0


def test_two_hooks_are_both_harvested(rkstore, harvest):
    hooks = ["--hook", "mlp.hook_post", "--hook", "hook_resid_post", "--layers", "1"]
    assert rkstore(*harvest, *hooks)[0] == 0
    facts = json.loads(rkstore("info", "store", "--json")[1])
    names = {site["hook_name"] for site in facts["sites"]}
    assert names == {"blocks.1.mlp.hook_post", "blocks.1.hook_resid_post"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hook", "mlp.hook_pst"], "--hook mlp.hook_pst is not in"),
        (["--layers", "0-9"], ", whose layers are 0-2"),
        (["--layers", "first"], "--layers is 'first': give 'all' or a list such as 0-3,8"),
        (["--d-in", "3072"], "64 wide, not 3072"),
        (["--context-size", "64"], "sees at most 32 tokens"),
        (["--tokens", "-5"], "--tokens is -5: it must be at least 1"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--device", "cuda:9"], "device 'cuda:9' is not available"),
        (["--text", "absent.txt"], "cannot read --text absent.txt"),
        (["--text", "latin1.txt"], "--text latin1.txt is not UTF-8 (byte 3)"),
        (["--model", "./absent"], "there is no directory ./absent"),
        (["--model", "."], "contains no model"),
        (["--model", "weightless"], "has no weights"),
        (["--out", "taken"], "taken is not empty and holds no store"),
    ],
)
def test_a_harvest_that_cannot_be_is_refused(refused, harvest, model_dir, tmp_path, words, said):
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    assert said in refused(*instead(harvest, *words))
    assert not (tmp_path / "store").exists()
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"


def test_a_text_shorter_than_a_block_is_refused(refused, model_dir, tmp_path):
    (tmp_path / "short.txt").write_text("the cat")
    words = ("--text", "short.txt", "--context-size", 16)
    assert "fewer than one block" in refused("harvest", "--model", model_dir, *words)


def test_a_directory_of_another_configuration_is_refused_and_kept(rkstore, refused, harvest):
    assert rkstore(*harvest)[0] == 0
    sentence = refused(*harvest, "--codec", "float16")
    assert "codec: int8 there, float16 here" in sentence
    assert rkstore("verify", "store")[0] == 0


def test_without_a_network_a_hub_name_points_to_what_works_without(refused, text_file):
    sentence = refused("harvest", "--model", "gpt2", "--text", text_file, status=1)
    for way in ("--model DIR", "--text FILE", "rkstore demo"):
        assert way in sentence


def test_without_a_network_a_dataset_points_to_what_works_without(refused, model_dir):
    sentence = refused("harvest", "--model", model_dir, "--context-size", 16, status=1)
    assert "Salesforce/wikitext" in sentence
    assert "--text FILE" in sentence


def test_activations_that_are_not_finite_are_refused_with_site_and_row(
    refused, harvest, monkeypatch
):
    from rkstore.harvest.model import Model

    plain = Model.activations

    def broken(self, tokens, sites):
        found = plain(self, tokens, sites)
        found["blocks.1.mlp.hook_post"][5, 3] = np.nan
        return found

    monkeypatch.setattr(Model, "activations", broken)
    assert "blocks.1.mlp.hook_post: row 5 has nan in dimension 3" in refused(*harvest)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", 7], "--layer 7 is not in the store"),
        (["--layer", 1], "--layer 1 leaves 2 sites to choose from"),
        (["--hook", SITE, "--m", 13], "m is 13 and there are only 12 dimensions"),
        (["--hook", SITE, "--m", 3, "--h", 10, "--r", 11], "r is 11 and only h=10"),
        (["--hook", SITE, "--h", -1], "--h is -1: it must be at least 1"),
        (["--hook", SITE, "--m", 3, "--h", 20, "--r", 5, "--score", "separation"], "labels"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(refused, make_store, words, said):
    store, _ = make_store()
    assert said in refused("probe", "--store", store.root, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", 7], "--layer 7 is not in the store"),
        (["--hook", SITE, "--d-sae", 8, "--k", 9], "--k is 9: it must be from 1 to the 8 latents"),
        (["--hook", SITE, "--device", "cuda:9"], "device 'cuda:9' is not available"),
        (["--hook", SITE, "--steps", 0], "--steps is 0: it must be at least 1"),
        (["--hook", SITE, "--d-sae", -4], "--d-sae is -4: it must be at least 1"),
        (["--hook", SITE, "--d-sae", 8, "--k", 2, "--init", "rkcnn", "--rkcnn-m", 13], "m is 13"),
    ],
)
def test_a_training_that_cannot_be_is_refused(refused, make_store, words, said):
    store, _ = make_store()
    assert said in refused("train", "--store", store.root, *words)


def test_a_missing_store_is_refused(refused):
    assert "there is no store at nowhere" in refused("info", "nowhere")
    assert "write one with 'rkstore harvest'" in refused("info")


def test_a_store_of_a_newer_schema_is_refused(refused, make_store):
    store, _ = make_store()
    path = store.root / "manifest.json"
    path.write_text(path.read_text().replace('"rkstore_schema": 2', '"rkstore_schema": 99'))
    assert "pip install --upgrade rkstore" in refused("info", store.root)


def test_a_truncated_shard_is_found(refused, rkstore, make_store):
    store, _ = make_store()
    shard = store.root / SITE / "c" / "1" / "0"
    shard.write_bytes(shard.read_bytes()[:-10])
    status, _, err = rkstore("verify", store.root)
    assert status == 1
    assert f"{SITE}/c/1/0 has" in err
    assert "1 files of" in err
    words = ("--hook", SITE, "--d-sae", 8, "--k", 2)
    sentence = refused("train", "--store", store.root, *words, status=1)
    assert f"{SITE}, shard 1 (rows 64:128)" in sentence


def test_a_foreign_shard_is_found(rkstore, make_store):
    store, _ = make_store()
    other, _ = make_store("other", seed=1)
    foreign = (other.root / SITE / "c" / "1" / "0").read_bytes()
    (store.root / SITE / "c" / "1" / "0").write_bytes(foreign)
    status, _, err = rkstore("verify", store.root)
    assert status == 1
    assert f"{SITE}/c/1/0" in err


def test_evaluating_what_is_no_checkpoint_is_refused(refused, make_store, tmp_path):
    store, _ = make_store()
    assert "holds no dictionary" in refused("evaluate", tmp_path, "--store", store.root)


def test_a_full_disk_loses_nothing_and_the_run_goes_on_later(rkstore, harvest, monkeypatch):
    import errno

    from rkstore.store.formats.zarr import Zarr

    plain, calls = Zarr.write_shard, []

    def full(self, path, spec, values):
        calls.append(path)
        if len(calls) > 8:  # the second shard; each has three sites and three columns
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, path, spec, values)

    monkeypatch.setattr(Zarr, "write_shard", full)
    harvest = [*harvest, "--codec", "float16"]
    status, _, err = rkstore(*harvest)
    assert status == 1
    assert "the disk is full" in err
    assert "run the same command again" in err
    assert rkstore("verify", "store")[0] == 0
    monkeypatch.setattr(Zarr, "write_shard", plain)
    assert rkstore(*harvest)[0] == 0
    assert "512 in blocks" in rkstore("info", "store")[1]


def test_ctrl_c_keeps_what_was_recorded_and_says_how_to_go_on(harvest, tmp_path):
    program = textwrap.dedent("""
        import os, signal, sys
        from rkstore import cli
        from rkstore.store.writing import writer
        # Whoever runs the tests in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        plain = writer.StoreWriter.finish_shard
        def finish_shard(self, shard):
            if self.next_shard == 2:
                os.kill(os.getpid(), signal.SIGINT)
            plain(self, shard)
        writer.StoreWriter.finish_shard = finish_shard
        cli.main()
    """)
    words = [str(word) for word in harvest]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    assert "run the same command again to continue" in done.stderr
    journal = (tmp_path / "store" / "shards.jsonl").read_text()
    assert len(journal.splitlines()) == 2


STDERR = {"closed": "2>&-", "full": "2>/dev/full", "a pipe without a reader": "2> >(true)"}


def in_bash(words, redirected, cwd, **variables):
    """Run a command as a shell does that sends its streams elsewhere."""
    program = [sys.executable, "-c", "from rkstore.cli import main; main()"]
    line = shlex.join([*program, *map(str, words)])
    return subprocess.run(
        ["bash", "-c", f"{line} {redirected}"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        capture_output=True,
    )


@pytest.mark.parametrize("how", STDERR)
def test_a_command_says_on_stdout_and_by_its_status_what_it_found_without_a_stderr(
    make_store, tmp_path, how
):
    store, _ = make_store()
    done = in_bash(["verify", store.root], STDERR[how], tmp_path)
    assert (done.returncode, b"are as recorded" in done.stdout) == (0, True)
    flip(store.root / SITE / "c" / "1" / "0", 5)
    for words, status in ((["verify", store.root], 1), (["info", "absent"], 2), (["inf"], 2)):
        assert in_bash(words, STDERR[how], tmp_path).returncode == status


def test_a_harvest_without_a_stderr_writes_the_same_bytes(rkstore, harvest, tmp_path):
    assert in_bash(instead(harvest, "--out", "silent"), STDERR["closed"], tmp_path).returncode == 0
    assert rkstore(*harvest)[0] == 0
    assert tree(tmp_path / "silent") == tree(tmp_path / "store")


def test_a_reader_that_leaves_ends_a_command_without_a_word(make_store, tmp_path):
    store, _ = make_store()
    done = in_bash(["info", store.root], "| true; exit ${PIPESTATUS[0]}", tmp_path)
    assert (done.returncode in (0, 1), done.stderr) == (True, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_letter_that_the_terminal_has_not_got_does_not_end_a_command(
    make_store, tmp_path, encoding
):
    root = tmp_path / os.fsdecode("‖größe‖".encode() + b"\xff")
    make_store(root.name)
    done = in_bash(["info", root.name], "", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"rows" in done.stdout


def test_too_little_memory_is_one_sentence(refused, make_store, monkeypatch):
    store, _ = make_store()

    def full(_):
        raise MemoryError

    monkeypatch.setattr("rkstore.cli.terminal.describe_store", full)
    assert "lower --batch-size" in refused("info", store.root, status=1)


@pytest.mark.parametrize("command", cli.commands.values(), ids=lambda command: command.name)
def test_what_is_suggested_for_a_word_that_is_misspelt_is_there(rkstore, command):
    known = {word for option in command.params for word in option.opts + option.secondary_opts}
    for word in sorted(known):
        if word.startswith("--"):
            _, _, err = rkstore(command.name, word + word[-1])
            suggested = set(re.findall("'(--[a-z0-9-]+)'", err.partition("Did you mean")[2]))
            assert word in suggested
            assert suggested <= known | {"--help"}
    _, _, err = rkstore(command.name[:-1] + "xx")
    assert f"'{command.name}'" in err.partition("Did you mean")[2]


# What is slow to load, or nobody's business but a few commands'.
LIBRARIES = (
    *("numpy", "pydantic", "torch", "datasets", "scipy", "sklearn", "fsspec", "transformer_lens"),
    *("transformers", "matplotlib", "zarr", "huggingface_hub"),
)

SHARING = ("push", "pull", "import", "export")

MAY_LOAD = {
    "--help": set(),
    "--version": set(),
    "info STORE": {"numpy", "pydantic"},
    **{
        f"{name} {word}": {"pydantic", "numpy", *(["fsspec"] if name in SHARING else [])}
        for name in cli.commands
        for word in ("--help", "--unknown")
    },
}


@pytest.mark.parametrize("words", MAY_LOAD)
def test_a_command_waits_for_no_library_that_it_does_not_need(words, make_store):
    store, _ = make_store()
    program = textwrap.dedent(f"""
        import sys
        from rkstore.cli import main
        try:
            main()
        except SystemExit:
            pass
        print([name for name in {LIBRARIES} if name in sys.modules])
    """)
    given = [str(store.root) if word == "STORE" else word for word in words.split()]
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, check=True
    )
    assert set(ast.literal_eval(done.stdout.splitlines()[-1])) <= MAY_LOAD[words]


# One grammar for stores and sites.

TINY = ("--d-sae", 24, "--k", 4, "--steps", 2, "--batch-size", 32, "--init", "random")


@pytest.mark.parametrize("name", ["info", "verify", "export", "probe", "train"])
def test_a_store_is_the_only_argument_or_an_option(refused, rkstore, make_store, name):
    store, _ = make_store(rows=400)
    hook, small = ["--hook", SITE], ("--h", 5, "--r", 2)
    more = {
        "export": ["--to", "npy", *hook],
        "probe": [*hook, *small],
        "train": [*hook, *TINY],
    }.get(name, [])
    out = {"export": ["--out", "a"], "probe": ["--out", "a"], "train": ["--out", "a"]}
    again = {key: ["--out", "b"] for key in out}
    status, first, err = rkstore(name, store.root, *more, *out.get(name, []))
    assert status == 0, err
    status, second, err = rkstore(name, "--store", store.root, *more, *again.get(name, []))
    assert status == 0, err
    assert second.replace("b", "a") == first.replace("b", "a")
    said = refused(name, store.root, "--store", "other")
    assert said.endswith(f"--store is other, and the argument {store.root}: leave out one of them")


def test_a_store_is_pushed_by_its_path_by_option_or_as_the_only_one(rkstore, refused, make_store):
    store, _ = make_store("stores/one")
    for number, words in enumerate(([store.root, "URL"], ["URL", "--store", store.root], ["URL"])):
        url = f"copy{number}"
        assert rkstore("push", *(url if word == "URL" else word for word in words))[0] == 0
        assert tree(Path(url)) == tree(store.root)
    for words in ([], [store.root, "a", "b"], [store.root, "a", "--store", store.root]):
        assert "give one store, as SOURCE or with --store, and one URL" in refused("push", *words)


def test_a_layer_and_layers_are_one_option_where_there_is_one_field(rkstore, make_store):
    store, _ = make_store(rows=400)
    for flag in ("--layer", "--layers"):
        words = ("export", store.root, "--to", "npy", flag, "0-1", "--hook", "mlp.hook_post")
        assert rkstore(*words, "--out", flag)[0] == 0
        assert len(list(Path(flag).rglob("*mlp.hook_post*"))) == 2
        assert rkstore("probe", store.root, flag, 0, "--h", 5, "--r", 2)[0] == 0
        assert rkstore("pull", store.root, flag, "0", "--out", f"part{flag}")[0] == 0


@pytest.mark.parametrize("flag", ["--layer", "--layers"])
def test_a_list_of_layers_trains_one_dictionary_a_layer(rkstore, make_store, flag):
    store, _ = make_store(rows=400)
    words = ("train", store.root, "--hook", "mlp.hook_post", *TINY)
    status, out, err = rkstore(*words, flag, "0-1")
    assert status == 0, err
    assert len(out.splitlines()) == 2


def test_the_select_is_the_dictionary_by_another_name(rkstore, make_store):
    store, _ = make_store(rows=400)
    words = ("train", store.root, "--hook", SITE, *TINY)
    paths = {rkstore(*words, flag, "relu")[1] for flag in ("--select", "--dictionary")}
    assert len(paths) == 1


def test_the_help_of_a_command_groups_options_by_the_members_that_bring_them():
    class OfTopK(Settings):
        """Options of one member."""

        k: int = option(32, "Active latents.", least=1)

    @combined(select={"topk": OfTopK})
    class Flat(Settings):
        """Settings of a command."""

        select: str = option("topk", "Kind of code.", choices=("topk",))

    command = click.command("flat", cls=Command)(options_of(Flat)(lambda settings: settings))
    shown = CliRunner().invoke(command, ["--help"]).output
    assert re.search(r"\nOptions of topk:\n  --k INTEGER +Active latents\.", shown)
    assert "--k" not in shown.partition("Options of topk")[0]
