"""Exchange: what others wrote comes in, what is stored goes out, and back the same."""

import json
import subprocess
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_files import (
    CONTEXT,
    EXPORTED,
    ROWS,
    WIDTH,
    export,
    foreign,
    rows,
    save_arrow,
    save_memmap,
)

from rkstore.errors import BadInput, RkstoreError
from rkstore.settings import options_in
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.share.exchange.exporting import export_store
from rkstore.share.exchange.importing import import_store
from rkstore.share.settings import ExportSettings, ImportSettings
from rkstore.store.manifest import COLUMNS
from rkstore.store.verify import verify

SITE = "blocks.0.mlp.hook_post"
SAELENS = Path(__file__).parents[2] / ".venv-saelens" / "bin" / "python"


@pytest.fixture
def x():
    return rows()


# Every member of the family.


@pytest.mark.parametrize("kind", IMPORTERS)
def test_an_import_stores_the_rows_as_they_are(bring, tmp_path, x, kind):
    store = bring(foreign(kind, tmp_path, x), kind)
    [name] = store.manifest.hook_names
    np.testing.assert_array_equal(store.read(name), x)
    assert not list(verify(store))


@pytest.mark.parametrize("kind", IMPORTERS)
def test_an_import_says_where_it_came_from(bring, tmp_path, x, kind):
    source = bring(foreign(kind, tmp_path, x), kind, model_name="gpt2").manifest.source
    assert source["imported_from"] == kind
    assert source["model"] == {"name": "gpt2"}
    assert source["dtype"] == "float32"
    assert source["files"]
    for file in source["files"]:
        assert (len(file["sha256"]), file["bytes"] > 0, "/tmp" in file["name"]) == (64, True, False)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_rows_without_columns_are_blocks_of_their_context(bring, tmp_path, x, kind):
    store = bring(foreign(kind, tmp_path, x), kind, context_size=CONTEXT)
    row = np.arange(ROWS)
    np.testing.assert_array_equal(store.column("token_id"), np.full(ROWS, -1))
    np.testing.assert_array_equal(store.column("document"), row // CONTEXT)
    np.testing.assert_array_equal(store.column("position"), row % CONTEXT)


@pytest.mark.parametrize("kind", [kind for kind in IMPORTERS if kind != "saelens"])
def test_without_a_context_size_each_row_is_a_block_of_its_own(bring, tmp_path, x, kind):
    store = bring(foreign(kind, tmp_path, x), kind)
    assert store.manifest.context_size == 1
    assert not store.column("position").any()
    np.testing.assert_array_equal(store.column("document"), np.arange(ROWS))


@pytest.mark.parametrize("kind", IMPORTERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_row(refused, tmp_path, x, kind, bad):
    x[37, 2] = bad
    assert f"row 37 of {'tensor' if kind == 'hdf5' else 'acts'} has {bad}" in refused(
        foreign(kind, tmp_path, x), kind
    )


@pytest.mark.parametrize("kind", IMPORTERS)
def test_a_file_cut_short_is_refused(refused, tmp_path, x, kind):
    path = foreign(kind, tmp_path, x)
    files = {"saelens": "data-00001-of-00002.arrow", "memmap": "shard_1.memmap"}
    file = path / files[kind] if kind in files else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    sentence = refused(path, kind)
    assert any(said in sentence for said in ("truncated", "cannot be loaded", "bytes where"))


@pytest.mark.parametrize("kind", IMPORTERS)
def test_a_file_of_something_else_is_refused(refused, tmp_path, kind):
    (tmp_path / "notes.txt").write_text("not activations")
    assert "notes.txt" in refused(tmp_path / "notes.txt", kind)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_another_width_than_asked_for_is_refused(refused, tmp_path, x, kind):
    assert "is 6 wide, not 768 as d_in says" in refused(foreign(kind, tmp_path, x), kind, d_in=768)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_a_context_size_that_the_rows_are_not_is_refused(refused, tmp_path, x, kind):
    assert "context_size is 7" in refused(foreign(kind, tmp_path, x), kind, context_size=7)


@pytest.mark.parametrize("kind", IMPORTERS)
def test_an_import_goes_on_where_it_stopped(bring, tmp_path, x, kind, monkeypatch):
    from rkstore.store.writing.writer import StoreWriter

    path, plain = foreign(kind, tmp_path, x), StoreWriter.finish_shard

    def stopping(self, shard):
        if self.next_shard == 2:
            raise KeyboardInterrupt
        plain(self, shard)

    monkeypatch.setattr(StoreWriter, "finish_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        bring(path, kind)
    monkeypatch.setattr(StoreWriter, "finish_shard", plain)
    store = bring(path, kind)
    np.testing.assert_array_equal(store.read(store.manifest.hook_names[0]), x)


@pytest.mark.parametrize("kind", EXPORTERS)
def test_what_went_out_comes_back_the_same(bring, make_store, tmp_path, kind):
    store, values = make_store()
    out = export(store, kind, tmp_path / "out")
    back = bring(out / EXPORTED[kind], kind, context_size=store.manifest.context_size)
    assert set(back.manifest.hook_names) == set(store.manifest.hook_names)
    for name in store.manifest.hook_names:
        np.testing.assert_array_equal(back.read(name), values[name])
    np.testing.assert_array_equal(back.column("token_id"), values["token_id"])
    np.testing.assert_array_equal(back.column("position"), values["position"])


@pytest.mark.parametrize("kind", EXPORTERS)
def test_float16_rounds_what_it_writes(bring, make_store, tmp_path, kind):
    store, values = make_store()
    out = export(store, kind, tmp_path / "out", dtype="float16", hook=(SITE,))
    back = bring(out / EXPORTED[kind], kind)
    assert back.manifest.source["dtype"] == "float16"
    np.testing.assert_array_equal(back.read(SITE), values[SITE].astype(np.float16))


@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_value_too_large_for_float16_is_refused_and_nothing_is_left(make_store, tmp_path, kind):
    x = np.zeros((216, 12), np.float32)
    x[100, 3] = 1e6
    store, _ = make_store(values={SITE: x})
    with pytest.raises(BadInput, match=f"{SITE}, row 100: 1e\\+06 is too large for float16"):
        export(store, kind, tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("kind", EXPORTERS)
def test_only_the_sites_of_a_layer_are_written(bring, make_store, tmp_path, kind):
    store, _ = make_store()
    out = export(store, kind, tmp_path / "out", layer=1)
    back = bring(out / EXPORTED[kind], kind)
    assert set(back.manifest.hook_names) == {"blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"}


@pytest.mark.parametrize("kind", EXPORTERS)
def test_the_rows_recorded_so_far_are_written(bring, make_store, tmp_path, kind):
    store, values = make_store(shards=2)
    out = export(store, kind, tmp_path / "out", hook=(SITE,))
    np.testing.assert_array_equal(bring(out / EXPORTED[kind], kind).read(SITE), values[SITE][:128])


@pytest.mark.parametrize("kind", EXPORTERS)
def test_token_ids_that_are_not_known_do_not_become_tokens(bring, make_store, tmp_path, kind):
    store, _ = make_store(values={"token_id": np.full(216, -1, np.int32)})
    out = export(store, kind, tmp_path / "out", hook=(SITE,))
    back = bring(out / EXPORTED[kind], kind)
    np.testing.assert_array_equal(back.column("token_id"), np.full(216, -1))


@pytest.mark.parametrize("kind", EXPORTERS)
def test_the_same_store_gives_the_same_bytes(make_store, tmp_path, kind):
    from conftest import tree

    store, _ = make_store()
    first, second = (export(store, kind, tmp_path / name) for name in ("a", "b"))
    assert tree(first) == tree(second)


@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_directory_that_holds_something_is_kept(make_store, tmp_path, kind):
    store, _ = make_store()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="there already and not empty"):
        export(store, kind, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", EXPORTERS)
def test_an_empty_directory_is_filled(make_store, tmp_path, kind):
    store, _ = make_store()
    (tmp_path / "out").mkdir()
    assert any(export(store, kind, tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", EXPORTERS)
def test_an_export_that_has_no_room_is_refused_before_it_begins(
    make_store, tmp_path, kind, monkeypatch
):
    import shutil

    store, _ = make_store()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RkstoreError, match="make room"):
        export(store, kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_choices_of_the_options_are_the_families():
    for kind, name, family in (
        (ImportSettings, "from_", IMPORTERS),
        (ExportSettings, "to", EXPORTERS),
    ):
        choices = options_in(kind)[name].choices
        assert choices is family


def test_what_the_files_are_must_be_said(bring, tmp_path, x):
    with pytest.raises(BadInput, match="from_: one of saelens, memmap, npy, pt, hdf5"):
        import_store(tmp_path, ImportSettings())
    store = bring(foreign("npy", tmp_path, x), "npy")
    with pytest.raises(BadInput, match="to: one of saelens, memmap, npy, hdf5"):
        export_store(store, ExportSettings())


# One format alone.


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_memmap_shard_of_any_dtype_is_read(bring, tmp_path, x, dtype):
    save_memmap(tmp_path / "acts", 0, x, dtype)
    store = bring(tmp_path / "acts", "memmap")
    np.testing.assert_array_equal(store.read("acts"), x)
    assert store.manifest.source["dtype"] == dtype


def test_a_memmap_cache_is_one_site_a_submodule_in_order_with_its_tokens(bring, tmp_path, x):
    import torch

    for layer in (2, 10):
        for number, part in enumerate(np.array_split(x * layer, 12)):
            save_memmap(tmp_path / "cache" / f"layer_{layer}_out", number, part)
    torch.save(torch.arange(ROWS), tmp_path / "cache" / "tokens.pt")
    store = bring(tmp_path / "cache", "memmap")
    assert store.manifest.hook_names == ["layer_2_out", "layer_10_out"]
    np.testing.assert_array_equal(store.read("layer_10_out"), x * 10)
    np.testing.assert_array_equal(store.column("token_id"), np.arange(ROWS))


def test_memmap_shards_that_are_not_one_array_are_refused(refused, tmp_path, x):
    save_memmap(tmp_path / "acts", 0, x)
    save_memmap(tmp_path / "acts", 1, x[:, :4])
    assert "shard_1.memmap is 4 wide and shard_0.memmap is 6" in refused(
        tmp_path / "acts", "memmap"
    )


def test_a_memmap_shard_that_is_missing_is_refused(refused, tmp_path, x):
    for number in (0, 2):
        save_memmap(tmp_path / "acts", number, x)
    assert "shard_2.memmap where shard_1.memmap is due" in refused(tmp_path / "acts", "memmap")


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (None, "was never finished"),
        ("{", "does not state"),
        ('{"shape": [48], "dtype": "float32"}', "does not state"),
        ('{"shape": [48, 6], "dtype": "torch.int64"}', "states dtype int64"),
        ('{"shape": [48, 5], "dtype": "float32"}', "1,152 bytes where its .meta states 960"),
        ('{"shape": [-48, -6], "dtype": "float32"}', "states shape (-48, -6)"),
    ],
)
def test_a_memmap_shard_without_a_true_meta_is_refused(refused, tmp_path, x, meta, said):
    save_memmap(tmp_path / "acts", 0, x)
    path = tmp_path / "acts" / "shard_0.meta"
    path.unlink() if meta is None else path.write_text(meta)
    assert said in refused(tmp_path / "acts", "memmap")


def test_submodules_that_were_shuffled_apart_are_not_made_one_store(refused, bring, tmp_path, x):
    for name in ("a", "b"):
        save_memmap(tmp_path / "cache" / name, 0, x)
        (tmp_path / "cache" / name / "config.json").write_text('{"shuffle_shards": true}')
    assert "shuffled" in refused(tmp_path / "cache", "memmap")
    assert bring(tmp_path / "cache" / "a", "memmap").rows == ROWS


@pytest.mark.parametrize("kind", ["npy", "pt", "hdf5"])
def test_blocks_of_rows_say_their_context_size(bring, tmp_path, x, kind):
    path = foreign(kind, tmp_path, x.reshape(-1, CONTEXT, WIDTH))
    store = bring(path, kind, shard_rows=24)
    assert store.manifest.context_size == CONTEXT
    np.testing.assert_array_equal(store.read(store.manifest.hook_names[0]), x)


@pytest.mark.parametrize("kind", ["npy", "pt", "hdf5"])
@pytest.mark.parametrize("shape", [(288,), (0, 6), (2, 2, 2, 6, 6)])
def test_a_shape_that_activations_cannot_have_is_refused(refused, tmp_path, kind, shape):
    assert "shape" in refused(foreign(kind, tmp_path, np.zeros(shape, np.float32)), kind)


@pytest.mark.parametrize("kind", ["npy", "pt", "hdf5"])
@pytest.mark.parametrize("dtype", [np.int32, np.complex64, bool])
def test_a_dtype_that_activations_cannot_have_is_refused(refused, tmp_path, x, kind, dtype):
    assert "activations are" in refused(foreign(kind, tmp_path, x.astype(dtype)), kind)


def test_an_array_in_fortran_order_is_read(bring, tmp_path, x):
    np.save(tmp_path / "acts.npy", np.asfortranarray(x))
    np.testing.assert_array_equal(bring(tmp_path / "acts.npy", "npy").read("acts"), x)


def test_an_npy_file_of_objects_is_refused_and_not_unpickled(refused, tmp_path):
    np.save(tmp_path / "acts.npy", np.array([{}], object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "acts.npy", "npy")


def test_arrays_of_different_rows_are_refused(refused, tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x[:40])
    assert "b has shape (40, 6) and a (48, 6)" in refused(tmp_path, "npy")


def test_tokens_of_other_rows_are_refused(refused, tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "tokens.npy", np.arange(ROWS - 1))
    assert "tokens.npy has shape (47,) and the activations have 48 rows" in refused(tmp_path, "npy")


def test_token_ids_that_no_store_holds_are_refused(refused, tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "tokens.npy", np.arange(ROWS) + 2**31)
    assert "-1 for unknown" in refused(tmp_path, "npy")


def test_as_many_names_as_arrays_are_needed(refused, bring, tmp_path, x):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", x)
    assert "hook_name is given 1 times for 2 arrays" in refused(tmp_path, "npy", hook_name=(SITE,))
    names = (SITE, "blocks.1.mlp.hook_post")
    assert bring(tmp_path, "npy", hook_name=names).manifest.hook_names == list(names)


def test_a_pickle_is_refused_and_not_run(refused, tmp_path):
    import torch

    class Runs:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Runs(), tmp_path / "acts.pt")
    assert "could run any program" in refused(tmp_path / "acts.pt", "pt")
    assert not (tmp_path / "ran").exists()


def test_a_pt_file_of_more_than_a_tensor_is_refused(refused, tmp_path, x):
    import torch

    torch.save({"acts": torch.from_numpy(x)}, tmp_path / "acts.pt")
    assert "holds a dict, not a tensor" in refused(tmp_path / "acts.pt", "pt")


def test_a_pt_file_of_bfloat16_is_read(bring, tmp_path, x):
    import torch

    torch.save(torch.from_numpy(x).bfloat16(), tmp_path / "acts.pt")
    np.testing.assert_array_equal(bring(tmp_path / "acts.pt", "pt").read("acts"), x)


def test_disc_buffer_becomes_two_sites_a_layer(bring, tmp_path, x):
    x = x.reshape(ROWS // 2, 2, 3, 2)
    store = bring(foreign("hdf5", tmp_path, x), "hdf5")
    assert store.manifest.hook_names == [
        f"blocks.{layer}.{kind}"
        for kind in ("hook_resid_mid", "hook_mlp_out")
        for layer in range(3)
    ]
    np.testing.assert_array_equal(store.read("blocks.2.hook_resid_mid"), x[:, 0, 2])
    np.testing.assert_array_equal(store.read("blocks.1.hook_mlp_out"), x[:, 1, 1])


def test_an_hdf5_dataset_can_be_chosen(refused, bring, tmp_path, x):
    with h5py.File(tmp_path / "acts.h5", "w") as file:
        file["layer_3/inputs"] = x
    store = bring(tmp_path / "acts.h5", "hdf5", dataset=("layer_3/inputs",), hook_name=(SITE,))
    np.testing.assert_array_equal(store.read(SITE), x)
    assert "has no dataset 'layer_4'" in refused(tmp_path / "acts.h5", "hdf5", dataset=("layer_4",))


def test_hdf5_numbers_that_lie_in_another_file_are_refused(refused, tmp_path, x):
    np.save(tmp_path / "secret.npy", x)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = x
    outside = [(str(tmp_path / "secret.npy"), 128, x.nbytes)]
    with h5py.File(tmp_path / "acts.h5", "w") as file:
        file.create_dataset("raw", x.shape, x.dtype, external=outside)
        file["linked"] = h5py.ExternalLink("other.h5", "x")
        layout = h5py.VirtualLayout(x.shape, x.dtype)
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", x.shape)
        file.create_virtual_dataset("virtual", layout)
        file["away"] = h5py.ExternalLink("other.h5", "/")
    refusals = {
        "raw": "itself",
        "virtual": "itself",
        "linked": "no dataset",
        "away/x": "no dataset",
    }
    for name, said in refusals.items():
        assert said in refused(tmp_path / "acts.h5", "hdf5", dataset=(name,))


def test_the_documents_of_an_hdf5_export_come_back(bring, make_store, tmp_path):
    store, values = make_store()
    back = bring(export(store, "hdf5", tmp_path / "out") / "activations.h5", "hdf5")
    for name in COLUMNS:
        np.testing.assert_array_equal(back.column(name), values[name])


def test_a_saelens_dataset_has_its_tokens(bring, tmp_path, x):
    blocks, tokens = x.reshape(-1, CONTEXT, WIDTH), np.arange(ROWS).reshape(-1, CONTEXT)
    path = save_arrow(tmp_path / "arrow", {SITE: blocks}, {SITE: (CONTEXT, WIDTH)}, tokens)
    store = bring(path, "saelens", shard_rows=16)
    np.testing.assert_array_equal(store.column("token_id"), np.arange(ROWS))
    assert store.manifest.context_size == CONTEXT


def test_a_saelens_column_that_is_not_there_is_refused(refused, tmp_path, x):
    path = foreign("saelens", tmp_path, x)
    assert f"no column {SITE}" in refused(path, "saelens", hook_name=(SITE,))


def test_a_dataset_of_files_elsewhere_is_refused(refused, tmp_path, x):
    path = foreign("saelens", tmp_path, x)
    state = json.loads((path / "state.json").read_text())
    (path / "data-00001-of-00002.arrow").rename(tmp_path / "elsewhere.arrow")
    state["_data_files"][1]["filename"] = "../elsewhere.arrow"
    (path / "state.json").write_text(json.dumps(state))
    assert "data files outside it" in refused(path, "saelens")


def test_a_dataset_with_a_block_missing_is_refused(refused, tmp_path, x):
    blocks: list = list(x.reshape(-1, CONTEXT, WIDTH))
    blocks[1] = None
    path = save_arrow(tmp_path / "arrow", {SITE: blocks}, {SITE: (CONTEXT, WIDTH)})
    assert f"row 8 of {SITE} has nan" in refused(path, "saelens")


def test_a_dataset_without_activations_is_refused(refused, tmp_path):
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "text"))
    assert "its columns are text" in refused(tmp_path / "text", "saelens")


def test_an_exported_dataset_is_of_the_shape_that_saelens_checks(make_store, tmp_path):
    import datasets

    store, values = make_store()
    data = datasets.load_from_disk(str(export(store, "saelens", tmp_path / "out", hook=(SITE,))))
    assert data.column_names == [SITE, "token_ids", "document", "position"]
    assert data.features[SITE].shape == (8, 12)
    assert data.features[SITE].dtype == "float32"
    np.testing.assert_array_equal(
        data.with_format("numpy")[3:5][SITE], values[SITE][24:40].reshape(2, 8, 12)
    )


def test_a_site_cannot_take_the_name_of_the_tokens(make_store, tmp_path):
    store, _ = make_store(sites={"tokens": 4})
    with pytest.raises(BadInput, match="'tokens' cannot be written as npy"):
        export(store, "npy", tmp_path / "out")


PROGRAM = textwrap.dedent("""
    import sys
    import numpy as np
    import torch
    from sae_lens.training.activations_store import ActivationsStore
    path, out = sys.argv[1:]
    store = ActivationsStore(
        model=None, dataset=None, streaming=False, hook_name="blocks.0.mlp.hook_post",
        hook_head_index=None, context_size=8, d_in=12, n_batches_in_buffer=2,
        total_training_tokens=216, store_batch_size_prompts=9, train_batch_size_tokens=8,
        prepend_bos=True, normalize_activations="none", device=torch.device("cpu"),
        dtype="float32", cached_activations_path=path,
    )
    batches = [store.get_raw_llm_batch() for _ in range(3)]
    x, tokens = (torch.cat(parts).numpy() for parts in zip(*batches))
    np.savez(out, x=x, tokens=tokens)
""")


@pytest.mark.skipif(not SAELENS.exists(), reason="no SAELens: 'make saelens' installs it")
def test_saelens_reads_an_export_as_its_own_cached_activations(make_store, tmp_path):
    store, values = make_store()
    out = export(store, "saelens", tmp_path / "out")
    words = [SAELENS, "-c", PROGRAM, str(out), str(tmp_path / "read.npz")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "read.npz") as read:
        np.testing.assert_array_equal(read["x"], values[SITE])
        np.testing.assert_array_equal(read["tokens"], values["token_id"])


# The two commands.


def test_the_commands_take_a_store_out_and_bring_it_back(rkstore, make_store, tmp_path):
    store, values = make_store()
    status, out, err = rkstore("export", store.root, "--to", "npy", "--layer", 0, "--out", "away")
    assert (status, out) == (0, "away\n"), err
    words = ("--codec", "float32", "--out", "back")
    status, out, err = rkstore("import", "away", "--from", "npy", *words)
    assert status == 0, err
    assert "npy" in out
    assert f"{SITE}.npy" in out
    assert rkstore("verify", "back")[0] == 0
    from rkstore.store.store import Store

    np.testing.assert_array_equal(Store(tmp_path / "back").read(SITE), values[SITE])


def test_a_yaml_file_may_say_from(rkstore, tmp_path, x):
    np.save(tmp_path / "acts.npy", x)
    (tmp_path / "run.yaml").write_text("from: npy\nout: imported\n")
    status, _, err = rkstore("import", "acts.npy", "--config", "run.yaml")
    assert status == 0, err
    assert (tmp_path / "imported" / "manifest.json").is_file()


def test_the_default_directories_are_named_after_what_they_hold(rkstore, tmp_path, x):
    np.save(tmp_path / "acts.npy", x)
    assert rkstore("import", "acts.npy", "--from", "npy")[0] == 0
    assert rkstore("export", "--to", "hdf5")[0] == 0
    assert (tmp_path / "exports" / "acts-hdf5" / "activations.h5").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "absent.npy", "--from", "npy"], "there is nothing at absent.npy"),
        (["import", "acts.npy"], "say what the files are with --from"),
        (["import", "acts.npy", "--from", "npy", "--hook-name", "a b"], "cannot name a site"),
        (
            ["import", "acts.npy", "--from", "npy", "--hook-name", "token_id"],
            "such a store is not possible",
        ),
        (["import", "acts.npy", "--from", "npy", "--out", "taken"], "taken is not empty"),
        (["export", "nowhere", "--to", "npy"], "there is no store at nowhere"),
        (["export", "store"], "say what to write with --to"),
        (["export", "store", "--to", "npy", "--layer", 7], "--layer 7 is not in the store"),
        (["export", "store", "--to", "npy", "--out", "taken"], "taken is there already"),
    ],
)
def test_what_cannot_be_is_refused_with_one_sentence(rkstore, make_store, tmp_path, x, words, said):
    make_store()
    np.save(tmp_path / "acts.npy", x)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    status, out, err = rkstore(*words)
    assert (status, out) == (2, "")
    [sentence] = err.splitlines()
    assert sentence.startswith("rkstore: ")
    assert said in sentence
