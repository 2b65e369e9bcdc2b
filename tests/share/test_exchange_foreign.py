"""Exchange: files of other programs mean what those programs mean by them."""

import json

import h5py
import numpy as np
import pytest
from foreign_files import CONTEXT, ROWS, WIDTH, foreign, rows, save_arrow, save_memmap

from rkstore.share.exchange.memmap import MEANS, MEANS_NOTHING

# Formats whose arrays may have any axes.
ARRAYS = ("npy", "pt", "hdf5")

HEADS = 3


@pytest.fixture
def x():
    return rows()


def name_of(kind):
    return "tensor" if kind == "hdf5" else "acts"


# Heads.


@pytest.mark.parametrize("kind", ARRAYS)
def test_four_axes_are_blocks_of_rows_of_heads(bring, tmp_path, x, kind):
    path = foreign(kind, tmp_path, x.reshape(-1, CONTEXT, HEADS, WIDTH // HEADS))
    store = bring(path, kind, shard_rows=24)
    assert store.manifest.context_size == CONTEXT
    np.testing.assert_array_equal(store.read(name_of(kind)), x)


def test_a_saelens_column_of_heads_is_read_flat(bring, tmp_path, x):
    import datasets

    blocks = x.reshape(-1, CONTEXT, HEADS, WIDTH // HEADS)
    features = datasets.Features({"z": datasets.Array3D(blocks.shape[1:], "float32")})
    datasets.Dataset.from_dict({"z": blocks}, features=features).save_to_disk(str(tmp_path / "a"))
    store = bring(tmp_path / "a", "saelens")
    assert store.manifest.context_size == CONTEXT
    np.testing.assert_array_equal(store.read("z"), x)


def hdf5(path, name, x):
    with h5py.File(path, "w") as file:
        file[name] = x
    return path


def test_two_kinds_of_each_layer_are_a_disc_buffer_if_the_dataset_is_called_so(bring, tmp_path, x):
    path = hdf5(tmp_path / "acts.h5", "tensor", x.reshape(-1, 2, 3, 2))
    said: list = []
    store = bring(path, "hdf5", say=said.append)
    assert "blocks.2.hook_resid_mid" in store.hook_names
    assert said[2] == "tensor[:, 0, 2] → blocks.2.hook_resid_mid"


def test_blocks_of_two_rows_with_heads_are_no_disc_buffer(bring, tmp_path, x):
    path = hdf5(tmp_path / "acts.h5", "tensor", x.reshape(-1, 2, 3, 2))
    store = bring(path, "hdf5", context_size=2)
    np.testing.assert_array_equal(store.read("tensor"), x)


def test_what_may_be_either_is_asked_for(bring, refused, tmp_path, x):
    path = hdf5(tmp_path / "acts.h5", "z", x.reshape(-1, 2, 3, 2))
    sentence = refused(path, "hdf5")
    assert "context_size 1" in sentence
    assert "context_size 2" in sentence
    np.testing.assert_array_equal(bring(path, "hdf5", context_size=2).read("z"), x)
    buffer = bring(path, "hdf5", out="buffer", context_size=1)
    np.testing.assert_array_equal(buffer.read("blocks.0.hook_mlp_out"), x[1::2, :2])


# Numbers.


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
@pytest.mark.parametrize("dtype", [">f4", ">f2", ">f8", "<f8", "<f2"])
def test_floats_of_either_byte_order_are_read(bring, tmp_path, x, kind, dtype):
    store = bring(foreign(kind, tmp_path, x.astype(dtype)), kind)
    np.testing.assert_array_equal(store.read(name_of(kind)), x)
    assert store.manifest.source["dtype"] == np.dtype(dtype).name


@pytest.mark.parametrize("shape", [(-1, WIDTH), (-1, CONTEXT, WIDTH), (-1, CONTEXT, HEADS, 2)])
def test_fortran_order_changes_no_row(bring, tmp_path, x, shape):
    np.save(tmp_path / "acts.npy", np.asfortranarray(x.reshape(shape)))
    np.testing.assert_array_equal(bring(tmp_path / "acts.npy", "npy").read("acts"), x)


def test_every_dtype_of_several_arrays_is_on_record(bring, tmp_path, x):
    for name, dtype in (("a", "f8"), ("b", "f4"), ("c", "f2"), ("d", "f4")):
        np.save(tmp_path / f"{name}.npy", x.astype(dtype))
    assert bring(tmp_path, "npy").manifest.source["dtype"] == "float16, float32, float64"


def test_bfloat16_that_numpy_saved_without_its_type_is_refused(refused, tmp_path, x):
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    np.save(tmp_path / "acts.npy", bits.view("V2"))
    assert "as saved bfloat16 does: save it as float32" in refused(tmp_path / "acts.npy", "npy")


# Tokens.


@pytest.mark.parametrize("kind", ["npy", "pt"])
def test_tokens_in_blocks_say_the_context_size(bring, tmp_path, x, kind):
    ids = np.arange(ROWS).reshape(-1, CONTEXT)
    store = bring(_with_tokens(tmp_path, kind, x, ids), kind)
    assert store.manifest.context_size == CONTEXT
    np.testing.assert_array_equal(store.column("token_id"), np.arange(ROWS))


@pytest.mark.parametrize("kind", ["npy", "pt"])
@pytest.mark.parametrize("shape", [(1, ROWS), (ROWS, 1), (ROWS,)])
def test_tokens_in_one_row_say_nothing_of_blocks(bring, tmp_path, x, kind, shape):
    store = bring(_with_tokens(tmp_path, kind, x, np.arange(ROWS).reshape(shape)), kind)
    assert store.manifest.context_size == 1
    np.testing.assert_array_equal(store.column("token_id"), np.arange(ROWS))


@pytest.mark.parametrize("kind", ["npy", "pt"])
@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.arange(ROWS).reshape(CONTEXT, -1), "save both in the same order"),
        (np.arange(ROWS - 1), "the activations have 48 rows"),
        (np.arange(ROWS).reshape(2, 2, -1), "the activations have 48 rows"),
        (np.arange(ROWS) / 2, "token ids are integers"),
    ],
)
def test_tokens_of_other_rows_are_refused(refused, tmp_path, x, kind, ids, said):
    blocks = x.reshape(-1, CONTEXT, WIDTH)
    assert said in refused(_with_tokens(tmp_path, kind, blocks, ids), kind)


def test_another_context_size_than_the_tokens_say_is_refused(refused, tmp_path, x):
    path = _with_tokens(tmp_path, "npy", x, np.arange(ROWS).reshape(-1, CONTEXT))
    assert "have 8 rows" in refused(path, "npy", context_size=4)


def _with_tokens(root, kind, x, ids):
    import torch

    if kind == "npy":
        np.save(root / "acts.npy", x)
        np.save(root / "tokens.npy", ids)
    else:
        torch.save(torch.from_numpy(x.copy()), root / "acts.pt")
        torch.save(torch.from_numpy(ids.copy()), root / "tokens.pt")
    return root


# The activation cache of dictionary_learning.

CONFIG = {
    "batch_size": 64,
    "context_len": 128,
    "shard_size": 1000,
    "d_model": WIDTH,
    "shuffle_shards": False,
    "io": "out",
    "total_size": ROWS,
    "shard_count": 2,
    "store_tokens": True,
    "store_sequence_ranges": False,
}


@pytest.fixture
def cache(tmp_path, x):
    """Call it with changes of the configuration; returns a cache of one submodule."""
    import torch

    def make(**changed):
        directory = tmp_path / "cache" / "layer_3_out"
        for number, part in enumerate((x[:20], x[20:])):
            save_memmap(directory, number, part)
        (directory / "config.json").write_text(json.dumps(CONFIG | changed))
        torch.save(torch.arange(ROWS), tmp_path / "cache" / "tokens.pt")
        return tmp_path / "cache"

    return make


def test_every_key_of_a_cache_is_one_that_is_known():
    assert set(CONFIG) == {*MEANS, *MEANS_NOTHING}


def test_a_cache_is_what_its_configuration_says(bring, cache, x):
    store = bring(cache(), "memmap")
    np.testing.assert_array_equal(store.read("layer_3_out"), x)
    np.testing.assert_array_equal(store.column("token_id"), np.arange(ROWS))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shard_count": 3}, "states shard_count 3, the shards there have 2"),
        ({"total_size": 1048}, "states total_size 1,048, the shards there have 48"),
        ({"d_model": 7}, "states d_model 7, the shards there have 6"),
        ({"normalized": True}, "has 'normalized', which rkstore does not know"),
        ({"shuffle_shards": "no"}, "states shuffle_shards as 'no'"),
        ({"shard_count": True}, "states shard_count as True"),
        ({"shuffle_shards": True}, "shuffled shards and tokens"),
    ],
)
def test_a_cache_that_is_not_what_it_says_is_refused(refused, cache, changed, said):
    assert said in refused(cache(**changed), "memmap")


def test_tokens_beside_a_cache_that_kept_none_are_not_its_own(bring, cache):
    store = bring(cache(store_tokens=False), "memmap")
    np.testing.assert_array_equal(store.column("token_id"), np.full(ROWS, -1))


def test_shuffled_rows_are_no_blocks(bring, refused, cache):
    path = cache(shuffle_shards=True, store_tokens=False)
    assert "shuffled" in refused(path, "memmap", context_size=CONTEXT)
    assert bring(path, "memmap").rows == ROWS


def test_a_shard_with_a_key_that_may_mean_anything_is_refused(refused, tmp_path, x):
    save_memmap(tmp_path / "acts", 0, x)
    meta = {"shape": list(x.shape), "dtype": "torch.float32", "scale": 2.0}
    (tmp_path / "acts" / "shard_0.meta").write_text(json.dumps(meta))
    assert "has 'scale', which rkstore does not know" in refused(tmp_path / "acts", "memmap")


def test_a_shard_of_the_first_caches_is_float32(bring, tmp_path, x):
    save_memmap(tmp_path / "acts", 0, x)
    (tmp_path / "acts" / "shard_0.meta").write_text(json.dumps({"shape": list(x.shape)}))
    np.testing.assert_array_equal(bring(tmp_path / "acts", "memmap").read("acts"), x)


# Datasets.


def test_a_dataset_whose_rows_are_in_an_order_of_their_own_is_refused(refused, tmp_path, x):
    path = save_arrow(
        tmp_path / "arrow", {"a": x.reshape(-1, CONTEXT, WIDTH)}, {"a": (CONTEXT, WIDTH)}
    )
    state = json.loads((path / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (path / "state.json").write_text(json.dumps(state))
    assert "has '_indices_data_files', which rkstore does not know" in refused(path, "saelens")


def test_a_document_that_is_a_text_is_no_column(bring, tmp_path, x):
    import datasets

    features = {
        "a": datasets.Array2D((CONTEXT, WIDTH), "float32"),
        "document": datasets.Value("string"),
    }
    blocks = x.reshape(-1, CONTEXT, WIDTH)
    columns = {"a": blocks, "document": ["a text"] * len(blocks)}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data.save_to_disk(str(tmp_path / "arrow"))
    store = bring(tmp_path / "arrow", "saelens")
    np.testing.assert_array_equal(store.column("document"), np.arange(ROWS) // CONTEXT)
