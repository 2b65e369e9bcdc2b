"""The picture of a comparison can be read, however many dictionaries whatever came out."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.lines import Line2D
from pictures import drawn, legible_texts

from rkstore.evaluation.measure import DENSITY_EDGES, Evaluation, PrefixEvaluation, SiteEvaluation
from rkstore.evaluation.report.figures import comparison, comparison_figure, look
from rkstore.evaluation.report.results import table

LONG = "blocks.11.attn.hook_result-batchtopk-rkcnn-decoder $x$, with a name_that goes on_{}000"


def result(i=0, **given):
    """What a dictionary scored, made up; some of its latents are dead."""
    generator = np.random.default_rng(i)
    d_sae, rows = given.get("d_sae", 512), given.get("rows", 6144)
    dead = given.get("dead", int(generator.integers(1, d_sae // 8 + 1)))
    fired = generator.normal(-2.5, 0.7, d_sae - dead).clip(-np.log10(rows), -1e-9)
    density = (dead, *np.histogram(fired, DENSITY_EDGES)[0].tolist())
    usual = {"name": f"run-{i}", "hook_name": "blocks.6.mlp.hook_post", "rows": rows, "d_in": 64}
    usual |= {"d_sae": d_sae, "dead": dead, "dense": 3, "l0": 32.0, "fvu": 0.1 + 0.01 * i}
    usual |= {"mse": 1.0, "cosine": 0.9, "norm_ratio": 0.9, "codec_fvu": 0.0, "density": density}
    usual |= {"zero_rows": 0}
    return Evaluation(**(usual | given))


SITES = [f"blocks.{layer}.attn.hook_attn_out" for layer in range(12)]


def written(sites, fvu=0.2):
    """The numbers of a dictionary of several sites."""
    each = {
        name: SiteEvaluation(fvu * (1 + i / 9), 1.0, 0.9, 0.8, 0.0) for i, name in enumerate(sites)
    }
    return {"hook_name": ",".join(sites), "sites": each}


def prefixes(i):
    """The numbers of a nested dictionary."""
    shares = (0.0, 0.125, 0.25, 0.5, 1.0)
    return tuple(PrefixEvaluation(s, 32 * s, 1 - s * (0.9 - 0.01 * i)) for s in shares)


KINDS = {
    "usual": lambda _: {},
    "negative": lambda i: {"fvu": 0.2 if i % 2 else 3.5},
    "far below zero": lambda i: {"fvu": 0.2 if i % 2 else 3.5e9},
    "not a number": lambda _: {"fvu": float("nan")},
    "none dead": lambda _: {"dead": 0},
    "all dead": lambda _: {"dead": 512, "density": (512, *[0] * 24)},
    "few latents": lambda _: {"d_sae": 8},
    "long names": lambda i: {"name": LONG.format(i)},
    "crosscoders": lambda _: written(SITES[:7]),
    "two models": lambda _: written(["base:blocks.6.hook_out", "chat:blocks.6.hook_out"]),
    "transcoders": lambda _: {"hook_name_out": "blocks.6.hook_mlp_out"},
    "nested": lambda i: {"of_prefix": prefixes(i), "d_sae": 512 << i % 2},
    "nested crosscoders": lambda i: written(SITES, 0.2 + 0.01 * i) | {"of_prefix": prefixes(i)},
    "nothing finite by site": lambda _: written(SITES, float("nan")),
    "several sites": lambda i: {"hook_name": f"blocks.{i}.attn.hook_attn_out"},
}


@pytest.fixture
def checkpoints(tmp_path):
    """Call it for the checkpoints of some results, each with a record of its training."""

    def make(results, history=lambda i: [(20 * n, 1 / n + 0.01 * i) for n in range(1, 20)]):
        paths = []
        for i, one in enumerate(results):
            path = tmp_path / str(i)
            path.mkdir(exist_ok=True)
            steps = [{"step": step, "fvu": fvu} for step, fvu in history(i)]
            report = {"identity": {"hook": one.hook_name}, "history": steps}
            (path / "training.json").write_text(json.dumps(report))
            paths.append(path)
        return paths

    return make


@pytest.mark.parametrize("n", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_can_be_read(checkpoints, kind, n):
    results = [result(i, **KINDS[kind](i)) for i in range(n)]
    figure = comparison_figure(results, checkpoints(results))
    shown = ["".join(text.split()) for text in legible_texts(figure)]
    for one in results:
        name = one.hook_name if kind == "several sites" and n > 1 else one.name
        assert shown.count("".join(name.split())) == 1 + (n == 1 and name == one.hook_name)


@pytest.mark.parametrize("kind", KINDS)
def test_bars_are_whole_and_stand_in_order(checkpoints, kind):
    results = [result(i, **KINDS[kind](i)) for i in range(3)]
    figure = comparison_figure(results, checkpoints(results))
    explained, dead = figure.axes[1:3]
    for axis, name in ((explained, "explained_variance"), (dead, "dead_share")):
        factor = 100 if axis is dead else 1
        widths = [bar.get_width() for bar in axis.patches]
        np.testing.assert_allclose(widths, [factor * getattr(one, name) for one in results])
        low, high = axis.get_xlim()
        assert low <= min([0, *widths])
        assert max([0, *widths]) <= high
        heights = [axis.transData.transform((0, bar.get_y()))[1] for bar in axis.patches]
        assert heights == sorted(heights, reverse=True)


HISTORIES = {
    "one point": lambda i: [(7, 0.5 + 0.1 * i)],
    "two points": lambda _: [(20, 0.5), (27, 0.4)],
    "all the same": lambda _: [(20 * n, 0.3) for n in range(1, 9)],
    "many decades": lambda _: [(20 * n, 10.0 ** (6 - n)) for n in range(1, 9)],
    "not finite": lambda _: [(20, 0.5), (40, None), (60, 0.3)],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_the_panel_of_training_is_never_empty(checkpoints, history):
    results = [result(i) for i in range(3)]
    figure = comparison_figure(results, checkpoints(results, HISTORIES[history]))
    legible_texts(figure)
    shown = drawn(figure, Line2D)
    axis = figure.axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert len(axis.lines) == 3
    assert any(labels)
    for line in axis.lines:
        assert line in shown
        assert len(line.get_xdata()) > 1 or line.get_marker() == "o"


def test_training_that_is_not_on_record_is_said(checkpoints, tmp_path):
    results = [result(i) for i in range(3)]
    there = checkpoints(results)
    for paths, said in (
        ([tmp_path / "none"] * 3, "Training: not recorded"),
        ([tmp_path / "none", *there[1:]], "Training (2 of 3 recorded)"),
        (there, "Training"),
    ):
        figure = comparison_figure(results, paths)
        assert said in legible_texts(figure)


@pytest.mark.parametrize("history", [[], [(20, None)], [(20, 0.0)]], ids=str)
def test_a_run_that_reported_nothing_above_zero_is_not_on_record(checkpoints, history):
    figure = comparison_figure([result(0)], checkpoints([result(0)], lambda _: history))
    assert "Training: not recorded" in legible_texts(figure)


def test_a_curve_looks_as_the_line_beside_its_name(checkpoints):
    results = [result(i) for i in range(9)]
    figure = comparison_figure(results, checkpoints(results))
    beside = figure.axes[1].lines[-9:]
    for curve, line in zip(figure.axes[0].lines, beside, strict=True):
        assert curve.get_color() == line.get_color()
        assert curve.get_linestyle() == line.get_linestyle()


def test_of_28_none_looks_like_another_and_neighbours_differ_twice():
    looks = [tuple(look(i).values()) for i in range(28)]
    assert len(set(looks)) == 28
    for one, other in itertools.pairwise(looks):
        assert all(a != b for a, b in zip(one, other, strict=True))


def test_the_density_shows_every_living_latent(checkpoints):
    results = [result(0), result(1, d_sae=2048), result(2, rows=100)]
    figure = comparison_figure(results, checkpoints(results))
    axis = figure.axes[3]
    shares = []
    for i, patch in enumerate(axis.patches):
        values, _, ground = patch.get_data()
        assert ground == i + 0.4
        shares.append((ground - values).sum())
    living = [1 - one.dead_share for one in results]
    np.testing.assert_allclose(np.array(shares) / shares[0], np.array(living) / living[0])


@pytest.mark.parametrize("kind", ["usual", "long names"])
def test_the_same_results_give_the_same_bytes(checkpoints, tmp_path, kind):
    results = [result(i, **KINDS[kind](i)) for i in range(3)]
    for name in ("one.png", "two.png"):
        comparison(results, checkpoints(results), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_two_of_one_name_are_two_bars(tmp_path):
    results = [result(0, name="same"), result(1, name="same")]
    figure = comparison_figure(results, [tmp_path, tmp_path])
    assert len(figure.axes[1].patches) == 2


def test_the_settings_that_differ_are_the_names(checkpoints):
    results = [result(i) for i in range(2)]
    paths = checkpoints(results)
    for path, k in zip(paths, (8, 16), strict=True):
        identity = {"init": f"init{k}", "layer": k, "hook": "the same", "center": None, "k": k}
        report = {"identity": identity, "history": [{"step": 1, "fvu": 0.5}]}
        (path / "training.json").write_text(json.dumps(report))
    shown = legible_texts(comparison_figure(results, paths))
    assert {"init8, k 8", "init16, k 16"} <= set(shown)


def test_a_number_that_is_none_is_a_dash_in_the_table():
    lines = table([result(0, fvu=float("nan"), cosine=None)]).splitlines()
    assert lines[2].count(" - ") == 3


def test_each_site_and_each_prefix_has_a_line_of_its_own():
    one, plain = result(0, **written(SITES[:3]), of_prefix=prefixes(0)), result(1)
    *tables, last = table([one, plain]).split("\n\n")
    assert [line.split(" | ")[0] for line in tables[-1].splitlines()[2:]] == [
        f"| {name}" for name in SITES[:3]
    ]
    assert tables[-1].startswith("| site of run-0")
    assert "0.2444" in tables[-1].splitlines()[4]
    assert last.startswith("| prefix of run-0")
    assert [line.split("|")[1].strip() for line in last.splitlines()[2:]] == [
        "0", "0.125", "0.25", "0.5", "1",
    ]  # fmt: skip


def test_one_of_one_site_has_one_line():
    assert "site of" not in table([result(0), result(1)])
    assert "several sites" not in table([result(0), result(1)])
