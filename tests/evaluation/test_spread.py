"""How activation is spread, against a small twin in NumPy, and what permuted tokens give."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from rkstore.evaluation.latents.spread import mined_against_rest, spreads


def entropy(share):
    share = share[share > 0]
    return -(share * np.log2(share)).sum()


def test_entropy_and_concentration_are_those_of_the_shares():
    rng = np.random.default_rng(0)
    code = rng.standard_normal((300, 12)) * (rng.random((300, 12)) < 0.2)
    code[:, 5] = 0
    tokens = rng.integers(0, 40, 300)
    found = spreads(csr_matrix(code.astype(np.float32)), tokens)
    size = np.abs(code)
    amounts = [[size[tokens == t, i].sum() for t in range(40)] for i in range(12) if i != 5]
    shares = [np.array(a) / np.sum(a) for a in amounts]
    assert found.latents == 11
    assert found.of_latents.entropy == pytest.approx(
        np.mean([entropy(s) for s in shares]), rel=1e-6
    )
    top = [np.sort(s)[-10:].sum() for s in shares]
    assert found.of_latents.concentration == pytest.approx(np.mean(top), rel=1e-6)
    rows = [row / row.sum() for row in size if row.any()]
    assert found.of_tokens.entropy == pytest.approx(np.mean([entropy(r) for r in rows]), rel=1e-6)
    assert found.of_tokens.concentration == pytest.approx(1)


def test_a_latent_of_one_token_has_no_entropy_where_chance_has():
    tokens = np.arange(400) % 20
    code = csr_matrix((tokens[:, None] == np.arange(20)).astype(np.float32))
    found = spreads(code, tokens)
    assert found.of_latents.entropy == 0
    assert found.of_latents.concentration == 1
    assert found.of_latents_chance.entropy > 3


def test_a_latent_of_any_token_is_at_its_chance():
    rng = np.random.default_rng(0)
    code = csr_matrix((rng.random((5000, 8)) < 0.3).astype(np.float32))
    found = spreads(code, rng.integers(0, 30, 5000))
    assert vars(found.of_latents) == pytest.approx(vars(found.of_latents_chance), abs=0.02)


def test_mined_latents_are_compared_with_the_rest_while_they_are_active():
    code = np.zeros((10, 4), np.float32)
    code[:2, 0], code[:5, 1], code[:, 2] = 3, 1, 2
    found = mined_against_rest(csr_matrix(code), np.array([1, 2, 0.5, 1]), [0, 3])
    assert (found.mined, found.rest) == (3, 1.5)
    assert (found.mined_latents, found.rest_latents) == (1, 2)
    assert (found.low, found.high) == pytest.approx((1, 2))
    assert mined_against_rest(csr_matrix(code), np.ones(4), []) is None
