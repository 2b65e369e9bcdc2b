"""Codecs: how far a stored number may be from the number it stands for."""

import numpy as np
import pytest
from conftest import encoded as encode

from rkstore.errors import BadInput
from rkstore.store.apart import Apart
from rkstore.store.codecs import CODECS, SCHEMA_1, Encoded, codec_named
from rkstore.store.codecs.spread import Spread

LARGEST = np.finfo(np.float32).max


SPREAD = [name for name, codec in CODECS.items() if isinstance(codec, Spread)]


def there_and_back(name: str, x: np.ndarray) -> np.ndarray:
    return CODECS[name].decode(encode(CODECS[name], x))


def expected_error(codec: Spread) -> float:
    """Of a value that is spread evenly over a step, as a share of the variance."""
    return codec.step**2 / 12


def rows(n: int = 200, d: int = 24, seed: int = 0) -> np.ndarray:
    """Rows whose dimensions differ in size by ten thousand, each with its own offset."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.geomspace(1e-3, 10, d)
    return (x + rng.uniform(-3, 3, d)).astype(np.float32)


def slack(x: np.ndarray) -> np.ndarray:
    """A few roundings of float32 at the size of each dimension's largest value."""
    return 8 * np.spacing(np.abs(x).max(axis=0))


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_goes_by_its_own_name(name):
    assert codec_named(name).name == name


def test_an_unknown_codec_is_refused_with_the_names_of_all():
    with pytest.raises(BadInput) as error:
        codec_named("float8")
    assert all(name in str(error.value) for name in ("float8", *CODECS))


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", CODECS)
def test_what_is_encoded_has_the_form_that_the_codec_declares(name, n):
    codec = CODECS[name]
    encoded = encode(codec, rows(n, 5))
    assert encoded.values.shape == (n, 5)
    assert encoded.values.dtype == codec.dtype
    assert encoded.side.keys() == set(codec.side)
    for vector in encoded.side.values():
        assert vector.shape == (5,)
        assert vector.dtype == np.float32


@pytest.mark.parametrize("name", CODECS)
def test_what_is_decoded_is_contiguous_float32(name):
    x = there_and_back(name, rows(7, 5))
    assert x.shape == (7, 5)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


@pytest.mark.parametrize("name", CODECS)
def test_encoding_leaves_its_input_and_decoding_its_input_as_they_were(name):
    codec, x = CODECS[name], rows()
    before = x.copy()
    encoded = encode(codec, x)
    kept = Encoded(encoded.values.copy(), {k: v.copy() for k, v in encoded.side.items()})
    codec.decode(encoded)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(encoded.values, kept.values)
    for side, vector in kept.side.items():
        np.testing.assert_array_equal(encoded.side[side], vector)


@pytest.mark.parametrize("name", CODECS)
def test_the_memory_layout_of_the_input_does_not_matter(name):
    x = rows(9, 6)
    strided = np.zeros((9, 12), np.float32)
    strided[:, ::2] = x
    expected = there_and_back(name, x)
    np.testing.assert_array_equal(there_and_back(name, np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(there_and_back(name, strided[:, ::2]), expected)


@pytest.mark.parametrize("name", CODECS)
def test_what_a_codec_loses_is_a_small_share_of_the_variance_of_every_dimension(name):
    x = rows(2000).astype(np.float64)
    error = np.square(there_and_back(name, rows(2000)) - x).mean(0) / x.var(0)
    # Of a float it is small beside the value, which may lie far from zero.
    largest = 1.2 * expected_error(CODECS[name]) if name in SPREAD else 2.0**-16 * (x**2).max(0)
    assert (error <= np.maximum(largest / (1 if name in SPREAD else x.var(0)), 0)).all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("constant", [0.0, -0.0, 1.5, -(2.0**-20)])
def test_a_constant_that_two_bytes_can_hold_comes_back_exactly(name, constant):
    x = np.full((5, 3), constant, np.float32)
    np.testing.assert_array_equal(there_and_back(name, x), x)


def test_float32_changes_no_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, (300, 7), dtype=np.uint32)
    x = bits.view(np.float32)
    x[~np.isfinite(x)] = -0.0
    x[0, :3] = LARGEST, -LARGEST, 1e-45
    back = there_and_back("float32", x)
    np.testing.assert_array_equal(back.view(np.uint32), x.view(np.uint32))


def test_float16_rounds_as_numpy_does():
    x = np.concatenate([rows(), rows(seed=1) * 1e3, rows(seed=2) * 1e-6])
    encoded = CODECS["float16"].encode(x, {})
    np.testing.assert_array_equal(encoded.values, x.astype(np.float16))
    np.testing.assert_array_equal(there_and_back("float16", x), x.astype(np.float16))


@pytest.mark.parametrize("sign", [1, -1])
def test_float16_holds_all_that_rounds_to_its_largest_value(sign):
    below = np.nextafter(np.float32(65520), np.float32(0))
    x = sign * np.array([[65504, below]], np.float32)
    np.testing.assert_array_equal(there_and_back("float16", x), sign * np.float32([[65504, 65504]]))


@pytest.mark.parametrize("value", [65520, -65520, 1e6, LARGEST])
def test_float16_refuses_what_it_cannot_hold_and_names_bfloat16(value):
    x = rows()
    x[3, 2] = value
    with pytest.raises(BadInput, match="bfloat16") as error:
        CODECS["float16"].encode(x, {})
    assert f"{abs(value):.6g}" in str(error.value)


def test_bfloat16_rounds_as_torch_does():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 50_000, dtype=np.uint32)
    bits[:20_000] = bits[:20_000] & 0xFFFF0000 | 0x8000  # halfway between two neighbours
    bits[20_000:25_000] = bits[20_000:25_000] & 0xFFFF0000 | 0x7FFF
    bits[25_000:30_000] = bits[25_000:30_000] & 0xFFFF0000 | 0x8001
    bits[30_000:35_000] &= 0x807FFFFF  # subnormal numbers and zeros of both signs
    x = bits.view(np.float32).reshape(-1, 10)
    expected = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    finite = (expected & 0x7F80) != 0x7F80
    assert finite.mean() > 0.9
    np.testing.assert_array_equal(CODECS["bfloat16"].encode(x, {}).values[finite], expected[finite])


def test_bfloat16_rounds_ties_to_even():
    step = 2.0**-7
    x = np.array([[1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, -1 - 3 * step / 2]], np.float32)
    expected = np.float32([[1, 1 + 2 * step, -1, -1 - 2 * step]])
    np.testing.assert_array_equal(there_and_back("bfloat16", x), expected)


def test_bfloat16_is_off_by_one_in_256_at_most():
    x = np.concatenate([rows(), rows(seed=1) * 1e30, rows(seed=2) * 1e-30])
    assert (np.abs(there_and_back("bfloat16", x) - x) <= np.abs(x) * 2.0**-8).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_bfloat16_keeps_the_largest_numbers_finite(sign):
    largest = np.array(0x7F7F0000, np.uint32).view(np.float32)
    x = sign * np.array([[LARGEST, largest]], np.float32)
    expected = sign * np.array([[largest, largest]], np.float32)
    np.testing.assert_array_equal(there_and_back("bfloat16", x), expected)


def planted(n=2000, d=64, every=128, times=100.0, seed=0):
    """Rows of which one in ``every``, the first among them, is massive; and which are."""
    x = rows(n, d, seed)
    massive = np.arange(n) % every == 0
    direction = np.random.default_rng(1).standard_normal(d) * x.std(0)
    x[massive] = times * direction / np.linalg.norm(direction) * np.linalg.norm(x.std(0))
    return x.astype(np.float32), massive


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("size", [1e-41, 1e-38, 1e-30, 1e-3, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("offset", [0.0, 5.0, -1000.0])
def test_no_value_is_off_by_more_than_half_a_step(name, size, offset):
    x = (rows() * size + np.float32(offset * size)).astype(np.float32)
    encoded = encode(CODECS[name], x)
    error = np.abs(CODECS[name].decode(encoded).astype(np.float64) - x)
    assert (error <= encoded.side["scale"] / 2 + slack(x)).all()


@pytest.mark.parametrize("name", SPREAD)
def test_a_step_is_a_share_of_the_deviation_of_each_dimension(name):
    x = rows()
    scale = encode(CODECS[name], x).side["scale"]
    np.testing.assert_allclose(scale, CODECS[name].step * x.std(0, dtype=np.float64), 1e-5)


@pytest.mark.parametrize("name", SPREAD)
def test_rows_that_begin_every_block_do_not_pass_for_one_in_eight(name):
    # Long, but not massive; half of the dimensions have a tail on one side.
    x = np.random.default_rng(0).laplace(size=(1024, 16)).astype(np.float32)
    x[:, ::2] = np.abs(x[:, ::2])
    x[::128] += 6
    codec = CODECS[name]
    side = codec.fit(x)
    middle = side["offset"] + codec.codes // 2 * side["scale"]
    np.testing.assert_allclose(middle, x.mean(0), atol=1e-4)


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("times", [20, 100, 1e4, 1e8])
def test_massive_rows_change_nothing_for_the_others(name, times):
    x, massive = planted(times=times)
    error = np.square(there_and_back(name, x).astype(np.float64) - x)[~massive].sum()
    variance = np.square(x[~massive] - x[~massive].mean(0, dtype=np.float64)).sum()
    assert error / variance == pytest.approx(expected_error(CODECS[name]), rel=0.1)


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("times", [20, 100, 1e4, 1e8])
def test_massive_rows_are_as_exact_as_float16_or_better(name, times):
    x, massive = planted(times=times)
    back, whole = there_and_back(name, x)[massive], x[massive]
    assert (np.abs(back - whole) <= np.maximum(np.abs(whole) * 2.0**-11, 2.0**-25)).all()
    if np.abs(whole).max() > 65504:  # float16 does not reach so far
        np.testing.assert_array_equal(back, whole)


@pytest.mark.parametrize("name", SPREAD)
def test_a_massive_row_is_found_wherever_it_is(name):
    """Also behind the rows that the shard's scale was learned from."""
    x, _ = planted(n=2500, every=2400)
    encoded = encode(CODECS[name], x)
    assert encoded.apart.massive.tolist() == [0, 2400]


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("value", [1e3, -1e3, 1e30, -LARGEST])
def test_a_value_beyond_the_codes_is_kept_exactly(name, value):
    x = rows()
    # Of a dimension so small that its row is not massive.
    x[17, 0] = value if abs(value) > 1e6 else value * x[:, 0].std()
    back = there_and_back(name, x)
    assert back[17, 0] == x[17, 0]


@pytest.mark.parametrize("name", SPREAD)
def test_one_dimension_a_thousand_times_the_others_costs_them_nothing(name):
    x = rows()
    x[:, 5] *= 1e3
    error = np.square(there_and_back(name, x) - x.astype(np.float64)).mean(0)
    assert (error / x.var(0) <= 1.5 * expected_error(CODECS[name])).all()


@pytest.mark.parametrize("name", SPREAD)
def test_a_constant_dimension_is_exact_beside_others_and_so_is_what_breaks_it(name):
    x = rows(3000)
    x[:, 3], x[:, 7] = 0.1, -1234.567
    x[2900, 3], x[2901, 7] = 0.1001, -1234.5
    back = there_and_back(name, x)
    np.testing.assert_array_equal(back[:, [3, 7]], x[:, [3, 7]])


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_shard_of_hardly_any_rows_is_stored(name, n):
    x = rows(n)
    error = np.abs(there_and_back(name, x).astype(np.float64) - x)
    assert (error <= CODECS[name].step * x.std(0) / 2 + slack(x)).all()


@pytest.mark.parametrize("name", SPREAD)
def test_rows_that_are_all_massive_but_those_learned_from_come_back(name):
    x, _ = planted(n=4096, every=1)
    x[:2048] = rows(2048, 64)
    back = there_and_back(name, x)[2048:]
    assert (np.abs(back - x[2048:]) <= np.abs(x[2048:]) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("name", SPREAD)
def test_values_of_one_side_begin_at_the_first_code(name):
    """As after a GELU: codes below the least value would never be used."""
    x = np.random.default_rng(0).exponential(size=(2000, 8)).astype(np.float32)
    assert np.bincount(encode(CODECS[name], x).values.ravel()).argmax() < CODECS[name].codes // 4


@pytest.mark.parametrize("name", CODECS)
def test_any_rows_can_be_decoded_alone(name):
    codec, (x, _) = CODECS[name], planted()
    x[5, 0], x[7, 1] = 50, -50
    encoded = encode(codec, x)
    whole = codec.decode(encoded).copy()
    rows = np.array([7, 128, 5, 0, 1999, 5, 300, 128])
    stored = Encoded(encoded.values[rows], encoded.side)
    back = codec.decode(stored).copy()
    if encoded.apart is not None:
        encoded.apart.put(back, rows)
    np.testing.assert_array_equal(back, whole[rows])
    np.testing.assert_array_equal(codec.decode(encoded.part(3, 300)), whole[3:300])


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", CODECS)
def test_a_span_wider_than_float32_comes_back_close_or_is_refused(name):
    x = np.array([[-3e38], [0], [1e38], [3e38]], np.float32)
    try:
        back = there_and_back(name, x)
    except BadInput:
        return
    assert (np.abs(back.astype(np.float64) - x) <= 6e38 / 255).all()


@pytest.mark.parametrize("name", SCHEMA_1)
def test_a_codec_of_the_first_schema_reads_and_does_not_write(name):
    codec = codec_named(name, 1)
    side = {"offset": np.float32([1, -2]), "scale": np.float32([0.5, 0.25])}
    stored = Encoded(np.array([[0, 255], [3, 1]], np.uint8), side)
    np.testing.assert_array_equal(codec.decode(stored), [[1, 61.75], [2.5, -1.75]])
    with pytest.raises(BadInput, match="schema 1"):
        codec.encode(rows(), side)


def some_apart(rows=300, d=70_000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, d)).astype(np.float32)
    entries = np.unique(rng.integers(0, x.size, 500))
    massive = rng.random(rows) < 0.02
    entries = entries[~massive[entries // d]]
    return Apart.of(x, entries, massive), x


@pytest.mark.parametrize("d", [1, 7, 70_000])
def test_what_is_kept_apart_is_the_same_behind_a_file(d):
    apart, _ = some_apart(d=d)
    again = Apart.from_bytes(apart.to_bytes(), 300, d)
    for name, array in vars(apart).items():
        np.testing.assert_array_equal(getattr(again, name), array)
    assert again.to_bytes() == apart.to_bytes()


@pytest.mark.parametrize("at", range(0, 120, 5))
def test_a_file_of_what_is_kept_apart_that_was_changed_is_refused_or_of_the_same_form(at):
    apart, _ = some_apart(d=7)
    raw = bytearray(apart.to_bytes())
    raw[at] ^= 0xFF
    try:
        again = Apart.from_bytes(bytes(raw), 300, 7)
    except ValueError:
        return
    x = np.zeros((300, 7), np.float32)
    again.put(x)
    again.put(x, np.arange(300)[::-1])


@pytest.mark.parametrize(("rows", "width"), [(299, 7), (301, 7), (300, 6)])
def test_what_is_kept_apart_of_other_rows_is_refused(rows, width):
    apart, _ = some_apart(d=7)
    with pytest.raises(ValueError):
        Apart.from_bytes(apart.to_bytes(), rows, width)
