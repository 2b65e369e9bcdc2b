"""Exchange: which array becomes which site, in every format, and that a person can see it."""

import h5py
import numpy as np
import pytest
from foreign_files import EXPORTED, ROWS, WIDTH, export, foreign, foreign_arrays, rows, save_arrow

from rkstore.errors import BadInput
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.store.natural import natural

LAYERS = range(12)

# saelens chooses columns by name: its sites are called as its columns are.
RENAMED = [kind for kind in IMPORTERS if kind != "saelens"]


@pytest.fixture
def layers():
    """Twelve arrays ``(ROWS, WIDTH)``, each of its own number, in an order that sorts nothing."""
    return {f"layer_{n}": np.full((ROWS, WIDTH), n, np.float32) for n in (11, 2, *range(2), 10)} | {
        f"layer_{n}": np.full((ROWS, WIDTH), n, np.float32) for n in range(3, 10)
    }


def holds(store):
    """The number that every value of each site is, by site."""
    values = {name: np.unique(store.read(name)) for name in store.hook_names}
    return {name: float(value) for name, [value] in values.items()}


@pytest.mark.parametrize(
    "names",
    [
        ["layer_2", "layer_10"],
        ["2", "10", "a", "b2", "b10", "b10a"],
        ["a1b2", "a1b10", "a2b1"],
        ["layer_01", "layer_1", "layer_²"],
        ["x" + "1" * 40, "x" + "2" * 5000],
    ],
)
def test_numbers_in_names_are_in_the_order_of_numbers(names):
    assert sorted(set(names), key=natural) == names


@pytest.mark.parametrize("kind", IMPORTERS)
def test_arrays_keep_their_names_in_natural_order(bring, tmp_path, layers, kind):
    store = bring(foreign_arrays(kind, tmp_path / "acts", layers), kind)
    assert holds(store) == {f"layer_{n}": n for n in LAYERS}
    assert store.hook_names == [f"layer_{n}" for n in LAYERS]


@pytest.mark.parametrize("kind", RENAMED)
def test_names_given_are_of_the_arrays_in_natural_order(bring, tmp_path, layers, kind):
    path = foreign_arrays(kind, tmp_path / "acts", layers)
    names = tuple(f"blocks.{n}.mlp.hook_post" for n in LAYERS)
    said: list = []
    store = bring(path, kind, hook_name=names, say=said.append)
    assert holds(store) == {f"blocks.{n}.mlp.hook_post": n for n in LAYERS}
    assert said == [f"layer_{n} → blocks.{n}.mlp.hook_post" for n in LAYERS]


def test_saelens_columns_are_in_the_order_asked_for(bring, tmp_path, layers):
    path = foreign_arrays("saelens", tmp_path / "acts", layers)
    store = bring(path, "saelens", hook_name=("layer_10", "layer_2"))
    assert list(holds(store).items()) == [("layer_10", 10), ("layer_2", 2)]


@pytest.mark.parametrize("kind", IMPORTERS)
def test_what_became_what_is_said_only_if_it_could_be_otherwise(bring, tmp_path, kind):
    said: list = []
    bring(foreign(kind, tmp_path, rows()), kind, say=said.append)
    assert said == []


@pytest.mark.parametrize("kind", RENAMED)
def test_names_of_other_layers_than_the_arrays_say_are_pointed_at(bring, tmp_path, layers, kind):
    few = {name: layers[name] for name in ("layer_3", "layer_10")}
    said: list = []
    path = foreign_arrays(kind, tmp_path / "acts", few)
    bring(path, kind, hook_name=("blocks.5.hook_z", "blocks.10.hook_z"), say=said.append)
    assert said == [
        "layer_3 → blocks.5.hook_z: layer 3 is called 5",
        "layer_10 → blocks.10.hook_z",
    ]


@pytest.mark.parametrize(
    ("option", "kind"), [("dataset", "hdf5"), *(("hook_name", kind) for kind in IMPORTERS)]
)
def test_a_name_given_twice_is_refused(refused, tmp_path, layers, kind, option):
    path = foreign_arrays(kind, tmp_path / "acts", layers)
    assert "layer_2 is given 2 times" in refused(
        path, kind, **{option: ("layer_2", "layer_1", "layer_2")}
    )


@pytest.mark.parametrize("kind", RENAMED)
def test_as_many_names_as_arrays_are_needed(refused, tmp_path, layers, kind):
    path = foreign_arrays(kind, tmp_path / "acts", layers)
    sentence = refused(path, kind, hook_name=("a", "b"))
    assert "given 2 times for 12 arrays" in sentence
    assert "layer_1, layer_2, layer_3" in sentence


@pytest.mark.parametrize("kind", [kind for kind in IMPORTERS if kind != "hdf5"])
def test_datasets_of_a_format_that_has_none_are_refused(refused, tmp_path, kind):
    path = foreign(kind, tmp_path, rows())
    assert f"dataset has no effect with from_ {kind}" in refused(path, kind, dataset=("acts",))


def test_hdf5_datasets_are_in_the_order_typed(bring, tmp_path, layers):
    path = foreign_arrays("hdf5", tmp_path / "acts", layers)
    store = bring(path, "hdf5", dataset=("layer_10", "layer_2"), hook_name=("a", "b"))
    assert holds(store) == {"a": 10, "b": 2}


def test_hdf5_datasets_in_groups_are_in_natural_order(bring, tmp_path, layers):
    nested = {f"run/{name}/acts": x for name, x in layers.items()}
    path = foreign_arrays("hdf5", tmp_path / "acts", nested)
    with h5py.File(path, "a") as file:
        file["run/again"] = file["run"]  # a group that holds itself
    names = tuple(f"blocks.{n}.hook_z" for n in LAYERS)
    assert holds(bring(path, "hdf5", hook_name=names)) == {f"blocks.{n}.hook_z": n for n in LAYERS}


def test_blocks_of_a_dataset_come_in_the_order_that_its_state_says(bring, tmp_path):
    x = rows()
    path = save_arrow(tmp_path / "arrow", {"acts": x.reshape(-1, 8, 6)}, {"acts": (8, 6)})
    (path / "state.json").write_text(
        (path / "state.json").read_text().replace("00000-of", "x").replace("00001-of", "00000-of")
        .replace("data-x", "data-00001-of")
    )  # fmt: skip
    np.testing.assert_array_equal(
        bring(path, "saelens").read("acts"), np.concatenate([x[24:], x[:24]])
    )


# Exports choose by hook, as often as it is given.


@pytest.mark.parametrize("kind", EXPORTERS)
@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        (("mlp.hook_post",), {"blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post"}),
        (
            ("blocks.0.mlp.hook_post", "hook_mlp_out"),
            {"blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out"},
        ),
        (("hook_*",), {"blocks.1.hook_mlp_out"}),
    ],
)
def test_an_export_takes_every_hook_that_is_named(
    bring, make_store, tmp_path, kind, hooks, expected
):
    out = export(make_store()[0], kind, tmp_path / "out", hook=hooks)
    assert set(bring(out / EXPORTED[kind], kind).hook_names) == expected


def test_a_hook_that_is_not_in_the_store_is_refused_by_name_beside_one_that_is(
    make_store, tmp_path
):
    with pytest.raises(BadInput, match="hook_z is not in the store"):
        export(make_store()[0], "npy", tmp_path / "out", hook=("mlp.hook_post", "hook_z"))
    assert not (tmp_path / "out").exists()


def test_a_home_directory_is_expanded_on_the_way_in_and_out(
    bring, make_store, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export(make_store()[0], "npy", "~/out") == tmp_path / "out"
    assert bring("~/out", "npy", out="back").rows == 216


def test_the_command_prints_what_became_what(rkstore, tmp_path, layers):
    foreign_arrays(
        "npy", tmp_path / "acts", {name: layers[name] for name in ("layer_2", "layer_10")}
    )
    status, out, err = rkstore("import", "acts", "--from", "npy")
    assert status == 0
    assert err.splitlines()[:2] == ["layer_2 → layer_2", "layer_10 → layer_10"]
    assert "→" not in out
