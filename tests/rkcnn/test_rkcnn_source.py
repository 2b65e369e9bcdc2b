"""A store's site and an array of the same rows give the same result, however they are cut."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rkstore.errors import BadInput
from rkstore.rkcnn import RkCNNProbe, RkCNNResult, StoreSite, source
from rkstore.rkcnn.source import ahead, open_source, read_blocks
from rkstore.rkcnn.spread import spread_rows
from rkstore.store.manifest import Manifest
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

HOOK, ROWS, WIDTH = "blocks.0.mlp.hook_post", 300, 16


def rows() -> np.ndarray:
    generator = np.random.default_rng(8)
    return (generator.gamma(0.3, size=(ROWS, WIDTH)) * np.linspace(1, 2, WIDTH)).astype(np.float32)


def columns() -> dict[str, np.ndarray]:
    every = np.arange(ROWS)
    return {"token_id": every * 7 % 5, "document": every // 100, "position": every % 10}


MakeStore = Callable[[int], Store]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A store of ``rows()`` in chunks of that many rows."""

    def make(chunk_rows: int) -> Store:
        manifest = Manifest(
            rows=ROWS,
            context_size=10,
            shard_rows=2 * chunk_rows,
            chunk_rows=chunk_rows,
            codec="float32",
            format="zarr",
            sites=(Site(HOOK, WIDTH),),
            source={},
        )
        root = tmp_path / f"chunks-of-{chunk_rows}"
        with StoreWriter(root, manifest) as writer:
            for shard in range(manifest.shards):
                a, b = manifest.rows_of_shard(shard)
                here = {name: values[a:b] for name, values in columns().items()}
                writer.write_shard({HOOK: rows()[a:b]}, here)
        return Store(root)

    return make


def assert_same(one: RkCNNResult, other: RkCNNResult) -> None:
    for name in ("top_subsets", "top_scores", "all_subsets", "all_scores", "top_directions"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("score", ["kurtosis", "variance_ratio", "knn", "separation"])
@pytest.mark.parametrize("chunk_rows", [32, 150])
def test_a_store_gives_what_a_tensor_gives(
    score: str, chunk_rows: int, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BLOCK_ROWS", 64)
    probe = RkCNNProbe(WIDTH, h=40, r=10, score_method=score, sample_rows=120)
    site = StoreSite(make_store(chunk_rows), HOOK)
    labels = torch.from_numpy(columns()["token_id"])
    assert_same(probe.probe(site, "token_id"), probe.probe(torch.from_numpy(rows()), labels))


def test_numpy_gives_what_torch_gives() -> None:
    probe = RkCNNProbe(WIDTH, h=40, r=10)
    assert_same(probe.probe(rows()), probe.probe(torch.from_numpy(rows()).requires_grad_()))


def test_bfloat16_is_read_as_float32() -> None:
    half = torch.from_numpy(rows()).bfloat16()
    probe = RkCNNProbe(WIDTH, h=40, r=10)
    assert_same(probe.probe(half), probe.probe(half.float()))


def test_only_the_chunks_named_are_read(make_store: MakeStore) -> None:
    site = StoreSite(make_store(32), HOOK, chunks=(1, 4, 9))
    chosen = np.r_[32:64, 128:160, 288:300]
    probe = RkCNNProbe(WIDTH, h=40, r=10, score_method="knn", sample_rows=40)
    expected = probe.probe(rows()[chosen], columns()["position"][chosen])
    assert site.rows == 76
    assert_same(probe.probe(site, "position"), expected)


@pytest.mark.parametrize("name", ["token_id", "document", "position"])
def test_labels_may_be_a_column(name: str, make_store: MakeStore) -> None:
    wanted = np.array([3, 31, 32, 200, 299])
    found = StoreSite(make_store(32), HOOK).column(name, wanted)
    np.testing.assert_array_equal(found, columns()[name][wanted])


@pytest.mark.parametrize("chunk_rows", [10, 32, 150])
def test_the_next_token_is_that_of_the_row_below_in_the_same_block(
    make_store: MakeStore, chunk_rows: int
) -> None:
    site = StoreSite(make_store(chunk_rows), HOOK)
    every = np.arange(ROWS)
    below = np.roll(columns()["token_id"], -1)
    expected = np.where(every % 10 == 9, -1, below)  # blocks of 10 rows
    np.testing.assert_array_equal(site.column("next_token", every), expected)


def test_next_tokens_may_be_labels(make_store: MakeStore) -> None:
    probe = RkCNNProbe(WIDTH, h=40, r=10, score_method="separation")
    result = probe.probe(StoreSite(make_store(32), HOOK), "next_token")
    assert result.source["labels"] == "next_token"


def test_labels_of_a_store_may_be_an_array(make_store: MakeStore) -> None:
    probe = RkCNNProbe(WIDTH, h=40, r=10, score_method="separation")
    site = StoreSite(make_store(32), HOOK)
    assert_same(probe.probe(site, columns()["document"]), probe.probe(site, "document"))


def test_a_result_names_its_store(make_store: MakeStore) -> None:
    store = make_store(150)
    result = RkCNNProbe(WIDTH, h=40, r=10).probe(StoreSite(store, HOOK, [1]), "document")
    assert result.source == {
        "store": store.manifest.fingerprint,
        "hook_name": HOOK,
        "chunks": [1],
        "rows": 150,
        "labels": "document",
    }


def test_blocks_do_not_depend_on_how_a_store_is_cut(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BLOCK_ROWS", 64)
    for chunk_rows in (10, 32, 150):
        blocks = list(read_blocks(StoreSite(make_store(chunk_rows), HOOK)))
        assert [len(block) for block in blocks] == [64, 64, 64, 64, 44]
        np.testing.assert_array_equal(np.concatenate(blocks), rows())


def test_blocks_read_ahead_are_the_same_blocks() -> None:
    blocks = [np.full((2, 3), i, np.float32) for i in range(4)]
    for found, block in zip(ahead(iter(blocks)), blocks, strict=True):
        assert found is block


def test_an_error_in_reading_ahead_comes_out_behind_the_blocks_before_it() -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield np.zeros((1, 1), np.float32)
        raise BadInput("the second is damaged")

    reading = ahead(blocks())
    assert next(reading).shape == (1, 1)
    with pytest.raises(BadInput, match="the second is damaged"):
        next(reading)


def test_a_sample_is_spread_over_all_rows() -> None:
    sample = spread_rows(1000, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(sample // 100, np.arange(10))
    assert len(set(sample % 100)) > 1


def test_a_sample_larger_than_the_source_is_all_of_it() -> None:
    sample = spread_rows(7, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(sample, np.arange(7))


def test_an_unknown_site_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(BadInput, match=r"'blocks.9' is not in the store .* has blocks.0"):
        StoreSite(make_store(150), "blocks.9")


@pytest.mark.parametrize("chunk", [-1, 2])
def test_an_unknown_chunk_is_refused(chunk: int, make_store: MakeStore) -> None:
    with pytest.raises(BadInput, match=f"chunk {chunk} is not in the store .* has 2 chunks"):
        StoreSite(make_store(150), HOOK, [0, chunk])


def test_an_unknown_column_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(BadInput, match="unknown column 'word'"):
        RkCNNProbe(WIDTH, h=40, r=10).probe(StoreSite(make_store(150), HOOK), "word")


def test_a_site_of_no_chunks_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(BadInput, match="have 0 rows: give at least 2"):
        RkCNNProbe(WIDTH, h=40, r=10).probe(StoreSite(make_store(150), HOOK, []))


def test_a_store_of_another_width_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(BadInput, match="are 16 wide and the probe expects 8"):
        RkCNNProbe(8, h=20, r=10).probe(StoreSite(make_store(150), HOOK))


def test_a_column_needs_a_store() -> None:
    with pytest.raises(BadInput, match="labels='token_id' names a column of a store"):
        RkCNNProbe(WIDTH, h=40, r=10).probe(rows(), "token_id")


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ([[1.0, 2.0]], "a list: give a torch tensor"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\): give a matrix"),
        (torch.zeros(4, 2, dtype=torch.complex64), "complex64: give real numbers"),
        (np.full((4, 2), "a"), "give real numbers"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_refused(activations: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        open_source(activations)
