"""Natural order: names as people count them."""

import random

import pytest

from rkstore.store.natural import natural

SORTED = [
    ["doc_1", "doc_2", "doc_10"],
    ["layer_2.npy", "layer_10.npy", "layer_10_b.npy"],
    ["1", "2", "10", "a", "b1"],
    ["", "x", "x1", "x1²", "x2"],  # ² is a digit, and no number
    ["٣", "10"],  # a three in other digits
]


@pytest.mark.parametrize("names", SORTED)
def test_numbers_in_names_count_as_numbers(names):
    for seed in range(5):
        assert sorted(random.Random(seed).sample(names, len(names)), key=natural) == names
