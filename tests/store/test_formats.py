"""Formats: files that other libraries read, and that notice damage themselves."""

import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import zarr
from conftest import SITES, encoded, flip, make_manifest, stored, tree
from numcodecs.fletcher32 import Fletcher32

from rkstore.errors import BadInput, DamagedStore
from rkstore.store.codecs import CODECS
from rkstore.store.formats import FORMATS, ArraySpec, checksum, compression, format_named
from rkstore.store.formats.checksum import PIECE, by_wrapper, crc32c
from rkstore.store.formats.compression import Zstd
from rkstore.store.formats.native import c_function
from rkstore.store.store import Store
from rkstore.store.verify import verify

HOOK = "blocks.1.mlp.hook_post"

# Every type of stored number that a store has.
DTYPES = sorted({codec.dtype.str for codec in CODECS.values()} | {"<i4", "<f4"})

# Every way to compress in every format.
COMPRESSED = [(name, compression) for name in FORMATS for compression in FORMATS[name].compressions]

# What a format may raise when the bytes are not what was written.
DAMAGE = (ValueError, OSError, RuntimeError, KeyError)


def numbers(rows, dtype, width, seed=0):
    """Numbers of any type in which every byte occurs."""
    shape = (rows,) if width is None else (rows, width)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize))
    values = raw.astype(np.uint8).view(dtype)[..., 0]
    return np.nan_to_num(values) if np.dtype(dtype).kind == "f" else values


def spec_of(
    dtype="<f4", width: int | None = 5, shard_rows=12, chunk_rows=4, *, name="zarr", compression=""
):
    compression = compression or FORMATS[name].compressions[0]
    return ArraySpec("site", np.dtype(dtype), width, shard_rows, chunk_rows, compression)


def read_all(name, path, spec, rows):
    """All chunks of a shard's file."""
    shard = FORMATS[name].open_shard(path, spec, rows)
    return np.concatenate([shard.chunk(i) for i in range(-(-rows // spec.chunk_rows))])


def raw(manifest, values, hook_name):
    """What should lie on disk for a site: by codec side, ``""`` for the values themselves."""
    codec, size = CODECS[manifest.codec], manifest.shard_rows
    x = values[hook_name]
    shards = [encoded(codec, x[i : i + size]) for i in range(0, len(x), size)]
    sides = {side: np.stack([shard.side[side] for shard in shards]) for side in codec.side}
    return {"": np.concatenate([shard.values for shard in shards])} | sides


def shard_file(store, hook_name, shard):
    """Path of the file that holds a site's values of one shard."""
    spec = store.manifest.specs(hook_name)[""]
    return store.root / FORMATS[store.manifest.format].shard_path(spec, shard)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_goes_by_its_own_name(name):
    assert format_named(name).name == name


def test_an_unknown_format_is_refused_with_the_names_of_all():
    with pytest.raises(BadInput) as error:
        format_named("netcdf")
    assert all(name in str(error.value) for name in ("netcdf", *FORMATS))


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 11, 12])
@pytest.mark.parametrize("width", [None, 1, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "compression"), COMPRESSED)
def test_a_shard_gives_back_what_was_written(tmp_path, name, compression, dtype, width, rows):
    spec, values = (
        spec_of(dtype, width, name=name, compression=compression),
        numbers(rows, dtype, width),
    )
    FORMATS[name].write_shard(tmp_path / "shard", spec, values)
    back = read_all(name, tmp_path / "shard", spec, rows)
    assert back.dtype == spec.dtype
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize(("name", "compression"), COMPRESSED)
def test_the_same_values_give_the_same_bytes_in_any_memory_layout(tmp_path, name, compression):
    spec, values = spec_of(compression=compression), numbers(11, "<f4", 5)
    FORMATS[name].write_shard(tmp_path / "a", spec, values)
    FORMATS[name].write_shard(tmp_path / "b", spec, np.asfortranarray(values))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", FORMATS)
def test_two_stores_of_the_same_values_have_the_same_bytes(make_store, name, codec):
    a, _ = make_store("a", codec=codec, format=name)
    b, _ = make_store("b", codec=codec, format=name)
    assert tree(a.root) == tree(b.root)


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_is_never_written_over_a_file(tmp_path, name):
    (tmp_path / "shard").write_bytes(b"mine")
    with pytest.raises(OSError):
        FORMATS[name].write_shard(tmp_path / "shard", spec_of(name=name), numbers(12, "<f4", 5))
    assert (tmp_path / "shard").read_bytes() == b"mine"


@pytest.mark.parametrize("codec", CODECS)
def test_zarr_reads_the_stored_numbers_without_rkstore(make_store, codec):
    store, values = make_store(codec=codec, format="zarr")
    group = zarr.open_group(store.root, mode="r")
    for hook_name in SITES:
        for side, expected in raw(store.manifest, values, hook_name).items():
            path = f"{hook_name}.{side}" if side else hook_name
            for array in (group[path], zarr.open_array(store.root / path, mode="r")):
                assert array.dtype == expected.dtype
                np.testing.assert_array_equal(array[:], expected)
    for column in ("token_id", "document", "position"):
        np.testing.assert_array_equal(group[column][:], values[column])


@pytest.mark.parametrize("codec", CODECS)
def test_h5py_reads_the_stored_numbers_without_rkstore(make_store, codec):
    store, values = make_store(codec=codec, format="hdf5")

    def read(array):
        files = sorted((store.root / array).glob("*.h5"))
        assert len(files) == store.manifest.shards
        return np.concatenate([h5py.File(path, "r")["values"][:] for path in files])

    for hook_name in SITES:
        for side, expected in raw(store.manifest, values, hook_name).items():
            back = read(f"{hook_name}.{side}" if side else hook_name)
            assert back.dtype == expected.dtype
            np.testing.assert_array_equal(back, expected)
    for column in ("token_id", "document", "position"):
        np.testing.assert_array_equal(read(column), values[column])


def test_hdf5_files_need_no_filter_plugin(make_store):
    store, _ = make_store(format="hdf5")
    dataset = h5py.File(shard_file(store, HOOK, 0), "r")["values"]
    filters = dataset.id.get_create_plist()
    built_in = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}
    assert {filters.get_filter(i)[0] for i in range(filters.get_nfilters())} <= built_in
    assert dataset.fletcher32


def test_an_array_names_its_codec_and_its_store(make_store):
    a, _ = make_store("a", codec="bfloat16", format="zarr")
    b, _ = make_store("b", codec="bfloat16", format="hdf5")
    for store, attributes in (
        (a, zarr.open_group(a.root, mode="r")[HOOK].attrs),
        (b, h5py.File(shard_file(b, HOOK, 3), "r")["values"].attrs),
    ):
        assert attributes["rkstore_codec"] == "bfloat16"
        assert attributes["rkstore_store"] == store.manifest.fingerprint


def test_zarr_shows_as_many_rows_as_are_recorded(make_store):
    store, values = make_store(codec="int8", format="zarr", shards=2)
    group = zarr.open_group(store.root, mode="r")
    assert group[HOOK].shape == (128, 12)
    assert group[f"{HOOK}.scale"].shape == (2, 12)
    assert group["position"].shape == (128,)
    np.testing.assert_array_equal(group["position"][:], values["position"][:128])


@pytest.mark.parametrize("name", FORMATS)
def test_the_formats_own_library_shows_recorded_rows_only(make_store, name):
    store, values = make_store("two", format=name, shards=2)
    further, _ = make_store("all", format=name)
    # A writer was killed behind its second shard: the third lies there, not recorded.
    target = shard_file(store, HOOK, 2)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(shard_file(further, HOOK, 2).read_bytes())
    opened = Store(store.root).open_array(HOOK)
    rows = [part[:] for part in opened] if isinstance(opened, list) else [opened[:]]
    np.testing.assert_array_equal(np.concatenate(rows), values[HOOK][:128])


@pytest.mark.parametrize("name", FORMATS)
def test_shards_are_in_order_whatever_the_number_of_their_digits(tmp_path, name):
    fmt, spec = FORMATS[name], spec_of(shard_rows=4, name=name)
    for shard in (99_999, 100_000):
        path = tmp_path / fmt.shard_path(spec, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        fmt.write_shard(path, spec, np.full((4, 5), shard, np.float32))
    for path, content in fmt.metadata({spec: 100_001 * 4}).items():
        (tmp_path / path).write_bytes(content)
    opened = fmt.open_array(tmp_path, spec, (99_999, 100_000))
    last = [part[0, 0] for part in opened] if isinstance(opened, list) else opened[-8::4, 0]
    np.testing.assert_array_equal(last, [99_999, 100_000])


@pytest.mark.parametrize(("name", "compression"), COMPRESSED)
def test_no_flipped_bit_of_a_shard_ever_changes_a_value_unnoticed(tmp_path, name, compression):
    spec, rows = spec_of(shard_rows=8, compression=compression), 7
    values = numbers(rows, "<f4", 5)
    FORMATS[name].write_shard(tmp_path / "whole", spec, values)
    whole = (tmp_path / "whole").read_bytes()
    unnoticed = []
    # A step that meets every structure of the file, and every bit of a byte in turn.
    for offset in range(0, len(whole), 3):
        # A name of its own for each file: libraries may remember an open one.
        path = tmp_path / f"{offset}"
        path.write_bytes(whole)
        flip(path, offset, 1 << offset % 8)
        try:
            back = read_all(name, path, spec, rows)
        except DAMAGE:
            pass
        else:
            if not np.array_equal(back, values):
                unnoticed.append(offset)
    assert not unnoticed


def middle_of_a_chunk(path: Path) -> int:
    """Offset of a byte in the middle of a shard's first compressed chunk."""
    if path.suffix == ".h5":
        info = h5py.File(path, "r")["values"].id.get_chunk_info(0)
        return info.byte_offset + info.size // 2
    index = np.frombuffer(path.read_bytes()[-4 * 16 - 4 : -4], "<u8")
    return int(index[0] + index[1] // 2)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_flipped_byte_is_an_error_that_names_site_shard_and_rows(make_store, name, codec):
    store, _ = make_store(codec=codec, format=name)
    path = shard_file(store, HOOK, 1)
    flip(path, middle_of_a_chunk(path))
    with pytest.raises(DamagedStore) as error:
        Store(store.root).chunk(HOOK, 4)
    assert HOOK in str(error.value)
    assert "shard 1" in str(error.value)
    assert "64:128" in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_in_one_chunk_leaves_the_others_readable(make_store, name):
    store, values = make_store(format=name)
    path = shard_file(store, HOOK, 1)
    flip(path, middle_of_a_chunk(path))
    store = Store(store.root)
    np.testing.assert_array_equal(store.read(HOOK, 80, 216), values[HOOK][80:])
    np.testing.assert_array_equal(store.read(HOOK, 0, 64), values[HOOK][:64])
    with pytest.raises(DamagedStore):
        store.read(HOOK, 79, 80)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_in_what_a_codec_keeps_besides_is_noticed_too(make_store, name):
    store, _ = make_store(codec="int8", format=name)
    spec = store.manifest.specs(HOOK)["scale"]
    path = store.root / FORMATS[name].shard_path(spec, 2)
    # The sizes still agree, so that only the sums can tell.
    offset = middle_of_a_chunk(path) if name == "hdf5" else 20
    flip(path, offset)
    with pytest.raises(DamagedStore, match=rf"{HOOK}\.scale, shard 2 \(rows 128:192\)"):
        Store(store.root).chunk(HOOK, 8)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_in_a_column_is_noticed_too(make_store, name):
    store, _ = make_store(format=name)
    path = store.root / FORMATS[name].shard_path(store.manifest.column_specs()["token_id"], 0)
    flip(path, middle_of_a_chunk(path))
    with pytest.raises(DamagedStore, match=r"token_id, shard 0 \(rows 0:64\)"):
        Store(store.root).column("token_id")


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_an_error_that_names_site_shard_and_rows(make_store, name, keep):
    store, _ = make_store(format=name)
    path = shard_file(store, HOOK, 3)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedStore) as error:
        Store(store.root).chunk(HOOK, 12)
    assert HOOK in str(error.value)
    assert "shard 3" in str(error.value)
    assert "192:216" in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_notices_a_truncated_file_by_itself(tmp_path, name, keep):
    spec = spec_of(name=name)
    FORMATS[name].write_shard(tmp_path / "shard", spec, numbers(12, "<f4", 5))
    whole = (tmp_path / "shard").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:keep])
    with pytest.raises(DAMAGE):
        read_all(name, tmp_path / "cut", spec, 12)


@pytest.mark.parametrize("name", FORMATS)
def test_a_lost_file_is_an_error_that_names_site_shard_and_rows(make_store, name):
    store, _ = make_store(format=name)
    shard_file(store, HOOK, 2).unlink()
    with pytest.raises(DamagedStore, match=r"blocks\.1\.mlp\.hook_post, shard 2 \(rows 128:192\)"):
        Store(store.root).read(HOOK)


@pytest.mark.parametrize("name", FORMATS)
def test_verify_finds_two_shards_in_each_others_place(make_store, name):
    store, _ = make_store(format=name)
    a, b = shard_file(store, HOOK, 0), shard_file(store, HOOK, 1)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    found = {problem.path for problem in verify(Store(store.root))}
    assert found == {path.relative_to(store.root).as_posix() for path in (a, b)}


@pytest.mark.parametrize("name", FORMATS)
def test_verify_finds_a_shard_of_another_store(make_store, name):
    store, _ = make_store("mine", format=name)
    other, _ = make_store("other", format=name, seed=1)
    path = shard_file(store, HOOK, 0)
    path.write_bytes(shard_file(other, HOOK, 0).read_bytes())
    found = [problem.path for problem in verify(Store(store.root))]
    assert found == [path.relative_to(store.root).as_posix()]


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_of_another_shape_or_type_is_not_taken_for_this_one(tmp_path, name):
    FORMATS[name].write_shard(tmp_path / "shard", spec_of(name=name), numbers(12, "<f4", 5))
    others = ({"width": 6}, {"dtype": "<f2"}, {"shard_rows": 24}, {"compression": "none"})
    for other in (spec_of(name=name, **changed) for changed in others):
        with pytest.raises(DAMAGE):
            read_all(name, tmp_path / "shard", other, other.shard_rows)


@pytest.mark.parametrize("size", [0, 1, 9, PIECE - 1, PIECE, 2 * PIECE + 3])
@pytest.mark.parametrize("way", [crc32c, by_wrapper])
def test_a_checksum_is_that_of_the_library_in_both_ways_to_compute_it(way, size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert way(data) == way(memoryview(data)) == google_crc32c.value(data)


@pytest.mark.parametrize("size", [1, 1000, 2**17 + 1, 2**20])
def test_zstandard_frames_are_those_of_the_library_s_wrapper(size):
    generator = np.random.default_rng(size)
    codes = generator.poisson(3, size).astype(np.uint8)
    noise = generator.integers(0, 256, size, np.uint8)  # which cannot get smaller
    for values in (codes, noise, np.zeros(size, np.uint8)):
        np.testing.assert_array_equal(Zstd().encode(values, 4)[:-4], Zstd.by_wrapper(values))


@pytest.mark.parametrize("module", ["numcodecs.zstd", "json", "no.such.module"])
def test_a_function_that_a_library_has_no_name_for_is_none(module):
    assert c_function(module, "no_such_function", None) is None


def test_without_the_c_functions_the_same_file_is_written_and_read(tmp_path, monkeypatch):
    values = numbers(10, "u1", 500)
    spec = spec_of("u1", 500, compression="zstd")
    FORMATS["zarr"].write_shard(tmp_path / "with", spec, values)
    monkeypatch.setattr(compression, "COMPRESS", None)
    monkeypatch.setattr(checksum, "EXTEND", None)
    FORMATS["zarr"].write_shard(tmp_path / "without", spec, values)
    assert (tmp_path / "with").read_bytes() == (tmp_path / "without").read_bytes()
    np.testing.assert_array_equal(read_all("zarr", tmp_path / "with", spec, 10), values)


@pytest.mark.parametrize(("name", "compression"), COMPRESSED)
def test_a_chunk_is_the_same_in_memory_that_it_is_given(tmp_path, name, compression):
    spec = spec_of(name=name, compression=compression)
    FORMATS[name].write_shard(tmp_path / "shard", spec, numbers(10, "<f4", 5))
    shard = FORMATS[name].open_shard(tmp_path / "shard", spec, 10)
    given = np.full((4, 5), 7, "<f4")
    found = shard.chunk(1, given)
    np.testing.assert_array_equal(found, shard.chunk(1))
    assert (found is given) == (name == "zarr" and compression != "none")


@pytest.mark.parametrize(
    "given",
    [np.zeros((2, 5), "<f4"), np.zeros((4, 5), "<i4"), np.zeros((8, 5), "<f4")],
    ids=["the rows of a chunk cut short", "another type", "too many rows"],
)
def test_memory_that_does_not_fit_a_chunk_is_left_alone(tmp_path, given):
    FORMATS["zarr"].write_shard(tmp_path / "shard", spec_of(), numbers(10, "<f4", 5))
    shard = FORMATS["zarr"].open_shard(tmp_path / "shard", spec_of(), 10)
    found = shard.chunk(2, given)
    np.testing.assert_array_equal(found, shard.chunk(2))
    assert len(found) == 2
    assert not given.any()


# Shards that nobody's writer makes, with all their checksums right: a store from a
# stranger is data, and what it says of itself decides nothing.


def with_crc(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


def crafted_zarr(path: Path, chunk: bytes, offset: int = 0, length: int | None = None) -> None:
    """A Zarr shard of one chunk, with any bytes and any entry in its index."""
    entry = np.array([offset, len(chunk) if length is None else length], "<u8")
    path.write_bytes(chunk + with_crc(entry.tobytes()))


def frame(stated_bytes: int, stated_frame: int, body: bytes = b"", flags: int = 0x02) -> bytes:
    """A Blosc frame whose header states any sizes; flag 2 means that the body is plain bytes."""
    sizes = (stated_bytes, stated_bytes, stated_frame)
    return bytes([2, 1, flags, 4]) + b"".join(n.to_bytes(4, "little") for n in sizes) + body


ONE_CHUNK = spec_of(width=4, shard_rows=16, chunk_rows=16)
ONE_DEFLATED = spec_of(width=4, shard_rows=16, chunk_rows=16, name="hdf5")
ONE_ZSTD = spec_of(width=4, shard_rows=16, chunk_rows=16, compression="zstd")
ONE_PLAIN = spec_of(width=4, shard_rows=16, chunk_rows=16, compression="none")
SHUFFLED = spec_of(name="hdf5")
SIZE = 16 * 4 * 4


def test_a_plain_frame_that_states_its_true_sizes_is_read(tmp_path):
    crafted_zarr(tmp_path / "shard", with_crc(frame(SIZE, SIZE + 16, bytes(range(256)))))
    chunk = FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_CHUNK, 16).chunk(0)
    assert chunk.tobytes() == bytes(range(256))


@pytest.mark.parametrize(
    ("offset", "length"), [(1, None), (2**40, None), (0, 2**40), (2**64 - 1, 2**64 - 1), (0, 0)]
)
def test_a_chunk_said_to_lie_outside_its_file_is_refused(tmp_path, offset, length):
    chunk = with_crc(frame(SIZE, SIZE + 16, bytes(SIZE)))
    crafted_zarr(tmp_path / "shard", chunk, offset, length)
    with pytest.raises(DAMAGE):
        FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_CHUNK, 16).chunk(0)


@pytest.mark.parametrize("stated", [0, SIZE - 1, SIZE + 1, 2**31 - 1])
def test_a_chunk_that_states_another_size_than_its_rows_have_is_refused(tmp_path, stated):
    crafted_zarr(tmp_path / "shard", with_crc(frame(stated, stated + 16, bytes(SIZE))))
    with pytest.raises(DAMAGE):
        FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_CHUNK, 16).chunk(0)


@pytest.mark.parametrize("there", [0, 100, SIZE - 1])
def test_a_frame_shorter_than_it_states_is_refused_and_nothing_behind_it_is_read(tmp_path, there):
    crafted_zarr(tmp_path / "shard", with_crc(frame(SIZE, SIZE + 16, bytes(there))))
    with pytest.raises(DAMAGE):
        FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_CHUNK, 16).chunk(0)


def zstd_frame(content: bytes, descriptor: int, size: bytes) -> bytes:
    """A Zstandard frame of one raw block, whose header states any size (RFC 8878, 3.1.1)."""
    window = b"" if descriptor & 0x20 else b"\x58"
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window + size + block + content


def test_a_zstandard_frame_that_states_its_size_in_any_of_three_ways_is_read(tmp_path):
    content, size = bytes(range(256)), SIZE.to_bytes
    for i, (descriptor, stated) in enumerate(
        # Two bytes count from 256; four and eight from zero; with a window and without.
        [(0x60, bytes(2)), (0x40, bytes(2)), (0xA0, size(4, "little")), (0xC0, size(8, "little"))]
    ):
        crafted_zarr(tmp_path / f"{i}", with_crc(zstd_frame(content, descriptor, stated)))
        chunk = FORMATS["zarr"].open_shard(tmp_path / f"{i}", ONE_ZSTD, 16).chunk(0)
        assert chunk.tobytes() == content


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        zstd_frame(bytes(SIZE), 0x00, b""),  # states no size
        zstd_frame(bytes(SIZE), 0x60, (1).to_bytes(2, "little")),
        zstd_frame(bytes(SIZE), 0xE0, (2**60).to_bytes(8, "little")),
        zstd_frame(bytes(SIZE - 1), 0x60, bytes(2)),
        zstd_frame(bytes(SIZE + 1), 0x60, bytes(2)),
        zstd_frame(bytes(SIZE), 0x60, bytes(2)) * 2,
        zstd_frame(bytes(SIZE), 0x60, bytes(2))[:-1],
    ],
)
def test_a_zstandard_frame_of_another_size_than_its_rows_have_is_refused(tmp_path, chunk):
    crafted_zarr(tmp_path / "shard", with_crc(chunk))
    with pytest.raises(DAMAGE):
        FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_ZSTD, 16).chunk(0)


@pytest.mark.parametrize("there", [0, SIZE - 1, SIZE + 4])
def test_an_uncompressed_chunk_of_another_size_is_refused(tmp_path, there):
    crafted_zarr(tmp_path / "shard", with_crc(bytes(there)))
    with pytest.raises(DAMAGE):
        FORMATS["zarr"].open_shard(tmp_path / "shard", ONE_PLAIN, 16).chunk(0)


@pytest.mark.parametrize("name", FORMATS)
def test_an_uncompressed_float32_chunk_is_a_view_of_the_mapped_file(make_store, name):
    store, values = make_store(format=name, compression="none")
    chunk = store.chunk(HOOK, 3)
    np.testing.assert_array_equal(chunk, values[HOOK][48:64])
    base = chunk
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, memoryview)
    assert not chunk.flags.writeable
    assert store.read(HOOK, 48, 64).flags.writeable


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "compression"), COMPRESSED)
def test_other_libraries_read_every_compression(make_store, name, compression, codec):
    store, values = make_store(codec=codec, format=name, compression=compression)
    opened = store.open_array(HOOK)
    rows = [part[:] for part in opened] if isinstance(opened, list) else [opened[:]]
    np.testing.assert_array_equal(np.concatenate(rows), raw(store.manifest, values, HOOK)[""])
    np.testing.assert_array_equal(store.read(HOOK), stored(store.manifest, values[HOOK]))


def crafted_hdf5(path: Path, chunk: bytes) -> None:
    """An HDF5 shard of one chunk with any bytes in it."""
    with h5py.File(path, "x", libver=("v110", "v110")) as file:
        dataset = file.create_dataset(
            "values", (16, 4), "<f4", chunks=(16, 4), shuffle=True, compression=1, fletcher32=True
        )
        dataset.id.write_direct_chunk((0, 0), chunk)


def test_a_chunk_of_hdf5_is_read_as_hdf5_would_read_it(tmp_path):
    crafted_hdf5(tmp_path / "shard", Fletcher32().encode(zlib.compress(bytes(range(256)))))
    chunk = FORMATS["hdf5"].open_shard(tmp_path / "shard", ONE_DEFLATED, 16).chunk(0)
    with h5py.File(tmp_path / "shard") as file:
        np.testing.assert_array_equal(chunk, file["values"][:])


def test_a_stream_that_would_fill_the_memory_is_refused_before_it_does(tmp_path):
    crafted_hdf5(tmp_path / "shard", Fletcher32().encode(zlib.compress(bytes(100 * 2**20))))
    shard = FORMATS["hdf5"].open_shard(tmp_path / "shard", ONE_DEFLATED, 16)
    tracemalloc.start()
    with pytest.raises(DAMAGE):
        shard.chunk(0)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2**20


@pytest.mark.parametrize("there", [0, SIZE - 1])
def test_a_stream_that_ends_too_early_is_refused(tmp_path, there):
    crafted_hdf5(tmp_path / "shard", Fletcher32().encode(zlib.compress(bytes(there))))
    with pytest.raises(DAMAGE):
        FORMATS["hdf5"].open_shard(tmp_path / "shard", ONE_DEFLATED, 16).chunk(0)


@pytest.mark.parametrize("chunk", [b"1", b"123"])
def test_a_chunk_too_short_for_its_checksum_is_refused(tmp_path, chunk):
    crafted_hdf5(tmp_path / "shard", chunk)
    with pytest.raises(DAMAGE):
        FORMATS["hdf5"].open_shard(tmp_path / "shard", ONE_DEFLATED, 16).chunk(0)


@pytest.mark.parametrize("link", [h5py.ExternalLink("elsewhere", "values"), h5py.SoftLink("/x")])
def test_numbers_that_lie_in_another_file_are_refused(tmp_path, link):
    FORMATS["hdf5"].write_shard(tmp_path / "elsewhere", SHUFFLED, numbers(12, "<f4", 5))
    with h5py.File(tmp_path / "shard", "x") as file:
        file["values"] = link
    with pytest.raises(DAMAGE):
        FORMATS["hdf5"].open_shard(tmp_path / "shard", SHUFFLED, 12)


def test_reading_zarr_shards_does_not_load_the_zarr_library(make_store):
    store, _ = make_store(format="zarr")
    code = (
        "import sys; from rkstore.store.store import Store; "
        f"Store({str(store.root)!r}).read({HOOK!r}); sys.exit('zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", FORMATS)
def test_an_immense_chunk_is_refused_before_memory_is_taken_for_it(tmp_path, name):
    """A small file of which the manifest claims that it holds 2⁴⁰ rows in one chunk."""
    rows = 2**40
    spec = spec_of(width=12, shard_rows=rows, chunk_rows=rows, name=name)
    if name == "hdf5":
        with h5py.File(tmp_path / "shard", "x") as opened:
            opened.create_dataset("values", (rows, 12), "<f4", chunks=(1024, 12))
    else:
        crafted_zarr(tmp_path / "shard", with_crc(frame(SIZE, SIZE + 16, bytes(SIZE))))
    with pytest.raises(DAMAGE):
        FORMATS[name].open_shard(tmp_path / "shard", spec, rows).chunk(0)


def test_a_manifest_with_immense_chunks_is_refused(tmp_path):
    rows = 2**30
    manifest = make_manifest(rows=rows, shard_rows=rows, chunk_rows=rows, sites={HOOK: 12})
    (tmp_path / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(DamagedStore, match="too large"):
        Store(tmp_path)


def test_every_column_and_site_has_the_same_number_of_rows(make_store):
    store, _ = make_store(codec="int8")
    group = zarr.open_group(store.root, mode="r")
    columns = ("token_id", "document", "position")
    assert {group[name].shape[0] for name in (*SITES, *columns)} == {216}
