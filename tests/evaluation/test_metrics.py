"""Every metric against a twin in NumPy, and its sums in any order, size and number of parts."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy import stats
from test_measure import CODEC, WIRINGS, A, B, double, made, rows

from rkstore.dictionaries import Dictionary, select_named
from rkstore.dictionaries.wirings import Bank, Wiring
from rkstore.errors import BadInput
from rkstore.evaluation.measure import Measure
from rkstore.evaluation.metrics import METRICS, base, documents, sparsity
from rkstore.evaluation.metrics.base import Given
from rkstore.evaluation.metrics.decoders import max_cosines
from rkstore.evaluation.metrics.documents import interval
from rkstore.evaluation.metrics.partition import Partition
from rkstore.store.sites import Site

N = 60
DOCUMENTS = np.repeat(np.arange(30) * 7, 2)
MINED = (1, 4)

SAME = Site("blocks.2.in", A.width)
ALL = WIRINGS | {
    "autoencoder": Wiring((Bank(12, (A,), (A,)),), centred=True),
    "two models": Wiring((Bank(12, (A, SAME), (A, SAME)),)),
    "two models, decoupled": Wiring((Bank(12, (A, SAME), (A, SAME)),), norm="decoupled"),
    "two models, dedicated": Wiring(
        (Bank(4, (A,), (A,)), Bank(4, (SAME,), (SAME,)), Bank(6, (A, SAME), (A, SAME)))
    ),
}


def data():
    """Rows of every site; the first is at two sites, with other noise."""
    generator = torch.Generator().manual_seed(3)
    x = rows(N)
    noise = torch.randn(N, A.width, generator=generator)
    return {
        name: part.double() for name, part in (x | {SAME.hook_name: x[A.hook_name] + noise}).items()
    }


def dictionary_of(kind, select=None):
    """Of random weights in float64, so that only the order of sums can differ."""
    wiring = ALL[kind]
    if any(site == SAME for site in wiring.sites):
        return small(wiring, select)
    return made(wiring, select).double()


def small(wiring, select=None):
    """As ``made``, for the wirings of two sites of one width."""
    dictionary = Dictionary(wiring, select or select_named("topk", {"k": 3})).eval().double()
    generator, x = torch.Generator().manual_seed(1), data()
    with torch.no_grad():
        for parameter in dictionary.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn / 4)
        for latent in range(3):  # of the first site alone, nearly
            dictionary.banks[-1][1].W_dec[latent, A.width :] *= 0.01
        dictionary.b_dec += torch.cat([x[site.hook_name].mean(dim=0) for site in wiring.writes])
        mean = dictionary.pre(x).mean(dim=0)
        parts = mean.split([bank.latents for bank in wiring.banks])
        for (_, weights), part in zip(dictionary.banks, parts, strict=True):
            weights.b_enc.sub_(part)
    return dictionary


def means():
    return {name: x.mean(dim=0).numpy() + 0.5 for name, x in data().items()}


def measure_of(dictionary):
    return Measure(dictionary, metrics=METRICS, given=Given(dictionary, means(), MINED))


def add(measure, start, stop):
    x = {name: part[start:stop] for name, part in data().items()}
    measure.add(x, first=start, documents=DOCUMENTS[start:stop])


def result_of(measure):
    return measure.result("it", CODEC | {SAME.hook_name: 0.4})


def whole(kind, select=None):
    dictionary = dictionary_of(kind, select)
    measure = measure_of(dictionary)
    add(measure, 0, N)
    return dictionary, result_of(measure)


def twin(dictionary):
    """Code, rows and reconstructions in NumPy, the written sites side by side."""
    with torch.no_grad():
        f, found = dictionary.reconstruct(data())
    y = {name: data()[name] for name in found}
    return f.numpy(), *(np.hstack(list(double(sites).values())) for sites in (y, found))


def numbers(value, before=""):
    """All numbers of a result, by name."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in numbers(value[key], f"{before}.{key}").items()}
    if isinstance(value, list | tuple):
        return numbers(dict(enumerate(value)), before)
    return {} if isinstance(value, str) else {before: value}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("how", ["small", "backwards", "merged", "two threads"])
def test_sums_do_not_depend_on_how_they_were_made(kind, how):
    dictionary, expected = whole(kind)
    measure, other = measure_of(dictionary), measure_of(dictionary)
    pieces = [(start, min(start + 7, N)) for start in range(0, N, 7)]
    threads = torch.get_num_threads()
    if how == "two threads":
        torch.set_num_threads(2)
    for i, piece in enumerate(pieces[::-1] if how == "backwards" else pieces):
        add(other if how == "merged" and i % 2 else measure, *piece)
    torch.set_num_threads(threads)
    if how == "merged":
        measure.merge(other)
    found, expected = (numbers(one.as_dict()) for one in (result_of(measure), expected))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        near = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-12)
        assert found[name] == near, name


@pytest.mark.parametrize("kind", ALL)
def test_a_sparse_code_is_measured_from_the_list_of_what_is_on(kind, monkeypatch):
    found = []
    for least in (0, 1):  # as a matrix, and as a list
        monkeypatch.setattr(base, "SPARSE", least)
        found.append(numbers(whole(kind)[1].as_dict()))
    for name, value in found[0].items():
        near = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)
        assert found[1][name] == near, name


@pytest.mark.parametrize("kind", ALL)
def test_the_bias_of_a_reconstruction(kind):
    dictionary, result = whole(kind)
    _, y, found = twin(dictionary)
    assert result.bias == pytest.approx(np.square(found).sum() / (y * found).sum())
    assert result.codec_mse == pytest.approx(result.codec_fvu * np.square(y - y.mean(0)).sum() / N)


@pytest.mark.parametrize("kind", ALL)
def test_published_formulas(kind):
    dictionary, result = whole(kind)
    _, y, found = twin(dictionary)
    r, published = y - found, result.metrics["published"]
    centre = np.hstack([means()[site.hook_name] for site in dictionary.wiring.writes])
    square, width = np.square(y).sum(axis=1), y.shape[1]
    errors = np.square(r).sum(axis=1)
    expected = {
        "mse_per_dimension": np.square(r).mean(),
        "ev_residual_variance": 1 - r.var(axis=0).sum() / y.var(axis=0).sum(),
        "ev_mean_of_ratios": 1 - (r.var(axis=0) / y.var(axis=0)).mean(),
        "ev_legacy": (1 - errors / np.square(y - centre).sum(axis=1)).mean(),
        "ev_one_mean": 1 - r.var() / y.var(),
        "ev_saelens_6_18": 1 - errors.mean() / (square.mean() - (square.mean() / width) ** 2),
        "normalised_mse": (errors / square).mean(),
    }
    assert asdict(published) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ALL)
def test_activity(kind, monkeypatch):
    monkeypatch.setattr(sparsity, "WINDOWS", (5, 20, 60, 61))
    monkeypatch.setattr(sparsity, "ULTRA_RARE", 0.1)
    dictionary, result = whole(kind)
    f, _, _ = twin(dictionary)
    size = np.abs(f).max(axis=0) if f.ndim > 2 else np.abs(f)
    on = size > 0
    fired = on.sum(axis=0)
    mean = size.sum(axis=0)[fired > 0] / fired[fired > 0]
    found = result.metrics["sparsity"]
    assert found.l1 == pytest.approx(size.sum() / N)
    assert found.max_active == pytest.approx(size.max())
    assert found.mean_active == pytest.approx(mean.mean())
    dead = {str(window): (~on[:window].any(axis=0)).sum() for window in (5, 20, 60)}
    assert found.dead_at == dead | {"61": None}
    assert found.ultra_rare == ((fired > 0) & (fired < 0.1 * N)).sum()
    chosen = np.isin(np.arange(len(fired)), MINED)
    for own, which in (("mean_active", chosen), ("mean_active_others", ~chosen)):
        alive = which & (fired > 0)
        expected = (size.sum(axis=0)[alive] / fired[alive]).mean() if alive.any() else None
        assert getattr(found.mined, own) == pytest.approx(expected)
    assert found.mined.latents == 2


@pytest.mark.parametrize("kind", ALL)
def test_decoder_rows(kind):
    dictionary, result = whole(kind)
    decoder = []
    for site in dictionary.wiring.writes:
        columns = []
        for bank, weights in dictionary.banks:
            part, begin = np.zeros((bank.latents, site.width)), 0
            for written in bank.writes:
                if written == site:
                    part = weights.W_dec.detach().numpy()[:, begin : begin + site.width]
                begin += written.width
            columns.append(part)
        decoder.append(np.vstack(columns))
    decoder = np.hstack(decoder)
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    found = result.metrics["decoders"]
    assert found.max_cosine == pytest.approx(cosines.max(axis=1).mean(), rel=1e-6)
    assert found.redundant == (cosines.max(axis=1) >= 0.9).sum()
    assert found.norm == pytest.approx(np.linalg.norm(decoder, axis=1).mean(), rel=1e-6)


def test_cosines_are_found_block_by_block(monkeypatch):
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("rkstore.evaluation.metrics.decoders.BLOCK", 7)
    unit = rows / rows.norm(dim=1, keepdim=True)
    expected = (unit @ unit.T).fill_diagonal_(-1).amax(dim=1)
    torch.testing.assert_close(max_cosines(rows), expected)


@pytest.mark.parametrize("kind", ALL)
def test_intervals_are_of_documents(kind):
    dictionary, result = whole(kind)
    f, y, found = twin(dictionary)
    on = (f != 0).any(axis=0) if f.ndim > 2 else f != 0
    norms = [np.linalg.norm(one, axis=1) for one in (y, found)]
    of_rows = {
        "fvu": (np.square(y - found).sum(axis=1), np.square(y - y.mean(axis=0)).sum(axis=1)),
        "mse": (np.square(y - found).sum(axis=1), np.ones(N)),
        "cosine": ((y * found).sum(axis=1) / norms[0] / norms[1], np.ones(N)),
        "norm_ratio": (norms[1] / norms[0], np.ones(N)),
        "l0": (on.sum(axis=1), np.ones(N)),
    }
    intervals = result.metrics["intervals"]
    assert intervals.documents == 30
    for name, (a, b) in of_rows.items():
        a, b = (np.array([part[d == DOCUMENTS].sum() for d in set(DOCUMENTS)]) for part in (a, b))
        ratio = a.sum() / b.sum()
        variance = 30 / 29 * np.square(a - ratio * b).sum() / b.sum() ** 2
        reach = stats.t.ppf(0.975, 29) * variance**0.5
        assert getattr(intervals, name) == pytest.approx((ratio - reach, ratio + reach)), name


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Rows of a document are alike: by rows, it would cover far less."""
    generator, covered, by_rows = np.random.default_rng(0), 0, 0
    for _ in range(300):
        sizes = generator.integers(1, 20, 40)
        means = generator.normal(0, 1, 40)
        x = [generator.normal(m, 1, n) for m, n in zip(means, sizes, strict=True)]
        low, high = interval(np.array([part.sum() for part in x]), sizes.astype(float))
        covered += low <= 0 <= high
        every = np.concatenate(x)
        by_rows += abs(every.mean()) <= 1.96 * every.std() / len(every) ** 0.5
    assert 0.9 < covered / 300 < 0.99
    assert by_rows / 300 < 0.7


def test_too_few_documents_are_refused():
    with pytest.raises(BadInput, match="19 documents are too few"):
        interval(np.ones(19), np.ones(19))


def test_with_too_few_or_unknown_documents_there_is_no_interval():
    dictionary = dictionary_of("autoencoder")
    few, unknown = measure_of(dictionary), measure_of(dictionary)
    few.add(data(), documents=np.zeros(N, np.int64))
    unknown.add(data())
    assert result_of(few).metrics["intervals"].fvu is None
    assert "intervals" not in result_of(unknown).metrics


def test_many_documents_are_counted_in_groups():
    dictionary = dictionary_of("autoencoder")
    found = []
    for numbers in (DOCUMENTS, DOCUMENTS + documents.GROUPS * np.arange(N)):
        measure = measure_of(dictionary)
        measure.add(data(), documents=numbers)
        found.append(result_of(measure).metrics["intervals"])
    assert found[0] == found[1]


TWO = ("two models", "two models, decoupled", "two models, dedicated")


@pytest.mark.parametrize("kind", TWO)
def test_latent_scaling_is_the_least_squares_solution(kind):
    dictionary, result = whole(kind)
    f, _, _ = twin(dictionary)
    codes = f if f.ndim > 2 else np.stack([f, f])
    with torch.no_grad():
        decoded = double(dictionary(data()))
    y = double(data())
    d = {name: np.zeros((dictionary.d_sae, A.width)) for name in decoded}
    first = 0
    for bank, weights in dictionary.banks:
        for i, site in enumerate(bank.writes):
            part = weights.W_dec.detach().numpy()[:, i * A.width : (i + 1) * A.width]
            d[site.hook_name][first : first + bank.latents] = part
        first += bank.latents
    usual = [np.square(y[name]).sum(axis=1).mean() ** 0.5 for name in d]
    a, b = (np.linalg.norm(d[name], axis=1) / u for name, u in zip(d, usual, strict=True))
    names = list(d)
    for own, other in ((0, 1), (1, 0)):
        share = (a, b)[own] / (a + b)
        ratios = []
        for j in np.flatnonzero((share >= 0.9) & (codes != 0).any(axis=1).all(axis=0)):
            beta = {}
            for m in (own, other):
                name, x = names[m], np.outer(codes[m][:, j], d[names[own]][j]).ravel()
                own_part = np.outer(codes[m][:, j], d[name][j])
                for key, target in (
                    ("error", y[name] - decoded[name] + own_part),
                    ("reconstruction", decoded[name]),
                ):
                    beta[m, key] = np.linalg.lstsq(x[:, None], target.ravel(), rcond=None)[0][0]
            ratios.append([beta[other, k] / beta[own, k] for k in ("error", "reconstruction")])
        found = result.metrics["scaling"].sites[names[own]]
        assert found.latents == len(ratios)
        if ratios:
            assert [found.error, found.reconstruction] == pytest.approx(np.median(ratios, axis=0))
            assert found.specific == sum(e < 0.2 and r < 0.5 for e, r in ratios)
    assert result.metrics["scaling"].sites[names[0]].latents > 0


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in TWO])
def test_only_two_sites_of_one_width_are_scaled(kind):
    assert "scaling" not in whole(kind)[1].metrics


@pytest.mark.parametrize("kind", ["cross-layer", "dedicated", "two models, dedicated"])
def test_shares_of_banks_add_up_to_what_is_explained(kind):
    dictionary, result = whole(kind)
    f, _, _ = twin(dictionary)
    found, y = result.metrics["sources"], double(data())
    with torch.no_grad():
        decoded = double(dictionary(data()))
    for name, shares in found.explained.items():
        r = y[name] - decoded[name]
        total = np.square(y[name] - y[name].mean(axis=0)).sum()
        centred = y[name] - y[name].mean(axis=0)
        off = r - r.mean(axis=0)
        first = 0
        for bank, weights in dictionary.banks:
            code, begin = f[:, first : first + bank.latents], 0
            first += bank.latents
            for site in bank.writes:
                part = weights.W_dec.detach().numpy()[:, begin : begin + site.width]
                begin += site.width
                if site.hook_name != name:
                    continue
                c = code @ part
                c -= c.mean(axis=0)
                alone = total - np.square(centred - c).sum()
                lost = np.square(off + c).sum() - np.square(off).sum()
                reads = ",".join(site.hook_name for site in bank.reads)
                assert shares[reads] == pytest.approx((alone + lost) / 2 / total)
        explained = 1 - np.square(r).sum() / total
        assert sum(shares.values()) - found.offset[name] == pytest.approx(explained)


def test_banks_that_write_their_own_sites_have_no_shares():
    for kind in ("autoencoder", "per layer", "crosscoder", "transcoder"):
        assert "sources" not in whole(kind)[1].metrics


def test_a_partition_of_banks_holds():
    for kind in ("dedicated", "two models, dedicated"):
        found = whole(kind)[1].metrics["partition"]
        assert (found.encoder_max, found.decoder_max) == (0, 0)
    assert "partition" not in whole("crosscoder")[1].metrics


def test_a_partition_that_leaks_is_noticed():
    class Leaking(Dictionary):
        """Its first latent reads and writes both sites."""

        def pre(self, x):
            found = super().pre(x)
            return found + 0.25 * x[B.hook_name][:, :1] * (torch.arange(found.shape[1]) == 0)

        def decodings(self, f, *args, **more):
            for decoded in super().decodings(f, *args, **more):
                yield decoded | {B.hook_name: decoded[B.hook_name] + 0.5 * f[:, :1]}

    leaking = Leaking(WIRINGS["dedicated"], select_named("relu", {})).double()
    measure = Measure(leaking, metrics=(Partition,))
    x = {name: data()[name] for name in (A.hook_name, B.hook_name)}
    measure.add(x)
    found = measure.result("it", CODEC).metrics["partition"]
    assert found.encoder_max > 0
    assert found.decoder_max > 0


def test_every_metric_is_measured_somewhere():
    found = {name for kind in ALL for name in whole(kind)[1].metrics}
    assert found == {metric.name for metric in METRICS} - {"planted"}  # test_truth.py
