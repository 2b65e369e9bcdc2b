"""What a model loses with reconstructions in it: every number against plain transformers."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from rkstore.dictionaries import Dictionary, save_dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.functional import Functional
from rkstore.evaluation.results import entries
from rkstore.evaluation.settings import EvaluateSettings
from rkstore.evaluation.splices import Live
from rkstore.evaluation.steering import Affine
from rkstore.harvest.load import load_plain
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.store.sites import Site

WIDTH, CONTEXT, BLOCKS = 16, 16, 200
RESID = [Site(f"blocks.{layer}.hook_resid_post", WIDTH) for layer in range(3)]
SAELENS = Path(__file__).parents[2] / ".venv-saelens" / "bin" / "python"


@pytest.fixture(scope="module")
def store(model_dir, tmp_path_factory):
    """A store of what the tiny model wrote itself, so that it predicts it; 20 blocks held out."""
    root = tmp_path_factory.mktemp("functional")
    plain, _ = load_plain(str(model_dir))
    generator = torch.Generator().manual_seed(0)
    ids = torch.zeros(BLOCKS, 1, dtype=torch.int64)
    with torch.inference_mode():
        while ids.shape[1] < CONTEXT:
            logits = plain(ids).logits[:, -1, 1:260]
            ids = torch.cat(
                [ids, 1 + torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1
            )
    np.save(root / "ids.npy", ids.numpy())
    settings = HarvestSettings(
        model=str(model_dir),
        dataset=str(root / "ids.npy"),
        tokenized_by=str(model_dir),
        whole_contexts=True,
        pair=("mlp",),
        hook=("hook_resid_post", "hook_resid_mid", "attn.hook_z"),
        tokens=BLOCKS * CONTEXT,
        context_size=CONTEXT,
        shard_rows=CONTEXT,
        codec="float32",
        out=str(root / "tiny"),
    )
    return run(prepare(settings))


@pytest.fixture
def saved(tmp_path):
    """Call it with a dictionary; returns its checkpoint."""

    def save(dictionary, name="dictionary", **metadata):
        path = tmp_path / name
        path.mkdir()
        reads = dictionary.wiring.reads[0].hook_name
        save_dictionary(dictionary, path, {"hook_name": reads, "model_name": "tiny"} | metadata)
        return path

    return save


@pytest.fixture
def measured(store, model_dir, saved):
    """Call it with a dictionary and options; returns its splices by their sites."""

    names = (f"dictionary{number}" for number in itertools.count())

    def measure(dictionary, by=None, **options):
        usual = {"store": str(store.root), "model": (str(model_dir),)}
        path = saved(dictionary, next(names))
        [result] = Functional([path], EvaluateSettings(**(usual | options)), by).run()
        return {splice.sites: splice for splice in result.splices}

    return measure


def dictionary_of(wiring, seed=0, select="relu", **options):
    """A dictionary of random weights."""
    made = Dictionary(wiring, select_named(select, options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return made.eval()


def sae(site=RESID[1], latents=24, **options):
    return dictionary_of(Wiring((Bank(latents, (site,), (site,)),), centred=True), **options)


def identity(site=RESID[1]):
    """``x = ReLU(x) - ReLU(-x)``."""
    made = sae(site, 2 * site.width)
    with torch.no_grad():
        eye = torch.eye(site.width)
        made.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        made.W_dec.copy_(torch.cat([eye, -eye]))
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made


def constant(value, site=RESID[1]):
    """One that gives the same row for every row."""
    made = sae(site)
    with torch.no_grad():
        made.W_dec.zero_()
        made.b_dec.copy_(value)
    return made


def transcoders(store, *, clt=False, skip=False, **options):
    """Of all MLPs, each of its own layer or also of the later ones."""
    sites = [(Site(pair.reads, WIDTH), Site(pair.writes, WIDTH)) for pair in store.pairs]
    writes = tuple(y for _, y in sites)
    banks = [Bank(12, (x,), writes[i:] if clt else (y,)) for i, (x, y) in enumerate(sites)]
    return dictionary_of(Wiring(tuple(banks), together=clt, skip=skip), **options)


# Known answers.


def test_the_identity_loses_nothing(measured):
    [splice] = measured(identity()).values()
    spliced = splice.passes["spliced"]
    assert (spliced.increase.value, spliced.kl.value, spliced.agreement.value) == (0, 0, 1)
    assert spliced.recovered_from_zero.value == spliced.recovered_from_mean.value == 1
    assert splice.passes["zero"].increase.value > 0.1
    assert splice.passes["zero"].agreement.value < 0.9


def test_zeros_are_the_zero_ablation(measured):
    [splice] = measured(constant(0.0)).values()
    assert splice.passes["spliced"] == splice.passes["zero"]
    assert splice.passes["spliced"].recovered_from_zero.value == 0


def test_the_mean_is_the_mean_ablation(measured, store):
    rows = held_out_rows(store)
    mean = store[RESID[1].hook_name, rows].mean(axis=0, dtype=np.float64)
    [splice] = measured(constant(torch.from_numpy(mean))).values()
    for name in ("cross_entropy", "kl", "agreement"):
        spliced, ablated = (getattr(splice.passes[p], name).value for p in ("spliced", "mean"))
        assert spliced == pytest.approx(ablated, abs=1e-6)
    assert splice.passes["spliced"].recovered_from_mean.value == pytest.approx(0, abs=1e-5)


def test_kept_errors_reproduce_the_clean_run(measured, store):
    for clt in (False, True):
        splices = measured(transcoders(store, clt=clt))
        whole = splices[tuple(pair.writes for pair in store.pairs)]
        assert whole.feedback
        assert whole.passes["spliced"].kl.value > 0.01
        assert whole.passes["errors_kept"].kl.value == pytest.approx(0, abs=1e-6)
        assert whole.passes["errors_kept"].increase.value == pytest.approx(0, abs=1e-5)
        assert whole.passes["errors_kept"].agreement.value == 1


# Against plain transformers.


def held_out_rows(store):
    """One block in ten, without its BOS."""
    rows = np.arange(store.rows)
    return rows[(rows // CONTEXT % 10 == 9) & (rows % CONTEXT > 0)]


def plain_run(plain, ids, hooks):
    """Logits with ``hooks``, module → function of its output, or of its input as ``in:module``."""
    handles = []
    for name, change in hooks.items():
        module = plain.get_submodule(name.removeprefix("in:"))
        if name.startswith("in:"):
            handles.append(module.register_forward_pre_hook(lambda _, x, f=change: (f(x[0]),)))
        else:

            def apply(_, __, y, f=change):
                return (f(y[0]), *y[1:]) if isinstance(y, tuple) else f(y)

            handles.append(module.register_forward_hook(apply))
    with torch.no_grad():
        logits = plain(ids).logits
    for handle in handles:
        handle.remove()
    return logits.double()


def twin(clean, found, ids):
    """Cross-entropy, KL and agreement, over the rows behind BOS."""
    p, q = clean.softmax(-1), found.softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1)[:, 1:].mean().item()
    ce = F.cross_entropy(found[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten()).item()
    return ce, kl, (clean.argmax(-1) == found.argmax(-1))[:, 1:].double().mean().item()


def put(values):
    """Rows behind BOS are replaced; those of BOS stay."""
    return lambda x: torch.cat([x[:, :1], values(x)[:, 1:]], dim=1)


def agree(splice, clean, runs, ids):
    """Every number of a splice is that of plain runs, by pass."""
    ce = {}
    for name, logits in {"clean": clean, **runs}.items():
        ce[name], kl, agreement = twin(clean, logits, ids)
        found = splice.passes[name]
        assert found.cross_entropy.value == pytest.approx(ce[name], abs=2e-5)
        assert found.increase.value == pytest.approx(ce[name] - ce["clean"], abs=2e-5)
        assert found.kl.value == pytest.approx(kl, abs=2e-5)
        assert found.agreement.value == pytest.approx(agreement, abs=1e-9)
    for ablated in ("zero", "mean"):
        expected = (ce[ablated] - ce["spliced"]) / (ce[ablated] - ce["clean"])
        share = getattr(splice.passes["spliced"], f"recovered_from_{ablated}")
        assert (share.value if share else None) == (
            pytest.approx(expected, abs=1e-3) if ce[ablated] > ce["clean"] else None
        )


@pytest.fixture(scope="module")
def plain(model_dir, store):
    """The model, and the tokens of the held-out blocks."""
    ids = store.column("token_id").reshape(-1, CONTEXT)[9::10].astype(np.int64)
    return load_plain(str(model_dir))[0], torch.from_numpy(ids)


def test_a_spliced_sae_is_plain_transformers_with_its_reconstruction(measured, plain, store):
    dictionary, (model, ids) = sae(), plain
    mean = torch.from_numpy(store[RESID[1].hook_name, held_out_rows(store)].mean(axis=0))
    at = "transformer.h.1"
    runs = {
        "spliced": plain_run(model, ids, {at: put(dictionary)}),
        "zero": plain_run(model, ids, {at: put(torch.zeros_like)}),
        "mean": plain_run(model, ids, {at: put(mean.expand_as)}),
    }
    [splice] = measured(dictionary).values()
    agree(splice, plain_run(model, ids, {}), runs, ids)
    assert splice.rows == len(held_out_rows(store)) == 20 * 15


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("clt", [False, True])
def test_transcoders_take_the_place_of_all_mlps_with_feedback(measured, plain, store, clt, skip):
    dictionary, (model, ids) = transcoders(store, clt=clt, skip=skip), plain
    seen, runs = {}, {}

    def keep(pair):
        return lambda x: seen.update({pair.reads: x}) or x

    def write(pair):
        def replaced(y):
            there = seen | {
                p.reads: torch.zeros_like(y) for p in store.pairs if p.reads not in seen
            }
            return put(lambda _: dictionary(there)[pair.writes])(y)

        return replaced

    hooks = {f"in:transformer.h.{pair.layer}.mlp": keep(pair) for pair in store.pairs}
    hooks |= {f"transformer.h.{pair.layer}.mlp": write(pair) for pair in store.pairs}
    runs["spliced"] = plain_run(model, ids, hooks)
    for name in ("zero", "mean"):
        means = {
            pair.layer: torch.from_numpy(
                store[pair.writes, held_out_rows(store)].mean(axis=0) * (name == "mean")
            )
            for pair in store.pairs
        }
        hooks = {
            f"transformer.h.{layer}.mlp": put(lambda y, mean=mean: mean.expand_as(y))
            for layer, mean in means.items()
        }
        runs[name] = plain_run(model, ids, hooks)
    splices = measured(dictionary)
    whole = splices.pop(tuple(pair.writes for pair in store.pairs))
    assert whole.feedback
    agree(whole, plain_run(model, ids, {}), runs, ids)
    assert list(splices) == [(pair.writes,) for pair in store.pairs]


def test_one_mlp_alone_is_replaced_where_the_others_stay(measured, plain, store):
    dictionary, (model, ids) = transcoders(store, clt=True), plain
    pair = store.pairs[1]
    seen = {}
    clean = plain_run(
        model,
        ids,
        {f"in:{mlp(p)}": lambda x, p=p: seen.update({p.reads: x}) or x for p in store.pairs},
    )
    expected = plain_run(model, ids, {mlp(pair): put(lambda _: dictionary(seen)[pair.writes])})
    splice = measured(dictionary)[pair.writes,]
    ce, kl, agreement = twin(clean, expected, ids)
    found = splice.passes["spliced"]
    assert found.cross_entropy.value == pytest.approx(ce, abs=2e-5)
    assert (found.kl.value, found.agreement.value) == pytest.approx((kl, agreement), abs=2e-5)


def mlp(pair):
    return f"transformer.h.{pair.layer}.mlp"


def test_a_crosscoder_reads_the_clean_run(measured, plain):
    """It reads sites behind those that it writes, so there is no feedback, and that is said."""
    model, ids = plain
    dictionary = dictionary_of(Wiring((Bank(24, tuple(RESID), tuple(RESID)),)))
    seen = {}

    def keep(site):
        return lambda x: seen.update({site.hook_name: x}) or x

    clean = plain_run(model, ids, {f"transformer.h.{i}": keep(s) for i, s in enumerate(RESID)})
    decoded = dictionary(seen)
    hooks = {
        f"transformer.h.{i}": put(lambda _, y=decoded[site.hook_name]: y)
        for i, site in enumerate(RESID)
    }
    whole = measured(dictionary)[tuple(site.hook_name for site in RESID)]
    assert not whole.feedback
    ce, kl, _ = twin(clean, plain_run(model, ids, hooks), ids)
    found = whole.passes["spliced"]
    assert (found.cross_entropy.value, found.kl.value) == pytest.approx((ce, kl), abs=2e-5)


def test_a_topk_over_all_layers_has_no_feedback(measured, store):
    """Which latents of an early layer are on would depend on layers that come later."""
    over_all = transcoders(store, clt=True, select="topk", k=4)
    own = transcoders(store, select="topk", k=4)
    sites = tuple(pair.writes for pair in store.pairs)
    assert not measured(over_all)[sites].feedback
    assert measured(own)[sites].feedback


def test_one_head_is_replaced_and_the_others_stay(model_dir, harvest_settings, tmp_path, saved):
    settings = harvest_settings(
        hook="attn.hook_z", heads="apart", codec="float32", shard_rows=16, out=str(tmp_path / "z")
    )
    store = run(prepare(settings))
    name = "blocks.1.attn.hook_z.h1"
    width = store.manifest.width(name)
    of_head = {"hook_name": "blocks.1.attn.hook_z", "hook_head_index": 1}
    checkpoint = saved(constant(0.0, Site(name, width)), "head", **of_head)
    settings = EvaluateSettings(store=str(store.root), model=(str(model_dir),))
    [splice] = Functional([checkpoint], settings).run()[0].splices
    model, _ = load_plain(str(model_dir))
    blocks = store.column("token_id").reshape(-1, 16)
    held_out = [block for block in range(len(blocks)) if block % 10 == 9]
    ids = torch.from_numpy(blocks[held_out].astype(np.int64))
    keep = store["token_id"].reshape(-1, 16)[held_out] != 0

    def without(x):
        x = x.clone()
        x[..., width : 2 * width][torch.from_numpy(keep)] = 0
        return x

    clean = plain_run(model, ids, {})
    found = plain_run(model, ids, {"in:transformer.h.1.attn.c_proj": without})
    p, q = clean.log_softmax(-1), found.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)[torch.from_numpy(keep)].mean().item()
    assert kl > 1e-3
    assert splice.passes["zero"].kl.value == pytest.approx(kl, abs=2e-5)


# Against SAELens.


@pytest.mark.skipif(not SAELENS.exists(), reason="no SAELens: 'make saelens' installs it")
def test_saelens_evals_give_the_same_numbers(store, model_dir, plain, saved, tmp_path):
    """All of them over every row. Without BOS, all but those of its zero ablation: there SAELens
    replaces the row of BOS too, which here stays the model's own."""
    checkpoint = saved(sae())
    save_file({"tokens": plain[1].contiguous()}, tmp_path / "tokens.safetensors")
    words = [model_dir, checkpoint, tmp_path / "tokens.safetensors"]
    program = Path(__file__).parents[1] / "peers" / "saelens_evals.py"
    done = subprocess.run(
        [SAELENS, program, *map(str, words)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    usual = {"store": str(store.root), "model": (str(model_dir),)}
    for name, special in (("all", True), ("without BOS", False)):
        settings = EvaluateSettings(**usual, special_tokens=special)
        [splice] = Functional([checkpoint], settings).run()[0].splices
        clean, spliced, zero = (splice.passes[each] for each in ("clean", "spliced", "zero"))
        ours = {
            "ce_loss_without_sae": clean.cross_entropy,
            "ce_loss_with_sae": spliced.cross_entropy,
            "kl_div_with_sae": spliced.kl,
        }
        if special:
            ours |= {
                "ce_loss_with_ablation": zero.cross_entropy,
                "kl_div_with_ablation": zero.kl,
                "ce_loss_score": spliced.recovered_from_zero,
            }
        for metric, found in ours.items():
            assert found.value == pytest.approx(theirs[name][metric], abs=5e-5), metric
    model, ids = plain
    nothing = plain_run(model, ids, {"transformer.h.1": torch.zeros_like})
    assert theirs["without BOS"]["ce_loss_with_ablation"] == pytest.approx(
        twin(nothing, nothing, ids)[0], abs=5e-5
    )


# What is measured.


def test_live_reconstructions_of_clean_rows_are_those_of_the_dictionary(store):
    generator = torch.Generator().manual_seed(0)
    for dictionary in (
        transcoders(store, skip=True),
        transcoders(store, clt=True, select="jumprelu"),
        transcoders(store, clt=True, select="gated"),
        sae(select="topk", k=3),
    ):
        names = [site.hook_name for site in dictionary.wiring.sites]
        rows = {name: torch.randn(9, WIDTH, generator=generator) for name in names}
        chosen = torch.arange(9) % 2 == 0
        live = Live(dictionary, chosen)
        expected = dictionary(rows)
        in_order = [name for pair in store.pairs for name in (pair.reads, pair.writes)]
        for name in in_order if len(names) > 1 else names:
            found = live(name, rows[name])
            if name in expected:
                torch.testing.assert_close(found[chosen], expected[name][chosen])
                assert torch.equal(found[~chosen], rows[name][~chosen])


def test_numbers_do_not_depend_on_the_size_of_the_batches(measured, store):
    dictionary = transcoders(store, clt=True)
    by_size = [measured(dictionary, batch_size=size) for size in (1, 48, 4096)]
    for splices in by_size[1:]:
        for sites, splice in splices.items():
            for name, found in splice.passes.items():
                other = by_size[0][sites].passes[name]
                assert found.cross_entropy.value == pytest.approx(
                    other.cross_entropy.value, rel=1e-6
                )
                assert found.kl.value == pytest.approx(other.kl.value, rel=1e-4, abs=1e-9)


def test_special_tokens_stay_the_models_own_unless_they_are_asked_for(measured, plain):
    dictionary, (model, ids) = sae(), plain
    clean = plain_run(model, ids, {})
    everywhere = plain_run(model, ids, {"transformer.h.1": dictionary})
    [splice] = measured(dictionary, special_tokens=True).values()
    kl = (clean.softmax(-1) * (clean.log_softmax(-1) - everywhere.log_softmax(-1))).sum(-1)
    assert splice.rows == ids.numel()
    assert splice.passes["spliced"].kl.value == pytest.approx(kl.mean().item(), abs=2e-5)


def test_rows_of_too_large_a_norm_stay_the_models_own(measured, store):
    norms = np.linalg.norm(store[RESID[1].hook_name, held_out_rows(store)], axis=1)
    median = np.median(np.linalg.norm(store[RESID[1].hook_name], axis=1))
    [splice] = measured(sae(), max_norm=1.1).values()
    assert splice.rows == (norms <= 1.1 * median).sum() < len(norms)


def test_fewer_blocks_are_spread_over_the_held_out_ones(store, model_dir, saved):
    settings = EvaluateSettings(store=str(store.root), model=(str(model_dir),), blocks=3)
    functional = Functional([saved(sae())], settings)
    assert functional.blocks.rows[:, 0].tolist() == [9 * 16, 109 * 16, 199 * 16]


def test_sites_of_several_need_not_be_spliced_alone(measured, store):
    sites = tuple(pair.writes for pair in store.pairs)
    assert list(measured(transcoders(store), each_site=False)) == [sites]
    assert list(measured(sae(), each_site=False)) == [(RESID[1].hook_name,)]


def test_a_dictionary_has_the_same_numbers_beside_others(store, model_dir, saved):
    settings = EvaluateSettings(store=str(store.root), model=(str(model_dir),), max_norm=1.1)
    paths = [saved(sae(site), site.hook_name) for site in RESID[:2]]
    together = Functional(paths, settings).run()
    alone = [Functional([path], settings).run()[0] for path in paths]
    assert [one.splices for one in together] == [one.splices for one in alone]


def test_an_interval_is_by_documents(measured):
    [splice] = measured(sae()).values()
    increase = splice.passes["spliced"].increase
    assert splice.documents == 20
    assert increase.low < increase.value < increase.high
    few = next(iter(measured(sae(), blocks=19).values()))
    assert few.passes["spliced"].increase.low is None


def test_intervals_cover_what_they_should():
    """Rows of a document are alike: an interval by rows would be far too narrow."""
    from rkstore.evaluation.predictions import ratio

    generator = np.random.default_rng(0)
    documents = np.repeat(np.arange(30), 10)
    covered = 0
    for _ in range(400):
        x = (1 + generator.standard_normal(30))[documents] + 0.1 * generator.standard_normal(300)
        found = ratio(x, np.ones(300), documents)
        covered += found.low <= 1 <= found.high
    assert 0.92 < covered / 400 < 0.98


# Two models.


def beside(store, model, out):
    """The store of a second model on the same tokens."""
    settings = HarvestSettings(
        model=str(model),
        paired_with=str(store.root),
        shard_rows=CONTEXT,
        hook=("hook_resid_post",),
        codec="float32",
        out=str(out),
    )
    return run(prepare(settings))


def test_in_each_of_two_models_the_crosscoder_reads_both(store, model_dir, plain, tmp_path, saved):
    import transformers

    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    torch.manual_seed(1)
    second = transformers.GPT2LMHeadModel(plain[0].config).eval()
    for mine, theirs in zip(second.parameters(), plain[0].parameters(), strict=True):
        mine.data = theirs.data + 0.05 * torch.randn_like(theirs)
    second.save_pretrained(other)
    second_store = beside(store, other, tmp_path / "beside")
    sites = tuple(Site(f"{name}:{RESID[1].hook_name}", WIDTH) for name in ("base", "chat"))
    dictionary = dictionary_of(Wiring((Bank(24, sites, sites),)))
    checkpoint = saved(dictionary, model_name="tiny+other")
    options = {"store": str(store.root), "paired_with": str(second_store.root), "any_model": True}
    settings = EvaluateSettings(**options, model=(str(model_dir), str(other)))
    splices = Functional([checkpoint], settings).run()[0].splices
    assert [splice.sites for splice in splices] == [(site.hook_name,) for site in sites]
    ids, rows, clean = plain[1], {}, []
    for model, site in zip((plain[0], second), sites, strict=True):

        def keep(x, name=site.hook_name):
            rows[name] = x
            return x

        clean.append(plain_run(model, ids, {"transformer.h.1": keep}))
    for i, model in enumerate((plain[0], second)):
        decoded = dictionary(rows)[sites[i].hook_name]
        found = plain_run(model, ids, {"transformer.h.1": put(lambda _, y=decoded: y)})
        _, kl, _ = twin(clean[i], found, ids)
        assert splices[i].passes["spliced"].kl.value == pytest.approx(kl, abs=2e-5)
    with pytest.raises(BadInput, match="model is given 1 times for 2 stores"):
        Functional([checkpoint], EvaluateSettings(**options, model=(str(model_dir),)))
    with pytest.raises(BadInput, match="other weights"):
        Functional([checkpoint], EvaluateSettings(**options, model=(str(other), str(model_dir))))


def test_exclusive_latents_move_their_own_model_alone(store, model_dir, tmp_path, saved):
    """Of two stores of one model, the map between them is the identity: it carries everything."""
    second_store = beside(store, model_dir, tmp_path / "beside")
    a, b = (Site(f"{name}:{RESID[1].hook_name}", WIDTH) for name in ("base", "chat"))
    banks = (Bank(6, (a,), (a,)), Bank(6, (b,), (b,)), Bank(12, (a, b), (a, b)))
    checkpoint = saved(dictionary_of(Wiring(banks)), model_name="tiny+tiny")
    settings = EvaluateSettings(
        store=str(store.root),
        paired_with=str(second_store.root),
        model=(str(model_dir), str(model_dir)),
        any_model=True,
        blocks=3,
        steer=4,
    )
    [result] = Functional([checkpoint], settings).run()
    groups = {group.group: group for group in result.steering}
    assert list(groups) == ["base", "chat", "shared", "random"]
    for own, other in (("base", "chat"), ("chat", "base")):
        assert groups[own].moved[own].value > 1e-4
        assert groups[own].moved[other].value == 0
        assert list(groups[own].carried) == [own]
    for group in groups.values():
        for carried in group.carried.values():
            assert carried.value == pytest.approx(1, abs=1e-3)
    assert groups["shared"].moved["base"].value > 1e-4
    alone = EvaluateSettings(store=str(store.root), model=(str(model_dir),), steer=2)
    with pytest.raises(BadInput, match="is not of one site of each"):
        Functional([saved(sae(), "alone")], alone)


def test_an_affine_map_between_rows_is_found_and_says_nothing_of_rows_that_are_unrelated():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 8, generator=generator)
    M = torch.randn(8, 6, generator=generator)
    v = torch.randn(8, generator=generator)
    found = Affine.of(x, x @ M + 3)
    torch.testing.assert_close(found.of_vector(v), v @ M, atol=1e-4, rtol=1e-4)
    unrelated = Affine.of(x, torch.randn(4000, 6, generator=generator))
    assert unrelated.of_vector(v).norm() < 0.1 * (v @ M).norm()


# What is refused, in one sentence.


def refusal(path, **options):
    with pytest.raises(BadInput) as caught:
        Functional([path], EvaluateSettings(**options)).run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_store_without_tokens_is_refused(bring, saved, tmp_path):
    x = np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32)
    np.save(tmp_path / "acts.npy", x)
    store = bring(tmp_path / "acts.npy", "npy")
    [name] = store.hook_names
    said = refusal(saved(sae(Site(name, WIDTH))), store=str(store.root), with_model=True)
    assert "does not have the tokens of its rows" in said


def test_another_model_than_the_stores_is_refused_by_its_weights(store, saved):
    said = refusal(saved(sae()), store=str(store.root), model=("demo",))
    assert re.search(r"other weights \([0-9a-f]{12}\) than the model of .* \([0-9a-f]{12}\)", said)


def test_a_model_that_is_not_found_by_its_name_is_asked_for(store, saved):
    said = refusal(saved(sae()), store=str(store.root), with_model=True)
    assert "is not found by its recorded name, tiny: give its directory" in said


def test_too_few_documents_for_intervals_are_refused_where_these_are_asked_for(
    store, model_dir, saved
):
    options = {"store": str(store.root), "model": (str(model_dir),), "blocks": 5}
    assert "5 documents, too few" in refusal(saved(sae()), intervals=True, **options)


def test_a_site_past_which_the_stream_goes_is_refused(store, model_dir, saved):
    """Transformers' block adds the residual stream itself: the hook is on what the norm reads."""
    site = Site("blocks.1.hook_resid_mid", WIDTH)
    said = refusal(saved(sae(site)), store=str(store.root), model=(str(model_dir),))
    assert "does not replace all that tiny goes on with" in said


def test_rows_that_the_model_does_not_compute_are_refused(make_store, model_dir, saved, store):
    """Of a store that does not record the weights, this tells another model."""
    source = {"model": {"name": "tiny"}, "tokenizer": store.manifest.source["tokenizer"]}
    other, _ = make_store(sites={RESID[1].hook_name: WIDTH}, source=source)
    said = refusal(saved(sae()), store=str(other.root), model=(str(model_dir),))
    assert "are not what the model computes" in said


# The command.


def test_the_command_prints_a_table_writes_the_numbers_and_records_them(rkstore, store, model_dir):
    of = ("--store", store.root, "--hook", "hook_resid_post", "--layer", 1)
    sizes = ("--d-sae", 24, "--k", 4, "--steps", 5, "--batch-size", 32)
    rkstore("train", *of, *sizes, "--name", "sae")
    for _ in range(2):
        status, out, err = rkstore("evaluate", *of[:2], "--model", model_dir)
        assert status == 0, err
    assert "| sae_5" in out
    assert "tiny by itself: " in out
    document = json.loads(Path("results/evaluate/functional.json").read_text())
    [result] = document["results"]
    [splice] = result["splices"]
    assert list(splice["passes"]) == ["spliced", "random", "zero", "mean", "errors_kept", "clean"]
    assert splice["rows"] == 300
    kept = [entry for entry in entries(result["path"]) if entry.kind == "model"]
    assert len(kept) == 1
    assert kept[0].rows["count"] == 300
    assert kept[0].result["kl"] == splice["passes"]["spliced"]["kl"]["value"]
    assert kept[0].result["chance"]["kl"] == splice["passes"]["random"]["kl"]["value"]
    status, out, err = rkstore("compare", result["path"], "--kind", "model", "--metric", "kl")
    assert status == 0, err
    assert f"{kept[0].result['kl']:.3f}"[:4] in out


def test_the_demo_is_found_by_its_name(rkstore, saved):
    harvest = ("harvest", "--model", "demo", "--dataset", "python", "--layers", 6)
    sizes = ("--tokens", 640, "--context-size", 32, "--shard-rows", 32)
    rkstore(*harvest, *sizes, "--hook", "hook_resid_post", "--out", "stores/demo")
    path = saved(identity(Site("blocks.6.hook_resid_post", 128)), model_name="demo")
    status, out, err = rkstore("evaluate", path, "--with-model")
    assert status == 0, err
    [line] = [line for line in out.splitlines() if "resid_post" in line]
    assert "| 0.0000 | 0.0000 |    100.0% |" in line


def test_blocks_without_the_model_are_refused(rkstore, store, saved):
    status, _, err = rkstore("evaluate", saved(sae()), "--store", store.root, "--blocks", 3)
    assert status == 2
    assert "use it with --with-model" in err
