"""Sites: one grammar for layers and hooks, whoever is asked for them."""

import pytest

from rkstore.errors import BadInput
from rkstore.store.sites import Among, written

A, B, C = "blocks.0.mlp", "blocks.1.mlp", "blocks.1.attn"
LAST = "ln_final"
AMONG = Among([A, B, C, LAST], "the store at there", lambda hook: f"has others than '{hook}'")


@pytest.mark.parametrize(
    ("layers", "hooks", "names"),
    [
        (None, None, [A, B, C, LAST]),
        ("all", [], [A, B, C, LAST]),
        ("0-1", None, [A, B, C]),
        (1, None, [B, C]),
        ("1", "attn", [C]),
        ("0-1", "mlp", [A, B]),
        ("all", "attn", [C]),
        (None, [C, A], [A, C]),
        (None, [A, "blocks.1.*"], [A, B, C]),
        ("0-1", ["mlp", C], [A, B, C]),
        (None, "ln*", [LAST]),
    ],
)
def test_layers_and_hooks_name_sites_in_the_order_of_the_store(layers, hooks, names):
    assert AMONG.chosen(layers, hooks) == names


@pytest.mark.parametrize(
    ("layers", "hooks", "said"),
    [
        ("2", None, "layer 2 is not in the store at there, whose layers are 0-1: it has others"),
        ("0-9", "mlp", "layer 2 is not in the store at there, whose layers are 0-1"),
        ("0-1", "attn", "layer 0 and hook attn is not in the store at there, which has others"),
        ("0-1", C, "layer 0 and hook blocks.1.attn is not in the store at there"),
        ("0", ["mlp", C], "layer 0 and hook blocks.1.attn is not in the store at there"),
        (None, ["mlp", "resid"], "hook resid is not in the store at there, which has others"),
        ("0", LAST, "layer 0 and hook ln_final is not in the store at there"),
        ("some", None, "layers is 'some': give 'all' or a list such as 0-3,8"),
    ],
)
def test_what_names_nothing_is_refused_with_what_there_is(layers, hooks, said):
    with pytest.raises(BadInput) as error:
        AMONG.chosen(layers, hooks)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("layers", "hooks", "said"),
    [
        (None, None, "no layer leaves 4 sites to choose from"),
        ("0-1", "mlp", "layers 0-1 and hook mlp leaves 2 sites to choose from"),
        (1, None, "layer 1 leaves 2 sites to choose from"),
    ],
)
def test_where_one_site_is_asked_for_several_are_refused(layers, hooks, said):
    assert AMONG.one(0) == A
    with pytest.raises(BadInput) as error:
        AMONG.one(layers, hooks)
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("say which with layer and hook")


def test_layers_are_written_as_they_are_asked_for():
    assert written({0, 1, 2, 8, 10, 11}) == "0-2,8,10-11"
