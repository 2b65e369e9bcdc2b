"""Every wiring from a store to disk: what it reads and writes, how it begins, how it learns."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rkstore.dictionaries import load_dictionary
from rkstore.dictionaries.rows import side_by_side
from rkstore.dictionaries.wirings import WIRINGS
from rkstore.errors import BadInput
from rkstore.store.sites import Pair
from rkstore.training import train as training
from rkstore.training.checkpoint import STATE, save
from rkstore.training.helpers.resample import resample
from rkstore.training.inits import INITS
from rkstore.training.inits.centre import centre
from rkstore.training.naming import LONGEST, default_name
from rkstore.training.run import prepare
from rkstore.training.settings import TrainSettings
from rkstore.training.step import step
from rkstore.training.train import train, train_all

LAYERS = range(3)
IN, OUT = (
    {f"blocks.{n}.mlp.hook_in": 6 for n in LAYERS},
    {f"blocks.{n}.hook_mlp_out": 5 for n in LAYERS},
)
PAIRS = tuple(Pair("mlp", n, x, y) for n, x, y in zip(LAYERS, IN, OUT, strict=True))
IN_0 = "blocks.0.mlp.hook_in"
POST = "blocks.1.mlp.hook_post"
ROWS = 400

TWO = {"of": "two", "hook": "mlp.hook_post", "layer": "1"}
KINDS = {
    "transcoder": {"wiring": "transcoder", "layer": "1"},
    "transcoder with a skip": {"wiring": "transcoder", "layer": "1", "skip": True},
    "per-layer": {"wiring": "per-layer", "d_sae": 16},
    "per-layer with skips": {"wiring": "per-layer", "d_sae": 16, "skip": True},
    "clt": {"wiring": "clt", "d_sae": 16},
    "clt, each layer by itself": {"wiring": "clt", "d_sae": 16, "select_per_layer": True},
    "crosscoder of layers": {"wiring": "crosscoder", "layers": "0,2", "hook": "mlp.hook_in"},
    "crosscoder of models": {"wiring": "crosscoder", "code_norm": "crosscoder", **TWO},
    "decoupled crosscoder": {"wiring": "crosscoder", "code_norm": "decoupled", **TWO},
    "crosscoder with delta": {
        "wiring": "crosscoder",
        "layers": "0,2",
        "hook": "mlp.hook_in",
        "delta": 1.0,
    },
    "dfc": {"wiring": "dfc", "exclusive": (0.2, 0.1), **TWO},
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def planted(seed: int, sites: dict[str, int]) -> dict[str, np.ndarray]:
    """Few features behind all sites, far from zero, so that there is something to learn."""
    hidden = np.maximum(np.random.default_rng(0).standard_normal((ROWS, 5)), 0)
    rng = np.random.default_rng(seed)
    return {
        name: (hidden @ rng.standard_normal((5, width)) + 3).astype(np.float32)
        for name, width in sites.items()
    }


@pytest.fixture
def settings(make_store, tmp_path):
    one, two = IN | OUT, [{POST: 8}, {POST: 7}]
    make_store("one", rows=ROWS, sites=one, pairs=PAIRS, values=planted(1, one))
    tokens = {"token_id": np.arange(ROWS, dtype=np.int32) % 50}
    for name, sites in zip(("base", "chat"), two, strict=True):
        values = planted(len(name) + sites[POST], sites) | tokens
        source = {"model": {"name": name, "revision": None}}
        make_store(name, rows=ROWS, sites=sites, values=values, source=source)

    def make(of="one", **given):
        usual = {"d_sae": 40, "k": 4, "steps": 60, "batch_size": 32, "out": str(tmp_path / "out")}
        stores = {"store": str(tmp_path / "one")}
        if of == "two":
            stores = {"store": str(tmp_path / "base"), "paired_with": str(tmp_path / "chat")}
        return TrainSettings(**usual | stores | given)

    return make


def rows_of(run):
    """All rows, in the units of the store."""
    return {name: torch.from_numpy(run.store.chunk(name, 0)) for name in run.reading.hook_names}


def error(decoded, rows):
    return sum((y - rows[name]).square().sum().item() for name, y in decoded.items())


# Training, saving, resuming.


@every_kind
def test_it_learns_and_is_loaded_as_it_was_trained(settings, kind):
    run = prepare(settings(**kind))
    begun = run.dictionary.rescaled(run.reading.scales).eval()
    path = train(settings(**kind))
    found, metadata = load_dictionary(path)
    rows = rows_of(run)
    assert found.wiring == run.dictionary.wiring
    assert error(found(rows), rows) < 0.8 * error(begun(rows), rows)
    wiring = run.dictionary.wiring
    assert metadata["hook_name"] == ",".join(site.hook_name for site in wiring.reads)
    out = ",".join(site.hook_name for site in wiring.writes)
    assert metadata.get("hook_name_out", metadata["hook_name"]) == out


def stop(run):
    save(run)
    raise KeyboardInterrupt


HELPED = {"auxk": 4, "resample_every": 20, "dead_after": 64, "prefixes": (0.5, 1)}


@pytest.mark.parametrize(
    "kind",
    [
        *(kind | HELPED for kind in KINDS.values()),
        KINDS["transcoder"],
        KINDS["crosscoder of layers"],
    ],
    ids=[*KINDS, "plain transcoder", "plain crosscoder"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(settings, kind, tmp_path, monkeypatch):
    kind = kind | {"steps": 40, "checkpoint_every": 25}
    through, other = train(settings(**kind)), settings(**kind, out=str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(other)
    assert (train(other) / STATE).read_bytes() == (through / STATE).read_bytes()


@pytest.mark.parametrize(
    ("kind", "tree", "name"),
    [
        (
            {"wiring": "sae", "layer": "1", "hook": "mlp.hook_in"},
            "sae",
            "blocks.1.mlp.hook_in-topk",
        ),
        (KINDS["transcoder"], "transcoder", "blocks.1.mlp.hook_in-transcoder-topk"),
        (KINDS["per-layer"], "transcoder", "blocks.0-2.mlp.hook_in-per-layer-topk"),
        (KINDS["clt"], "transcoder", "blocks.0-2.mlp.hook_in-clt-topk"),
        (KINDS["crosscoder of layers"], "crosscoder", "blocks.0,2.mlp.hook_in-crosscoder-topk"),
        (KINDS["dfc"], "crosscoder", f"base:{POST},chat:{POST}-dfc-topk"),
    ],
)
def test_checkpoints_are_kept_by_kind_and_named_after_sites(settings, tmp_path, kind, tree, name):
    path = prepare(settings(**kind)).directory(0)
    assert path.parent.parent == tmp_path / "out" / tree
    assert path.name.startswith(f"{name}-datapoint-")


# Which sites.


def sites(settings, **given):
    wiring = prepare(settings(**given)).dictionary.wiring
    return [site.hook_name for site in wiring.reads], [site.hook_name for site in wiring.writes]


def test_a_transcoder_takes_the_pair_that_the_store_records(settings):
    assert sites(settings, wiring="transcoder", layer="1") == ([[*IN][1]], [[*OUT][1]])
    assert sites(settings, wiring="clt", layers="1,2") == ([*IN][1:], [*OUT][1:])


def test_named_hooks_are_paired_by_layer(settings):
    by_part = {"hook": "hook_mlp_out", "hook_out": "mlp.hook_in"}
    assert sites(settings, wiring="clt", **by_part) == ([*OUT], [*IN])
    in_turn = {"hook": [*IN][:2], "hook_out": [*OUT][1:]}
    assert sites(settings, wiring="per-layer", **in_turn) == ([*IN][:2], [*OUT][1:])


def test_however_a_pair_is_asked_for_it_is_one_run(settings):
    named = {"hook": [*IN][1], "hook_out": [*OUT][1]}
    asked = [{"layer": "1"}, {"layer": "1", "pair": "mlp"}, {"hook": [*IN][1]}, named]
    assert len({prepare(settings(wiring="transcoder", **one)).name for one in asked}) == 1


def test_transcoders_of_all_layers_are_a_run_each(settings):
    paths = train_all([settings(wiring="transcoder", layers="all", name="each", steps=2)])
    assert [path.name for path in paths] == [f"{name}_2" for name in IN]
    written = [load_dictionary(path)[1]["hook_name_out"] for path in paths]
    assert written == [*OUT]


def test_dictionaries_of_one_pass_see_the_same_rows(settings):
    plain = settings(**KINDS["transcoder"])
    for other in ({"special_tokens": True}, {"max_norm": 100}, {"batch_size": 16}, {"seed": 1}):
        with pytest.raises(BadInput, match="trained in one pass need the same"):
            train_all([plain, settings(**KINDS["transcoder with a skip"], **other)])


def test_so_other_sites_whose_long_rows_are_others_are_refused(settings):
    one, other = (settings(wiring="sae", layer=n, hook="mlp.hook_in", max_norm=1.2) for n in "01")
    with pytest.raises(
        BadInput, match=r"max_norm leaves out others at blocks.0.* than at blocks.1"
    ):
        train_all([one, other])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"wiring": "transcoder"}, "has 3 pairs to choose from .* say which with layer and hook"),
        (
            {"wiring": "clt", "layers": "1,7"},
            r"layer 7 is not in .*; to store it: 'rkstore harvest --model random --layers 1,7 "
            "--pair mlp'",
        ),
        (
            {"wiring": "clt", "pair": "resid-mid"},
            "has no pair resid-mid: store it with 'rkstore harvest --model random --pair res",
        ),
        (
            {"wiring": "transcoder", "hook": "hook_mlp_out", "layer": "0"},
            "has no pair mlp of these hooks in layers 0",
        ),
        (
            {"wiring": "crosscoder", "hook": ("mlp.hook_post", "mlp.hook_in")},
            "mlp.hook_post is not in .* 'rkstore .* --hook mlp.hook_post --hook mlp.hook_in'",
        ),
        (
            {"wiring": "transcoder", "hook_out": "hook_mlp_out"},
            "hook is given 0 times and hook_out 1",
        ),
        (
            {"wiring": "clt", "hook": "mlp.hook_in", "hook_out": [*OUT][1]},
            "hook mlp.hook_in is in layers 0-2 and hook_out .* in 1: say with layers",
        ),
        (
            {"wiring": "clt", "hook": "*", "hook_out": "*"},
            "has 6 pairs to choose from .* some of one layer: say which with hook",
        ),
        ({"wiring": "crosscoder", "hook": IN_0}, "crosscoder needs several sites, not 1"),
        ({"wiring": "dfc", "hook": "mlp.hook_in"}, "dfc needs two sites, not 3"),
        ({**KINDS["dfc"], "exclusive": (0.5,)}, "give two shares, such as 0.05,0.05"),
        ({**KINDS["dfc"], "exclusive": (0.5, 0.5)}, "into 20 and 20 of one site and 0 of both"),
        ({**KINDS["dfc"], "exclusive": (0.0, 0.5)}, "into 0 and 20 of one site"),
        ({**KINDS["dfc"], "code_norm": "decoupled"}, "decoupled needs latents that all write"),
        ({**KINDS["per-layer"], "k": 17}, "k is 17: it must be from 1 to the 16 latents"),
        (
            {**KINDS["transcoder"], "init": "tied"},
            "write what they read, .* init random or datapoint",
        ),
        ({**KINDS["clt"], "delta": 1.0}, "delta needs a dictionary that writes two sites of one"),
        (
            {**KINDS["dfc"], "delta": 1.0},
            r"two sites of one width, not base:.* \(8\), chat:.* \(7\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(settings, given, said):
    with pytest.raises(BadInput, match=said) as error:
        prepare(settings(**given))
    assert "\n" not in str(error.value)


def test_two_kinds_of_pairs_are_told_apart_by_name(settings, make_store, tmp_path):
    mid = Pair("resid-mid", 1, [*OUT][1], [*IN][1])
    make_store("both", rows=ROWS, sites=IN | OUT, pairs=(*PAIRS, mid))
    both = {"store": str(tmp_path / "both"), "wiring": "transcoder", "layer": "1"}
    with pytest.raises(BadInput, match="has the pairs mlp, resid-mid: say which with pair"):
        prepare(settings(**both))
    assert sites(settings, **both, pair="resid-mid") == ([[*OUT][1]], [[*IN][1]])


def test_pairs_of_two_models_are_chosen_by_the_name_of_the_model(settings, tmp_path):
    two = {"wiring": "clt", "store": str(tmp_path / "one"), "paired_with": str(tmp_path / "one")}
    with pytest.raises(BadInput, match=r"has 6 pairs .* some of one layer: say which with hook"):
        prepare(settings(**two))
    chat = [f"chat:{name}" for name in IN], [f"chat:{name}" for name in OUT]
    assert sites(settings, **two, hook="chat:*.hook_in") == chat


def test_a_name_of_many_sites_stays_short_enough_for_a_directory():
    hooks = ",".join(f"blocks.{n}.part_{n}.hook" for n in range(60))
    identity = {"hook": hooks, "wiring": "crosscoder", "dictionary": "topk", "init": "random"}
    name, other = default_name(identity), default_name(identity | {"hook": hooks + "_out"})
    assert len(name) == len(other) == LONGEST
    assert name != other
    assert name.rpartition("-")[0].endswith("-crosscoder-topk-random")


# How it begins.


def test_latents_are_counted_in_each_layer_where_each_has_a_bank(settings):
    for wiring in ("per-layer", "clt"):
        run = prepare(settings(wiring=wiring, d_sae=None, expansion=2))
        assert [bank.latents for bank in run.dictionary.wiring.banks] == [12, 12, 12]
        assert run.dictionary.d_sae == 36


ANY = {"random", "datapoint", "subspace"}
ABLE = {
    **dict.fromkeys(("transcoder", "per-layer", "clt"), ANY),
    **{name: {*ANY, "tied"} for name in ("crosscoder", "dfc")},
    "sae": {*INITS},
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_an_init_fills_all_banks_or_refuses(settings, wiring, init):
    kinds = {**KINDS, "sae": {"wiring": "sae", "hook": IN_0}}
    kinds["crosscoder"] = KINDS["crosscoder of layers"]
    given = settings(**kinds[wiring], init=init, rkcnn_h=5, rkcnn_m=3)
    if init not in ABLE[wiring]:
        with pytest.raises(BadInput, match=r"write what they read|mines one site, not 2"):
            prepare(given)
        return
    run = prepare(given)
    for _, (W_enc, _, W_dec) in run.dictionary.banks:
        assert (W_enc.norm(dim=0) > 0).all()
        torch.testing.assert_close(W_dec.norm(dim=1), torch.ones(len(W_dec)))


def test_a_latent_of_a_transcoder_begins_as_what_one_token_makes_the_part_read_and_write(settings):
    run = prepare(settings(wiring="clt", d_sae=16, datapoint_share=1, init_scale="none"))
    tokens = run.reading.draw(ROWS, torch.Generator())
    for bank, (W_enc, _, W_dec) in run.dictionary.banks:
        x, y = (
            normalize(side_by_side(tokens, sites) - centre(run.reading, sites, "mean").float())
            for sites in (bank.reads, bank.writes)
        )
        near, token = (x @ W_enc).max(dim=0)
        torch.testing.assert_close(near, torch.ones_like(near))
        torch.testing.assert_close(y[token], W_dec.detach())


@every_kind
def test_first_reconstructions_are_as_long_as_what_they_stand_for(settings, kind):
    run = prepare(settings(**kind))
    rows, writes = run.reading.sample(1024), run.dictionary.wiring.writes
    (decoded,) = run.dictionary.decodings(run.dictionary.encode(rows), rows=rows)
    b_dec = run.dictionary.b_dec
    found, wanted = (side_by_side(x, writes) - b_dec for x in (decoded, rows))
    torch.testing.assert_close(found.norm(dim=1).mean(), wanted.norm(dim=1).mean())


@every_kind
def test_encoders_begin_relative_to_the_mean(settings, kind):
    """Whether or not they subtract ``b_dec``: of rows far from zero, all latents would be on."""
    run = prepare(settings(**kind))
    means = {
        name: torch.from_numpy(run.reading.statistics(name).mean) * run.reading.scales[name]
        for name in run.reading.hook_names
    }
    assert run.dictionary.pre({k: v.float() for k, v in means.items()}).abs().max() < 1e-4


# What each promises.


def perturbed(rows, names):
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(x.shape, generator=generator) if name in names else x
        for name, x in rows.items()
    }


def test_nothing_of_one_model_reaches_the_latents_of_the_other(settings):
    """By construction, so also after AuxK and resampling."""
    helped = {"auxk": 8, "resample_every": 10, "dead_after": 64}
    run = prepare(settings(**KINDS["dfc"], **helped))
    for batch, _ in zip(run.reading.batches(32, seed=0), range(30), strict=False):
        step(run, run.reading.rows(batch, "cpu"))
    rows, dictionary = run.reading.sample(256), run.dictionary
    (a,) = dictionary.wiring.banks[0].reads
    first, second = dictionary.wiring.banks[0].latents, dictionary.wiring.banks[1].latents
    own = slice(first, first + second)  # of b
    assert torch.equal(
        dictionary.pre(rows)[:, own], dictionary.pre(perturbed(rows, {a.hook_name}))[:, own]
    )
    f = torch.zeros(4, dictionary.d_sae)
    f[:, own] = 1
    assert torch.equal(dictionary.decode(f)[a.hook_name], dictionary.bias([a]).expand(4, -1))
    dictionary.zero_grad()
    decoded = dictionary(rows)[a.hook_name]
    (decoded - rows[a.hook_name]).square().sum().backward()
    for weight in dictionary.banks[1][1]:
        assert weight.grad is None or not weight.grad.any()


def test_a_resampled_latent_begins_at_a_row_that_is_bad_at_the_sites_that_it_writes(settings):
    """The row is far wrong in one model only: that model's latents alone begin there."""
    run = prepare(settings(**KINDS["dfc"]))
    for batch, _ in zip(run.reading.batches(32, seed=0), range(2), strict=False):
        step(run, run.reading.rows(batch, "cpu"))
    dictionary, generator = run.dictionary, torch.Generator().manual_seed(0)
    rows = {
        site.hook_name: torch.randn(50, site.width, generator=generator)
        for site in run.reading.sites
    }
    for bad, name in enumerate(rows):
        rows[name][bad] *= 1e4
    dead = torch.tensor([0, dictionary.wiring.banks[0].latents])  # one of each model
    resample(dictionary, run.optimizer, dead, rows, generator)
    means = {name: x.mean(dim=0, keepdim=True) for name, x in rows.items()}
    assert dictionary.pre(means)[0, dead].abs().max() < 0.01
    for bad, (bank, (_, _, W_dec)) in enumerate(dictionary.banks[:2]):
        written = rows[bank.writes[0].hook_name][bad] - dictionary.bias(bank.writes)
        torch.testing.assert_close(W_dec[0], normalize(written, dim=0))


def test_what_a_layer_writes_does_not_depend_on_later_layers(settings):
    run = prepare(settings(wiring="clt", d_sae=16, select_per_layer=True, auxk=4, dead_after=64))
    for batch, _ in zip(run.reading.batches(32, seed=0), range(20), strict=False):
        step(run, run.reading.rows(batch, "cpu"))
    rows, dictionary = run.reading.sample(256), run.dictionary.eval()
    before = dictionary(rows)
    for layer, out in enumerate(OUT):
        later, earlier = {*[*IN][layer + 1 :]}, {*[*IN][: layer + 1]}
        assert torch.equal(dictionary(perturbed(rows, later))[out], before[out])
        assert not torch.equal(dictionary(perturbed(rows, earlier))[out], before[out])
    weights = sum(bank.latents * bank.d_out for bank in dictionary.wiring.banks)
    assert weights == 16 * 5 * len(LAYERS) * (len(LAYERS) + 1) / 2


def test_delta_is_the_error_of_the_difference(settings):
    kind = KINDS["crosscoder of layers"]
    run = prepare(settings(**kind, delta=0.5))
    rows = run.reading.sample(64)
    losses, now = run.objective(run.dictionary, rows, run.idle > 0)
    a, b = (site.hook_name for site in run.dictionary.wiring.writes)
    apart = (now.decoded[b] - now.decoded[a]) - (rows[b] - rows[a])
    torch.testing.assert_close(losses["delta"], 0.5 * apart.square().sum(dim=1).mean())
    assert "delta" not in prepare(settings(**kind)).objective(run.dictionary, rows, run.idle > 0)[0]


def test_one_prefix_is_the_plain_dictionary(settings):
    paths = [
        train(settings(wiring="clt", d_sae=16, steps=20, name=f"n{i}", prefix_order=order))
        for i, order in enumerate(("latents", "activations"))
    ]
    first, second = (load_dictionary(path)[0].state_dict() for path in paths)
    assert all(torch.equal(first[name], second[name]) for name in first)
