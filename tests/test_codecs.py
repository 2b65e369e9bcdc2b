"""Codecs: how far a stored number may be from the number it stands for."""

import numpy as np
import pytest

from rkstore.codecs import CODECS, Encoded, codec_named
from rkstore.errors import BadInput

LARGEST = np.finfo(np.float32).max


def there_and_back(name: str, x: np.ndarray) -> np.ndarray:
    codec = CODECS[name]
    return codec.decode(codec.encode(x))


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
    encoded = codec.encode(rows(n, 5))
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
    encoded = codec.encode(x)
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
def test_a_thousandth_of_the_variance_is_the_most_a_codec_loses(name):
    x = rows().astype(np.float64)
    error = there_and_back(name, rows()) - x
    assert (error**2).sum() < 1e-3 * ((x - x.mean(0)) ** 2).sum()


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
    encoded = CODECS["float16"].encode(x)
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
        CODECS["float16"].encode(x)
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
    np.testing.assert_array_equal(CODECS["bfloat16"].encode(x).values[finite], expected[finite])


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


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("offset", [0.0, 5.0, -1000.0])
def test_int8_is_off_by_half_a_step_at_most(size, offset):
    x = (rows() * size + np.float32(offset * size)).astype(np.float32)
    encoded = CODECS["int8"].encode(x)
    error = np.abs(CODECS["int8"].decode(encoded).astype(np.float64) - x)
    assert (error <= encoded.side["scale"] / 2 + slack(x)).all()


def test_int8_steps_are_a_255th_of_the_span_of_each_dimension():
    x = rows()
    np.testing.assert_allclose(CODECS["int8"].encode(x).side["scale"], np.ptp(x, 0) / 255, 1e-6)


def test_int8_gives_back_the_extremes_of_each_dimension_to_the_last_bits_of_float32():
    x = rows()
    back = there_and_back("int8", x)
    np.testing.assert_array_equal(back.min(0), x.min(0))
    assert (np.abs(back.max(0) - x.max(0)) <= slack(x)).all()


def test_int8_does_not_clip_an_outlier_and_uses_all_its_codes():
    x = rows()
    x[17, 4], x[18, 5] = 1e6, -1e6
    codes = CODECS["int8"].encode(x).values
    assert (codes.min(0) == 0).all()
    assert (codes.max(0) == 255).all()
    back = there_and_back("int8", x)
    assert back[17, 4] == pytest.approx(1e6, rel=1e-6)
    assert back[18, 5] == -1e6


def test_int8_keeps_a_constant_dimension_exact_beside_others():
    x = rows()
    x[:, 3], x[:, 7] = 0.1, -1234.567
    back = there_and_back("int8", x)
    np.testing.assert_array_equal(back[:, [3, 7]], x[:, [3, 7]])


def test_int8_is_exact_for_a_chunk_of_one_row():
    x = rows(1)
    np.testing.assert_array_equal(there_and_back("int8", x), x)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", CODECS)
def test_a_span_wider_than_float32_comes_back_close_or_is_refused(name):
    x = np.array([[-3e38], [0], [1e38], [3e38]], np.float32)
    try:
        back = there_and_back(name, x)
    except BadInput:
        return
    assert (np.abs(back.astype(np.float64) - x) <= 6e38 / 255).all()
